import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from g4eval.stats.sequential import (
    RoundCounts,
    boundaries,
    confidence_sequence,
    log_e_fail,
    log_e_pass,
    log_wealth,
    round_weights,
    spent_alpha,
)

STEPS = [0, 0, -1, 0, 1, 0, 0, 0, 1, 0]


def counts(steps, n_planned=None) -> RoundCounts:
    return RoundCounts(
        gains=np.asarray(float(steps.count(1))),
        losses=np.asarray(float(steps.count(-1))),
        ties=np.asarray(float(steps.count(0))),
        n_planned=n_planned or len(steps),
    )


def wealth(steps, shift, bet):
    return float(np.exp(log_wealth([[counts(steps)]], shift, np.array([bet])))[..., 0])


@pytest.mark.parametrize(
    ("alpha", "looks", "z"),
    [
        (0.05, 3, [3.2001, 2.1409, 1.6951]),
        (0.05, 4, [3.7496, 2.5400, 2.0163, 1.7207]),
        (0.05, 5, [4.2292, 2.8881, 2.2983, 1.9622, 1.7404]),
        (0.025, 5, [4.8769, 3.3570, 2.6804, 2.2901, 2.0316]),
    ],
)
def test_equally_spaced_boundaries_match_a_coarser_integration(alpha, looks, z):
    fractions = [(i + 1) / looks for i in range(looks)]
    assert boundaries(fractions, alpha) == pytest.approx(z, abs=1e-3)


def test_five_equal_looks_at_one_in_forty_match_the_textbook():
    # Jennison and Turnbull 2000, and the gsDesign package: Lan-DeMets, O'Brien-Fleming type.
    fractions = [0.2, 0.4, 0.6, 0.8, 1.0]
    assert boundaries(fractions, 0.025) == pytest.approx(
        [4.8769, 3.3570, 2.6803, 2.2898, 2.0310], abs=6e-5
    )


def test_one_look_is_the_plain_test():
    assert boundaries([1.0], 0.05) == pytest.approx([1.6448536], abs=1e-7)


def test_unequal_looks_reject_with_exactly_alpha_in_simulation():
    fractions = [0.13, 0.2, 0.55, 0.97, 1.0]
    z = np.array(boundaries(fractions, 0.05))
    rng = np.random.default_rng(3)
    steps = rng.standard_normal((400_000, 5)) * np.sqrt(np.diff([0.0, *fractions]))
    crossed = (np.cumsum(steps, axis=1) / np.sqrt(fractions) > z).any(axis=1)
    assert crossed.mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 400_000))


def test_a_look_just_before_the_last_leaves_the_last_at_its_level():
    assert boundaries([0.999, 1.0], 0.05)[-1] > boundaries([1.0], 0.05)[0]


def test_a_very_early_look_can_not_reject():
    assert boundaries([0.001, 1.0], 0.05) == pytest.approx([37.0, 1.6448536], abs=1e-6)


@pytest.mark.parametrize("fractions", [[], [0.5, 0.5], [0.6, 0.4], [0.0, 1.0], [0.5, 1.1]])
def test_fractions_that_do_not_rise_are_refused(fractions):
    with pytest.raises(ValueError, match="rise"):
        boundaries(fractions, 0.05)


def test_spending_ends_at_alpha():
    assert spent_alpha(0.05, 1.0) == 0.05
    assert spent_alpha(0.05, 0.25) == pytest.approx(2 - 2 * 0.999955723, abs=1e-7)


def test_wealth_of_one_bet_matches_the_worked_example_at_every_prefix():
    expected = [
        1.003, 1.006009, 0.90842613, 0.91115141, 1.005,
        1.008015, 1.01103905, 1.01407216, 1.11852159, 1.12187716,
    ]  # fmt: skip
    found = [wealth(STEPS[: i + 1], 0.03, 0.1) for i in range(10)]
    assert found == pytest.approx(expected, abs=1e-8)
    assert wealth(STEPS, 0.03, 0.3) == pytest.approx(1.29349184, abs=1e-8)


