import numpy as np
import pytest

from g4eval.records import Interval
from g4eval.stats.intervals import clopper_pearson, hierarchical, jeffreys, wilson, wilson_lower


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


def coverage(samples: int, repeats: int, accuracy: float, icc: float, rounds: int) -> float:
    """Share of simulated runs whose interval holds the true mean of their own samples."""
    generator = np.random.default_rng(7)
    total = 1 / icc - 1
    hits = 0
    for _ in range(rounds):
        p = generator.beta(accuracy * total, (1 - accuracy) * total, size=samples)
        correct = generator.binomial(repeats, p)
        interval = hierarchical(correct, np.full(samples, repeats))
        hits += interval.low <= p.mean() <= interval.high
    return hits / rounds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "repeats", "accuracy", "least", "most"),
    [(30, 4, 0.97, 0.92, 0.99), (30, 4, 0.89, 0.92, 0.98), (198, 4, 0.84, 0.93, 0.97)],
)
def test_hierarchical_interval_covers_the_mean_as_often_as_it_says(
    samples, repeats, accuracy, least, most
) -> None:
    assert least <= coverage(samples, repeats, accuracy, 0.5, rounds=600) <= most
