import math

import pytest

from g4eval.records import Interval
from g4eval.report import words

DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8917, "89.2"), (0.0, "0.0"), (1.0, "100.0"), (math.nan, DASH), (None, DASH)],
)
def test_a_share_is_printed_in_percent_and_what_is_unknown_as_a_dash(value, text):
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.034, "\N{MINUS SIGN}3.4"), (0.012, "+1.2"), (math.nan, DASH)]
)
def test_a_difference_has_a_sign_and_a_real_minus(value, text):
    assert words.points(value) == text


def test_intervals_of_scores_and_of_differences():
    interval = Interval(low=-0.1, high=0.056, method="t")
    assert words.points_interval(interval) == "\N{MINUS SIGN}10.0 to +5.6"
    assert words.interval(Interval(low=0.84, high=0.931, method="t")) == f"84.0{DASH}93.1"
    assert words.interval(None) == words.points_interval(None) == DASH


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(0, 10, "0"), (1, 8, "12.5"), (1, 5000, "<0.1"), (0, 0, DASH)]
)
def test_only_no_case_at_all_is_printed_as_zero(part, whole, text):
    assert words.share(part, whole) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.004, "<0.1"), (2.345, "2.3"), (None, DASH), (0.0, "0.0")]
)
def test_hours(value, text):
    assert words.hours(value) == text


def test_counts_and_moments():
    assert (words.count(12345.6), words.count(None)) == ("12,346", DASH)
    assert (words.moment(86400.0), words.moment(0)) == ("1970-01-02 00:00 UTC", DASH)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("gemma-4.1_b", "gemma-4.1_b"), ("../a b/ü", "a-b"), ("…", "run"), ("a/../b", "a-..-b")],
)
def test_a_run_id_as_a_file_name_stays_in_its_folder(name, slug):
    assert words.slug(name) == slug
