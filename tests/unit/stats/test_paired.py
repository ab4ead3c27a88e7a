import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from g4eval.stats.paired import (
    holm,
    macro_difference,
    mcnemar,
    non_inferiority_p,
    paired_difference,
    sign_flip_p,
    tango_interval,
    tango_z,
    wald_error,
    wald_interval,
)


def scores(text: str) -> np.ndarray:
    """ "11 10" is two samples of two repeats; "." is a try without a grade."""
    return np.array([[math.nan if c == "." else float(c) for c in row] for row in text.split()])


BASE = scores("1111 1101 0000 1001 1111 0100")
CANDIDATE = scores("1110 1001 0000 1000 1111 0110")


def test_difference_of_six_samples_matches_the_worked_example():
    found = paired_difference(BASE, CANDIDATE)
    assert found.delta == pytest.approx(-0.08333333, abs=1e-8)
    assert found.se_super == pytest.approx(0.08333333, abs=1e-8)
    assert found.se_fixed == pytest.approx(0.11785113, abs=1e-8)
    assert found.tau == 0.0
    assert [float(x) for x in (found.losses, found.gains, found.ties)] == [3, 1, 20]


def test_discordance_expected_from_sampling_is_the_sum_of_the_within_variances():
    # within: baseline 5/36 (0.13888889); candidate rows .25 .33 0 .25 0 .33 -> 7/36
    assert paired_difference(BASE, CANDIDATE).expected_discordance == pytest.approx(12 / 36)


def test_tau_is_the_spread_that_sampling_does_not_explain():
    # Changes -1 and +1 without any noise: SD sqrt(2) over two samples.
    found = paired_difference(scores("11 00"), scores("00 11"))
    assert found.se_fixed == 0.0
    assert found.tau == pytest.approx(math.sqrt(2))


def test_one_repeat_gives_no_fixed_error_and_the_super_error_stands_in():
    found = paired_difference(scores("1 1 0 1"), scores("1 0 0 1"))
    assert math.isnan(found.se_fixed)
    assert found.se == found.se_super == pytest.approx(0.25)


def test_one_sample_gives_no_super_error():
    assert math.isnan(paired_difference(scores("10"), scores("11")).se_super)


def test_a_try_without_grade_is_left_out_of_its_arm_and_of_the_pairs():
    found = paired_difference(scores("1. 11"), scores("11 00"))
    assert found.delta == -0.5  # means 1, 1 against 1, 0
    assert found.n_pairs == 3


def test_a_sample_without_any_grade_in_one_arm_is_left_out_of_both():
    found = paired_difference(scores(".. 10 11"), scores("11 10 11"))
    assert found.delta == 0.0
    assert found.se_super == 0.0


def test_leading_axes_are_independent_comparisons():
    both = paired_difference(np.stack([BASE, CANDIDATE]), np.stack([CANDIDATE, BASE]))
    assert both.delta == pytest.approx([-0.08333333, 0.08333333])


def test_macro_weighs_tasks_equally():
    found = macro_difference(
        [np.asarray(-0.04), np.asarray(0.02)], [np.asarray(0.03), np.asarray(0.04)]
    )
    assert found.delta == pytest.approx(-0.01)
    assert found.se == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("losses", "gains", "exact", "mid_p", "one_sided"),
    [
        (12, 4, 0.076813, 0.049042, 0.038406),
        (9, 1, 0.021484, 0.011719, 0.010742),
        (5, 15, 0.041389, 0.026604, 0.994091),
        (0, 0, 1.0, 1.0, 1.0),
    ],
)
def test_mcnemar_matches_the_binomial(losses, gains, exact, mid_p, one_sided):
    found = mcnemar(losses, gains)
    assert (found.exact, found.mid_p, found.one_sided) == pytest.approx(
        (exact, mid_p, one_sided), abs=1e-6
    )


def test_wald_limits_of_the_worked_example():
    assert wald_error(198, 14, 9) == pytest.approx(0.02415480, abs=1e-8)
    found = wald_interval(198, 14, 9)
    assert (found.low, found.high, found.lower) == pytest.approx(
        (-0.072596, 0.022091, -0.064984), abs=1e-6
    )


@pytest.mark.parametrize(("margin", "p"), [(0.03, 0.422092), (0.05, 0.152791), (0.08, 0.011710)])
def test_wald_non_inferiority_of_the_worked_example(margin, p):
    assert non_inferiority_p(-5 / 198, wald_error(198, 14, 9), margin) == pytest.approx(p, abs=1e-6)


def test_tango_score_of_the_worked_example():
    assert tango_z(198, 14, 9, -0.05) == pytest.approx(0.994937, abs=1e-6)
    found = tango_interval(198, 14, 9)
    assert (found.low, found.high, found.lower) == pytest.approx(
        (-0.076468, 0.023763, -0.067480), abs=1e-5
    )


def test_tango_interval_has_width_where_no_pair_is_discordant():
    found = tango_interval(100, 0, 0)
    # Both limits solve n d / (1 + d) = z^2 for the two-sided z: d = z^2 / (n + z^2)
    assert found.high == pytest.approx(1.959964**2 / (100 + 1.959964**2), abs=1e-6)
    assert found.low == pytest.approx(-found.high, abs=1e-9)


def test_sign_flips_of_six_samples_are_counted_exactly():
    changes = np.array([-0.25, -0.25, 0, -0.25, 0, 0.25])
    assert sign_flip_p(changes) == 20 / 64  # 5 of 16 patterns of the four that moved


def test_sign_flips_of_many_samples_agree_with_the_normal_limit():
    changes = np.tile([-1.0, -1.0, -1.0, 1.0, 1.0], 10)  # sum -10, SD sqrt(50)
    exact = mcnemar(30, 20).one_sided
    assert sign_flip_p(changes, seed=7) == pytest.approx(exact, abs=0.004)


def test_holm_matches_the_worked_example():
    assert holm([0.004, 0.03, 0.02, 0.20]) == pytest.approx([0.016, 0.06, 0.06, 0.20])


arms = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        *(
            hnp.arrays(np.float64, (n, 3), elements=st.sampled_from([0.0, 1.0, math.nan]))
            for _ in range(2)
        )
    )
)


@given(arms)
def test_swapping_the_arms_negates_the_difference_and_keeps_its_error(pair):
    there, back = paired_difference(*pair), paired_difference(*reversed(pair))
    np.testing.assert_allclose(there.delta, -back.delta, atol=1e-12)
    np.testing.assert_allclose(there.se_super, back.se_super, atol=1e-12)
    np.testing.assert_allclose(there.se_fixed, back.se_fixed, atol=1e-12)
    np.testing.assert_array_equal(there.gains, back.losses)


full_arms = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        *(hnp.arrays(np.float64, (n, 3), elements=st.sampled_from([0.0, 1.0])) for _ in range(2))
    )
)


@given(full_arms)
def test_every_sample_twice_keeps_the_difference_and_divides_the_fixed_error_by_root_two(pair):
    once = paired_difference(*pair)
    twice = paired_difference(*(np.concatenate([arm, arm]) for arm in pair))
    assert twice.delta == pytest.approx(float(once.delta))
    assert twice.se_fixed * math.sqrt(2) == pytest.approx(float(once.se_fixed))


@given(full_arms, st.integers(1, 5))
def test_samples_right_in_both_arms_scale_the_difference(pair, extra):
    n = len(pair[0])
    padded = [np.concatenate([arm, np.ones((extra, 3))]) for arm in pair]
    assert paired_difference(*padded).delta * (n + extra) / n == pytest.approx(
        float(paired_difference(*pair).delta)
    )
