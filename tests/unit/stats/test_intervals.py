import numpy as np
import pytest

from g4eval.records import Interval
from g4eval.stats.intervals import (
    both_intervals,
    clopper_pearson,
    hierarchical,
    jeffreys,
    wilson,
    wilson_lower,
)


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


# Closed forms, checked against statsmodels' proportion_confint.
@pytest.mark.parametrize(
    ("make", "successes", "trials", "low", "high"),
    [
        (wilson, 27, 30, 0.74379, 0.96540),
        (jeffreys, 27, 30, 0.75660, 0.97102),
        (clopper_pearson, 27, 30, 0.73471, 0.97888),
        (wilson, 30, 30, 0.88649, 1.0),
        (jeffreys, 30, 30, 0.92032, 0.99998),
        (clopper_pearson, 30, 30, 0.88430, 1.0),
        (wilson, 167, 198, 0.78634, 0.88745),
        (jeffreys, 167, 198, 0.78800, 0.88892),
    ],
)
def test_interval_of_a_proportion(make, successes, trials, low, high) -> None:
    assert ends(make(successes, trials)) == pytest.approx((low, high), abs=6e-6)


def test_wilson_one_sided_lower_limit() -> None:
    assert wilson_lower(167, 198) == pytest.approx(0.796360, abs=1e-6)


def test_wilson_at_no_success_starts_at_zero() -> None:
    assert wilson(0, 30).low == 0.0
    assert wilson(0, 30).high == pytest.approx(1 - wilson(30, 30).low)


def test_hierarchical_interval_does_not_collapse_where_all_are_right() -> None:
    interval = hierarchical(np.full(30, 16), np.full(30, 16))
    assert 0.98 < interval.low < 1.0
    assert interval.high > 0.999


def test_hierarchical_interval_is_the_same_every_time() -> None:
    correct = np.array([4, 3, 0, 2, 4, 1])
    assert hierarchical(correct, np.full(6, 4)) == hierarchical(correct, np.full(6, 4))


def test_hierarchical_interval_lies_around_the_mean_and_is_narrower_than_wilson_on_rows() -> None:
    correct = np.array([4] * 20 + [0] * 8 + [2, 3])
    interval = hierarchical(correct, np.full(30, 4))
    mean = correct.sum() / 120
    assert interval.low < mean < interval.high
    rows = wilson(float(correct.sum()), 120)
    assert interval.high - interval.low < rows.high - rows.low


def test_one_posterior_gives_the_wider_interval_for_samples_like_these() -> None:
    correct = np.random.default_rng(0).binomial(4, np.tile([0.1, 0.5, 0.9, 1.0], 20))
    both = both_intervals(correct, np.full(80, 4))
    width = both.samples.high - both.samples.low
    # Between samples: sd 0.36 / sqrt(80); within: 0.328 / sqrt(320).
    assert both.like_these.high - both.like_these.low == pytest.approx(3.92 * 0.043, rel=0.2)
    assert width == pytest.approx(3.92 * 0.0183, rel=0.2)


@pytest.mark.parametrize("n", [1, 13, 198, 4520])
@pytest.mark.parametrize("k", [2, 16])
def test_an_interval_of_no_right_repeat_mirrors_that_of_all_right(n: int, k: int) -> None:
    none = both_intervals(np.zeros(n, np.int64), np.full(n, k))
    every = both_intervals(np.full(n, k), np.full(n, k))
    assert ends(none.samples) == pytest.approx([1 - e for e in ends(every.samples)[::-1]], abs=1e-5)
    assert none.samples.low == 0.0
    assert none.samples.high > 1 / (n * k)


def test_unequal_repeats_are_one_posterior() -> None:
    correct, graded = np.array([4, 0, 1, 9]), np.array([4, 1, 2, 10])
    interval = hierarchical(correct, graded)
    assert interval.low < (1 + 0 + 0.5 + 0.9) / 4 < interval.high


def coverage(
    samples: int, repeats: int, accuracy: float, icc: float, rounds: int
) -> tuple[float, float]:
    """Shares of simulated runs whose intervals hold their own samples' mean, and the model's."""
    generator = np.random.default_rng(7)
    hits = np.zeros(2)
    for _ in range(rounds):
        p = np.full(samples, accuracy)
        if icc:
            total = 1 / icc - 1
            p = generator.beta(accuracy * total, (1 - accuracy) * total, size=samples)
        correct = generator.binomial(repeats, p)
        both = both_intervals(correct, np.full(samples, repeats))
        hits += [
            both.samples.low <= p.mean() <= both.samples.high,
            both.like_these.low <= accuracy <= both.like_these.high,
        ]
    return float(hits[0]) / rounds, float(hits[1]) / rounds


# Each covered 36 to 87 % on a grid of means 2.5 points apart, or by t for samples like these;
# `nox -s gate-sim` has all 525 cells.
@pytest.mark.parametrize(
    ("samples", "repeats", "accuracy", "icc"),
    [(198, 4, 0.98, 0.0), (460, 4, 0.975, 0.1), (600, 16, 0.9, 0.6), (30, 4, 0.02, 0.3)],
)
def test_intervals_cover_as_often_as_they_say(samples, repeats, accuracy, icc) -> None:
    for covered in coverage(samples, repeats, accuracy, icc, rounds=300):
        assert covered >= 0.95 - 3.5 * (0.05 * 0.95 / 300) ** 0.5
