"""The harmonic mean over tasks: worked values, and its bootstrap."""

import pytest

from g4eval.stats.harmonic import adjusted_harmonic_mean, group_means, harmonic_delta_se

ACCURACIES = [0.92, 0.88, 0.35, 0.60, 0.75, 0.81, 0.20, 0.66]
SIZES = [200] * 7 + [120]


def _scores(accuracy, n):
    """Return n scores whose mean is exactly `accuracy`: ones, one fraction, zeros."""
    whole = int(accuracy * n + 1e-9)
    rest = round(accuracy * n - whole, 9)
    return [1.0] * whole + ([rest] if rest else []) + [0.0] * (n - whole - bool(rest))


def _example():
    return {
        f"task{number}": _scores(accuracy, n)
        for number, (accuracy, n) in enumerate(zip(ACCURACIES, SIZES, strict=True))
    }


def test_the_mean_is_that_of_the_percentages_with_one_added():
    assert adjusted_harmonic_mean(ACCURACIES) == pytest.approx(0.5192873005, abs=1e-10)
    # Two tasks at 0 and 49 percent: 2 / (1/1 + 1/50) = 100/51 percent.
    assert adjusted_harmonic_mean([0.0, 0.49]) == pytest.approx(1 / 51, abs=1e-12)


def test_a_task_without_a_right_answer_pulls_the_mean_down_but_not_to_zero():
    assert 0 < adjusted_harmonic_mean([0.0, 1.0, 1.0]) < 0.04


def test_equal_tasks_have_their_own_accuracy_plus_one_as_mean():
    assert adjusted_harmonic_mean([0.4] * 5) == pytest.approx(0.41)


def test_the_delta_method_gives_the_worked_standard_error():
    variances = [a * (1 - a) / n for a, n in zip(ACCURACIES, SIZES, strict=True)]
    assert harmonic_delta_se(ACCURACIES, variances) == pytest.approx(0.0239029841, abs=1e-9)


def test_micro_and_macro_differ_where_a_group_is_smaller():
    means = group_means(_example(), resamples=100)
    assert means.micro == pytest.approx(0.6455263158, abs=1e-9)
    assert means.macro == pytest.approx(0.64625, abs=1e-9)
    assert means.macro_se == pytest.approx(0.0109047725, rel=4e-3)  # the oracle divides by n
    assert (means.n_groups, means.n_samples) == (8, 1520)


def test_the_bootstrap_gives_the_known_error_and_bias():
    means = group_means(_example(), resamples=200_000)
    assert means.harmonic == pytest.approx(0.5192873005, abs=1e-9)
    assert means.harmonic_se == pytest.approx(0.02438, abs=1e-4)
    # -0.0033 +- 0.0001, and three times the error of this many draws.
    assert means.harmonic_bias == pytest.approx(-0.0033, abs=1e-4 + 3 * 0.02438 / 200_000**0.5)
    # The 95 % of a normal distribution about the biased mean, give or take a little skewness.
    assert means.harmonic_interval.low == pytest.approx(0.5161 - 1.96 * 0.02438, abs=0.005)
    assert means.harmonic_interval.high == pytest.approx(0.5161 + 1.96 * 0.02438, abs=0.005)


def test_the_bootstrap_is_the_same_for_the_same_seed_and_any_order_of_groups():
    example = _example()
    turned = dict(reversed(example.items()))
    assert group_means(example, resamples=500) == group_means(turned, resamples=500)
    assert group_means(example, resamples=500) != group_means(example, seed=1, resamples=500)


def test_groups_without_spread_have_no_error():
    means = group_means({"a": [1.0, 1.0], "b": [0.5, 0.5]})
    assert (means.harmonic_se, means.macro_se) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="needs a sample"):
        group_means({"a": [1.0], "b": []})