def test_mixtures_of_four_bets_match_the_worked_example():
    bets = np.array([0.05, 0.1, 0.2, 0.4])
    rounds = [[counts(STEPS * 5)]]
    up, down = log_wealth(rounds, 0.03, bets), log_wealth(rounds, 0.0, -bets)
    assert np.exp(up) == pytest.approx([1.3580636, 1.77716001, 2.72946552, 4.10602903], abs=1e-7)
    assert np.exp(logsumexp(up)) / 4 == pytest.approx(2.49267954, abs=1e-7)
    assert np.exp(down) == pytest.approx([0.76415692, 0.56155011, 0.26718133, 0.03252016], abs=1e-7)
    assert np.exp(logsumexp(down)) / 4 == pytest.approx(0.40635213, abs=1e-7)


def test_tasks_with_more_pairs_get_smaller_bets():
    rounds = [counts([0] * 10), counts([0] * 40)]
    assert round_weights(rounds) == [1.0, 0.25]


def test_macro_process_tests_the_equal_weight_mean_not_the_pooled_rows():
    # 10 pairs lose 3, 1000 pairs gain 30: the pooled mean is above 0, the equal-weight mean is
    # (-0.3 + 0.03) / 2 = -0.135.
    small = counts([-1] * 3 + [0] * 7)
    large = counts([1] * 30 + [0] * 970)
    assert log_e_fail([[small, large]] * 40, 0.0) > math.log(20)
    assert log_e_pass([[small, large]] * 40, 0.05) < 0


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_a_round_multiplies_wealth_by_at_most_one_on_average_when_the_mean_loss_is_the_margin(
    n_small, n_large, data
):
    # Exact expectation over independent pairs whose task means average to -margin.
    margin = 0.1
    shift = data.draw(st.floats(-0.3, 0.3))
    sizes, means = [n_small, n_large], [-margin - shift, -margin + shift]
    smallest = min(sizes)
    for bet in (0.05, 0.3, 0.6):
        expected = math.prod(
            (1 + bet * smallest / n * (mean + margin)) ** n
            for n, mean in zip(sizes, means, strict=True)
        )
        assert expected <= 1 + 1e-12


tasks = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200)), min_size=1, max_size=4
)


def as_round(rows):
    return [
        RoundCounts(
            gains=np.asarray(float(g)),
            losses=np.asarray(float(b)),
            ties=np.asarray(float(t)),
            n_planned=g + b + t,
        )
        for g, b, t in rows
    ]


@given(st.lists(tasks, min_size=1, max_size=1), st.sampled_from([0.0, 0.01, 0.03]))
def test_pass_and_fail_never_both_gain_at_one_boundary(rounds, margin):
    rounds = [as_round(r) for r in rounds]
    both = [float(log_e_pass(rounds, margin)), float(log_e_fail(rounds, -margin))]
    assert min(both) <= 1e-9


@given(st.permutations(STEPS))
def test_order_inside_a_round_does_not_matter(steps):
    assert wealth(steps, 0.03, 0.1) == pytest.approx(1.12187716, abs=1e-8)


def test_confidence_sequence_holds_the_estimate_and_narrows():
    few = confidence_sequence([[counts(STEPS * 20)]])
    many = confidence_sequence([[counts(STEPS * 20)]] * 20)
    assert few[0] < many[0] < 0.1 < many[1] < few[1]


def test_confidence_sequence_and_e_process_agree():
    rounds = [[counts(STEPS * 200)]]
    low, high = confidence_sequence(rounds)
    assert log_e_pass(rounds, -low) == pytest.approx(math.log(40), abs=1e-6)
    assert log_e_fail(rounds, high) == pytest.approx(math.log(40), abs=1e-6)


def test_one_sided_sample_gives_a_finite_sequence():
    low, high = confidence_sequence([[counts([1] * 50)]])
    assert 0 < low < 1
    assert high == pytest.approx(1.0)
