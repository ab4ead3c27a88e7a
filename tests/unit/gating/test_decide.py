import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4eval.gating.decide import Says, decide, look_at
from g4eval.gating.paired_scores import PairedScores
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import plan_rounds


def task(base: float, candidate: float, n: int = 200, k: int = 8, seed: int = 0) -> PairedScores:
    rng = np.random.default_rng(seed)
    return PairedScores(
        base=(rng.random((n, k)) < base).astype(float),
        candidate=(rng.random((n, k)) < candidate).astype(float),
    )


def decision(scores, **rules):
    policy = GatePolicy(**rules)
    repeats = {t: pair.candidate.shape[-1] for t, pair in scores.items()}
    rounds = plan_rounds(repeats, design=policy.design, looks=policy.looks)
    return decide(scores, rounds, policy)


@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
def test_an_equal_candidate_passes(design):
    looks = decision({"a": task(0.8, 0.8, n=900)}, design=design, margin_pt=5)
    assert looks[-1].says == Says.PASS


@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
def test_a_broken_candidate_fails(design):
    looks = decision({"a": task(0.8, 0.6)}, design=design, margin_pt=5)
    assert looks[-1].says == Says.FAIL


def test_a_clear_case_stops_before_the_plan_is_used_up():
    looks = decision({"a": task(0.9, 0.4)}, margin_pt=5)
    assert len(looks) == 1
    assert looks[0].n_pairs == 200  # an eighth


def test_few_pairs_decide_nothing():
    looks = decision({"a": task(0.8, 0.8, n=30, k=4)}, margin_pt=1.5)
    assert [int(look.says) for look in looks] == [Says.GO_ON] * 4


def test_a_loss_in_one_task_alone_fails_its_guardrail():
    scores = {name: task(0.9, 0.9, seed=i) for i, name in enumerate("abcdefghi")}
    scores["d"] = task(0.9, 0.86, seed=9)
    looks = decision(scores, margin_pt=10, design="fixed")
    assert looks[-1].primary_says == Says.PASS
    assert looks[-1].says == Says.FAIL
    assert looks[-1].bound_guardrail == pytest.approx(3.058804, abs=1e-6)
    without = decision(scores, margin_pt=10, design="fixed", guardrail_alpha=0)
    assert without[-1].says == Says.PASS


def test_guardrails_are_stricter_before_the_last_look():
    scores = {"a": task(0.5, 0.5, n=10), "b": task(0.5, 0.5, n=10, seed=1)}
    bounds = [look.bound_guardrail for look in decision(scores, margin_pt=1, alpha_fail=1e-4)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 4
    assert 2.575829 < bounds[-1] < 2.7  # a little of each task's 0.5 % went to the looks before


@pytest.mark.parametrize("continued", [False, True])
def test_an_open_ended_design_has_one_guardrail_for_every_look(continued):
    scores = {"a": task(0.5, 0.5, n=10), "b": task(0.5, 0.5, n=10, seed=1)}
    rounds = plan_rounds({"a": 8, "b": 8}, design="anytime", looks=8)
    taken = rounds if continued else rounds[:3]
    looks = decide(scores, taken, GatePolicy(design="anytime", margin_pt=1))
    assert [look.bound_guardrail for look in looks] == [pytest.approx(np.log(200))] * len(looks)


def test_one_task_needs_no_guardrail():
    looks = decision({"a": task(0.5, 0.5, n=10)}, margin_pt=1)
    assert looks[-1].bound_guardrail == np.inf


def test_a_tie_everywhere_passes_once_the_margin_can_be_excluded():
    ones = PairedScores(base=np.ones((100, 4)), candidate=np.ones((100, 4)))
    # No pair differs, so the variance is the margin's own: z = sqrt(n m / (1 - m)).
    looks = decision({"a": ones}, margin_pt=1, design="fixed")
    assert looks[-1].statistic_pass == pytest.approx(np.sqrt(400 * 0.01 / 0.99))
    assert looks[-1].says == Says.PASS
    assert decision({"a": ones}, margin_pt=0.5, design="fixed")[-1].says == Says.GO_ON


def test_a_real_loss_inside_the_margin_is_a_failure():
    looks = decision({"a": task(0.80, 0.78, n=20_000, k=2)}, margin_pt=4, design="fixed")
    assert looks[-1].statistic_pass > looks[-1].bound_pass
    assert looks[-1].says == Says.FAIL


def test_a_priced_in_loss_does_not_fail():
    scores = {"a": task(0.80, 0.79, n=20_000, k=2)}
    fails = decision(scores, margin_pt=0.5, design="fixed")
    assert fails[-1].says == Says.FAIL
    fine = decision(scores, margin_pt=3, ok_pt=-2, design="fixed")
    assert fine[-1].says == Says.PASS
    assert fine[-1].statistic_fail < 0


@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
def test_a_gain_is_a_failure_only_where_equivalence_is_asked_for(design):
    scores = {"a": task(0.6, 0.8)}
    assert decision(scores, design=design, margin_pt=5)[-1].says == Says.PASS
    both = decision(scores, design=design, margin_pt=5, equivalence=True)
    assert both[-1].says == Says.FAIL


def test_one_task_can_be_the_primary():
    scores = {"a": task(0.8, 0.8, n=900), "b": task(0.8, 0.7, n=900, seed=1)}
    looks = decision(scores, primary="a", margin_pt=5, guardrail_alpha=0, design="fixed")
    assert looks[-1].says == Says.PASS


def test_a_round_that_is_not_there_is_refused():
    scores = {"a": task(0.8, 0.8, k=4)}
    rounds = plan_rounds({"a": 8}, design="gst", looks=4)
    with pytest.raises(ValueError, match="needs 8 repeats in both arms"):
        look_at(scores, rounds, 3, GatePolicy())


def test_looks_beyond_the_complete_rounds_are_not_taken():
    scores = {"a": task(0.8, 0.8, n=30)}
    rounds = plan_rounds({"a": 8}, design="gst", looks=4)
    looks = decide(scores, rounds, GatePolicy(), n_complete=2)
    # Of 1/8 + 1/8 at the end: 1/8 + 1/2 and 1/8 + 1/4, as all of the baseline counts at once.
    assert [look.fraction for look in looks] == [pytest.approx(0.4), pytest.approx(2 / 3)]


def test_super_population_errors_are_larger():
    scores = {"a": task(0.8, 0.8)}
    fixed = decision(scores, design="fixed")[-1]
    wide = decision(scores, design="fixed", estimand="super")[-1]
    assert wide.primary.delta == fixed.primary.delta
    assert wide.primary.se == pytest.approx(float(fixed.tasks["a"].se_super))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(["gst", "anytime", "fixed"]))
def test_swapping_the_arms_negates_the_difference(seed, design):
    there = task(0.8, 0.7, n=20, k=4, seed=seed)
    back = PairedScores(base=there.candidate, candidate=there.base)
    rules = {"design": design, "baseline_repeats": "paired"}
    first = decision({"a": there}, **rules)[0]
    second = decision({"a": back}, **rules)[0]
    assert float(first.primary.delta) == -float(second.primary.delta)
    assert float(first.primary.se) == pytest.approx(float(second.primary.se))


def test_comparisons_along_a_leading_axis_are_judged_one_by_one():
    good, bad = task(0.8, 0.8, n=900), task(0.8, 0.5, n=900)
    both = {
        "a": PairedScores(
            base=np.stack([good.base, bad.base]),
            candidate=np.stack([good.candidate, bad.candidate]),
        )
    }
    assert decision(both, margin_pt=5, design="fixed")[-1].says.tolist() == [1, 2]
