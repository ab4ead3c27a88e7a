"""The harmonic mean over tasks: worked values, and its interval."""

import numpy as np
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
    means = group_means(_example())
    assert means.micro == pytest.approx(0.6455263158, abs=1e-9)
    assert means.macro == pytest.approx(0.64625, abs=1e-9)
    assert means.macro_se == pytest.approx(0.0109047725, rel=4e-3)  # the oracle divides by n
    assert (means.n_groups, means.n_samples) == (8, 1520)


def test_the_posterior_of_many_samples_gives_the_delta_methods_error():
    means = group_means(_example())
    assert means.harmonic == pytest.approx(0.5192873005, abs=1e-9)
    assert means.harmonic_se == pytest.approx(0.0239, rel=0.05)
    # The groups lean a little towards each other, so the middle lies above the value.
    assert means.harmonic_interval.low == pytest.approx(0.5193 - 1.96 * 0.0239, abs=0.01)
    assert means.harmonic_interval.high == pytest.approx(0.5193 + 1.96 * 0.0239, abs=0.01)


def test_draws_are_the_same_for_the_same_seed_and_any_order_of_groups():
    example = _example()
    turned = dict(reversed(example.items()))
    assert group_means(example) == group_means(turned)
    assert group_means(example) != group_means(example, seed=1)


def test_two_samples_that_agree_still_leave_an_error():
    means = group_means({"a": [1.0, 1.0], "b": [0.5, 0.5]})
    assert means.macro_se == 0.0
    assert means.harmonic_se > 0.1


def test_a_task_without_a_right_answer_may_have_none_ever_or_may_not():
    scores = {f"t{i}": [1.0] * 16 + [0.0] * 4 for i in range(9)} | {"zero": [0.0] * 20}
    interval = group_means(scores).harmonic_interval
    never = adjusted_harmonic_mean([0.8] * 9 + [0.0])
    seldom = adjusted_harmonic_mean([0.8] * 9 + [0.05])
    assert interval.low <= never < seldom <= interval.high


def coverage(accuracies, n, count, seed):
    random, truth = np.random.default_rng(seed), adjusted_harmonic_mean(accuracies)
    hits = 0
    for _ in range(count):
        right = random.binomial(n, accuracies)
        scores = {f"t{i:02}": [1.0] * r + [0.0] * (n - r) for i, r in enumerate(right.tolist())}
        interval = group_means(scores).harmonic_interval
        hits += interval.low <= truth <= interval.high
    return hits / count


@pytest.mark.slow
@pytest.mark.parametrize(
    "accuracies",
    [
        np.linspace(0.42, 0.98, 23),
        np.linspace(0.06, 0.95, 23),
        np.append(np.linspace(0.03, 0.6, 21), [0.0, 0.0]),
        np.append(np.full(21, 0.9), [0.0, 0.0]),
    ],
    ids=["strong", "middling", "weak, two at zero", "strong, two at zero"],
)
def test_the_interval_covers_the_true_mean_of_twenty_samples_a_task(accuracies):
    assert coverage(accuracies, 20, 400, seed=3) >= 0.95 - 3 * (0.05 * 0.95 / 400) ** 0.5


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="needs a sample"):
        group_means({"a": [1.0], "b": []})
