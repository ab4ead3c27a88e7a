"""How outputs and values are compared; every row is worked out by hand from the official rules."""

import tracemalloc

import numpy as np
import pytest

from g4eval.sandbox.compare import (
    ComparisonError,
    output_difference_fair,
    output_difference_official,
    values_equal_fair,
    values_equal_official,
)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("6\n", "6"),
        ("  6  \n\n", "6"),
        ("1\n\n2", "1\n\n2"),
        (" 1\n 2", "1\n2"),
        ("6.0", "6"),
        ("6e0 +1", "6 1"),
        ("1_0", "10"),
        ("inf", "Infinity"),
        ("1   2", "1 2"),
        ("nan", "nan"),
        ("", "\n"),
        ("\u0666", "6"),
    ],
)
def test_outputs_that_are_officially_alike(output: str, expected: str) -> None:
    assert output_difference_official(output, expected) is None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("YES", "Yes"),
        ("a  b", "a b"),
        ("1\n2", "1 2"),
        ("1\n\n2", "1\n2"),
        ("0.3333333333", "0.333333333333"),
        ("nan", "NaN"),
        ("a 1.0", "a 1"),
        ("1 2", "1 2 3"),
        ("", "6"),
        ("1\u20282", "1\n2"),
        ("100000000000000000000001", "100000000000000000000000"),
    ],
)
def test_outputs_that_officially_differ(output: str, expected: str) -> None:
    assert output_difference_official(output, expected) is not None


@pytest.mark.parametrize("compare", [output_difference_official, output_difference_fair])
@pytest.mark.parametrize("piece", ["1 ", "12\n"])
def test_a_flood_of_tokens_or_lines_is_not_taken_to_pieces(compare, piece: str) -> None:
    output = piece * 1_000_000
    tracemalloc.start()
    try:
        assert compare(output, "1 1") is not None
        assert tracemalloc.get_traced_memory()[1] < 10 * len(output)
    finally:
        tracemalloc.stop()


def test_a_signalling_nan_makes_the_comparison_itself_fail() -> None:
    with pytest.raises(ComparisonError):
        output_difference_official("sNaN", "6")


def test_the_difference_names_line_and_texts() -> None:
    assert output_difference_official("1\n3", "1\n2") == "line 2: '3' where '2' is expected"


def test_numbers_with_huge_exponents_compare_at_once() -> None:
    assert output_difference_official("1E+999999999", "1") is not None
    assert output_difference_fair("1E+999999999", "1") is not None


def test_a_numpy_comparison_stays_an_array() -> None:
    assert values_equal_official(np.array([1, 2]), [1, 3]).tolist() == [True, False]


def test_a_comparison_that_raises_is_a_comparison_error() -> None:
    with pytest.raises(ComparisonError, match="ValueError"):
        values_equal_official(np.array([1, 2]), [1, 2, 3])


@pytest.mark.parametrize(
    ("output", "expected", "alike"),
    [
        ("0.3333333333", "0.333333333333", True),
        ("0.33333", "0.333333333333", False),
        ("1\n2", "1 2", True),
        ("a  b", "a b", True),
        ("100000000000000000000001", "100000000000000000000000", False),
        ("yes", "YES", False),
        ("nan", "nan", True),
        ("1e400", "2e400", False),
    ],
)
def test_a_fair_judge_reads_tokens_and_allows_a_millionth(
    output: str, expected: str, alike: bool
) -> None:
    assert (output_difference_fair(output, expected) is None) is alike


@pytest.mark.parametrize(
    ("value", "expected", "alike"),
    [
        ([(1, 2)], [[1, 2]], True),
        (0.1 + 0.2, 0.3, True),
        (0.30001, 0.3, False),
        (np.array([1, 2]), [1, 2], True),
        ([1, [2]], [1, [3]], False),
        ({"a": 1}, {"a": 1}, True),
        ("1", 1, False),
        (None, [], False),
    ],
)
def test_a_fair_judge_takes_tuples_for_lists(value: object, expected: object, alike: bool) -> None:
    assert values_equal_fair(value, expected) is alike
