"""Values cross from the container to us: written down there, rebuilt here."""

import json
import random
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4eval.sandbox.values import (
    Unequal,
    ValueTreeError,
    is_opaque,
    read_expected,
    rebuild_value,
)
from sandboxes.python_judge.values import encode_value

LIMIT = 1 << 20
Pair = namedtuple("Pair", "x y")


class Colour(IntEnum):
    RED = 1


class Stubborn(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Broken:
    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = object.__hash__


def across(value: object) -> Any:
    payload = encode_value(value, LIMIT)
    assert payload is not None
    return rebuild_value(payload)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        0.1,
        float("inf"),
        "a\ud800é",
        b"\x00a",
        [1, [2, "x"]],
        (1, (2,)),
        {1: 2, "a": (3,)},
        {1, 2},
        frozenset([1]),
        Fraction(1, 3),
        Decimal("0.10"),
        1 + 2j,
        {"a": {"b": [None]}},
    ],
)
def test_a_built_in_value_comes_back_equal_and_of_its_type(value: object) -> None:
    back = across(value)
    assert back == value
    assert type(back) is type(value)


def test_integers_of_any_length_come_back() -> None:
    assert across(10**5000) == 10**5000
    assert across([10**5000, 1]) == [10**5000, 1]


def test_a_list_of_nan_equals_another_only_where_both_hold_what_json_made_of_one() -> None:
    (given,) = json.loads("[NaN]")
    for own in (float("nan"), -float("nan"), np.float64("nan")):
        assert across([own]) != [given]
        assert across([1, (own, given)]) != [1, (own, given)]
        assert across({"a": own}) != {"a": given}
    assert across([given, 1.0]) == [given, 1.0]
    assert across([(given, 1)]) == [(given, 1)]
    assert across({"a": [given]}) == {"a": [given]}


def test_nan_comes_back_as_nan() -> None:
    assert across(float("nan")) != across(float("nan"))
    assert repr(across([float("nan"), (1,)])[0]) == "nan"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 1),
        (defaultdict(int, a=1), {"a": 1}),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Pair(1, 2), (1, 2)),
    ],
)
def test_a_subclass_that_compares_like_its_base_comes_back_as_the_base(
    value: object, plain: object
) -> None:
    assert across(value) == plain
    assert type(across(value)) is type(plain)


@pytest.mark.parametrize(
    "value",
    [np.int64(3), np.float32(0.1), np.bool_(True), np.str_("a"), np.array([[1, 2]]), np.array(7)],
)
def test_numpy_values_keep_type_shape_and_content(value: Any) -> None:
    back = across(value)
    assert type(back) is type(value)
    assert back.dtype == value.dtype
    assert np.array_equal(back, value)


@pytest.mark.parametrize("value", [Stubborn(2), Broken(), [Broken()], {"a": Stubborn(1)}])
def test_an_object_that_decides_about_its_own_equality_is_opaque_and_equals_nothing(
    value: object,
) -> None:
    back = across(value)
    assert is_opaque(back)
    assert back != 2
    assert back != [1]


@pytest.mark.parametrize("value", [deque([1]), range(3), object(), len, (x for x in "a"), int])
def test_a_value_that_equals_no_json_is_unequal_but_not_opaque(value: object) -> None:
    back = across(value)
    assert isinstance(back, Unequal)
    assert not is_opaque(back)


def test_a_list_that_holds_itself_comes_back_as_something() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert across(loop) != [1]


def test_a_small_value_that_is_enormous_when_written_is_refused() -> None:
    value: Any = "x"
    for _ in range(60):
        value = [value, value]
    assert encode_value(value, LIMIT) is None


def test_a_value_over_its_limit_is_refused() -> None:
    assert encode_value("x" * 100, 100) is None
    assert encode_value("x" * 90, 100) is not None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"{}",
        b'{"t": ["?", 1]}',
        b'{"t": ["i", "zz"]}',
        b'{"t": ["a", "O", [1], "00"]}',
        b'{"t": ["a", "<i8", [2], "00"]}',
        b'{"t": ["d", [[["l", []], ["n"]]]]}',
        b'{"t": ["q", "1", "0"]}',
        b'{"t": ' + b'["l", [' * 5000,
        b"\xff",
    ],
)
def test_what_is_no_value_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueTreeError):
        rebuild_value(payload)


def test_expected_integers_may_have_any_length() -> None:
    assert read_expected("1" + "0" * 5000) == 10**5000
    with pytest.raises(ValueError, match="Expecting value"):
        read_expected("x")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain, plain)
def test_two_values_are_equal_here_exactly_when_they_were_there(one: Any, other: Any) -> None:
    expected = json.loads(json.dumps(other))
    assert (across(one) == expected) is (one == expected)
    assert across(one) == one


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueTreeError):
        rebuild_value(noise)


def plain_leaves(value: Any) -> Iterator[object]:
    """What a value holds, containers opened; a dtype that could hold objects is no leaf of ours."""
    if isinstance(value, dict):
        yield from plain_leaves([*value, *value.values()])
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from plain_leaves(item)
    elif isinstance(value, np.ndarray):
        assert value.dtype.kind in "biufcU"
    else:
        yield value


def test_a_damaged_tree_is_refused_or_is_another_plain_value() -> None:
    rng = random.Random(1)
    payload = encode_value([(1, 2.5), {"a": {3}}, Fraction(1, 2), np.array([1, 2])], LIMIT)
    assert payload is not None
    refused, leaves = 0, set()
    for _ in range(500):
        damaged = bytearray(payload)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            leaves |= {type(leaf) for leaf in plain_leaves(rebuild_value(bytes(damaged)))}
        except ValueTreeError:
            refused += 1
    assert 100 < refused < 500
    assert {int, float, str, Fraction} <= leaves
    assert leaves <= {int, float, complex, str, bytes, bool, type(None), Fraction, Decimal, Unequal}
