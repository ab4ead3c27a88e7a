from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4eval.errors import NotReadyError
from g4eval.gating.arm import Arm, TryRecord, build_task
from g4eval.gating.policy import GatePolicy
from g4eval.gating.verdict import GateVerdict, check_before_generation, judge
from g4eval.records import Outcome
from g4eval.stats.drift import SequenceDrift, summarise_drift
from tests.unit.gating.arms import arm, arm_task, drawn, pair


def changed(candidate: Arm, **values) -> Arm:
    """The candidate with other arrays in its only task."""
    return replace(candidate, tasks={"demo": replace(candidate.tasks["demo"], **values)})


def drift_of(kl: float):
    ones = np.full(50, kl)
    sequence = SequenceDrift(
        task_id="demo",
        positions=np.arange(50),
        base_logprobs=-ones,
        candidate_logprobs=-2 * ones,
        kl=ones,
        agree=np.ones(50, np.bool_),
    )
    return summarise_drift([sequence, sequence])


def test_an_equal_candidate_passes():
    found = judge(*pair(0.8, 0.8), GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.PASS
    assert "a loss of 8 or more is excluded" in found.reasons[0]


def test_a_worse_candidate_fails_and_the_reason_tells_the_size():
    found = judge(*pair(0.8, 0.4), GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.FAIL
    assert "larger than the margin of 8" in found.reasons[0]
    less = judge(*pair(0.8, 0.6), GatePolicy(margin_pt=8))
    assert less.verdict is GateVerdict.FAIL
    # The first of eight looks knows the loss to 12 points, and says what that leaves.
    assert less.reasons[0] == (
        "macro: -17.00 points: a real loss, of 4.95 or more as this look's boundary tells, perhaps "
        "smaller than the margin of 8"
    )


def test_few_samples_are_inconclusive_and_alpha_is_spent():
    base = arm({"demo": drawn(0.8, n=20)})
    candidate = arm({"demo": drawn(0.8, n=20, seed=5)}, seed=1)
    found = judge(base, candidate, GatePolicy())
    assert found.verdict is GateVerdict.INCONCLUSIVE
    assert "alpha is spent" in found.reasons[0]
    assert not found.can_continue


def test_an_anytime_decision_can_continue():
    base = arm({"demo": drawn(0.8, n=20)})
    candidate = arm({"demo": drawn(0.8, n=20, seed=5)}, seed=1)
    found = judge(base, candidate, GatePolicy(design="anytime"))
    assert found.can_continue


def test_a_plan_that_is_not_complete_leaves_the_decision_open():
    base, candidate = pair(0.8, 0.8)
    found = judge(base, candidate, GatePolicy(repeats={"demo": 8}))
    assert found.verdict is GateVerdict.INCONCLUSIVE
    assert "after 4 of 8 rounds" in found.reasons[0]
    assert found.can_continue


def test_arms_of_one_seed_are_warned_of_and_refused_anytime():
    base, candidate = pair(0.8, 0.8)
    twin = replace(candidate, seed=0)
    found = judge(base, twin, GatePolicy(margin_pt=8))
    assert found.layers[0].says == "advisory"
    assert "run seed: baseline 0, candidate 0" in found.layers[0].findings[0]
    refused = judge(base, twin, GatePolicy(margin_pt=8, design="anytime"))
    assert refused.verdict is GateVerdict.INVALID


def test_different_tasks_are_invalid():
    base, candidate = pair(0.8, 0.8)
    found = judge(arm({"other": ["CC"]}), candidate, GatePolicy())
    assert found.verdict is GateVerdict.INVALID
    assert found.reasons == ("tasks: baseline ['other'], candidate ['demo']",)
    assert check_before_generation(base, candidate, GatePolicy()) is None


def test_a_primary_that_is_no_task_is_invalid():
    found = judge(*pair(0.8, 0.8), GatePolicy(primary="bbeh"))
    assert found.verdict is GateVerdict.INVALID


def test_more_ungraded_tries_in_one_arm_are_invalid_with_both_shares():
    base, candidate = pair(0.8, 0.8)
    outcomes = candidate.tasks["demo"].outcomes.copy()
    outcomes[:30, 0] = 3
    found = judge(base, changed(candidate, outcomes=outcomes), GatePolicy())
    assert found.verdict is GateVerdict.INVALID
    assert found.reasons == (
        "ungraded: baseline 0.00%, candidate 2.50%; the shares may differ by 0.50%",
    )


def test_many_ungraded_tries_in_both_arms_are_not_ready():
    rows = ["U" + row[1:] if i < 9 else row for i, row in enumerate(drawn(0.8))]
    with pytest.raises(NotReadyError, match=r"0\.75% of the tries are ungraded"):
        judge(arm({"demo": rows}), arm({"demo": rows}, seed=1), GatePolicy())


def test_a_single_ungraded_try_is_left_out():
    base, candidate = pair(0.8, 0.8)
    outcomes = candidate.tasks["demo"].outcomes.copy()
    outcomes[0, 0] = 3
    found = judge(base, changed(candidate, outcomes=outcomes), GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.PASS


def test_a_candidate_without_a_single_answer_is_a_broken_setup():
    base, _ = pair(0.8, 0.8)
    mute = arm({"demo": ["NNNN"] * 300}, seed=1)
    found = judge(base, mute, GatePolicy())
    assert found.verdict is GateVerdict.INVALID
    assert "demo.answers: baseline 100%, candidate 0%" in found.reasons[0]


def test_a_candidate_whose_thoughts_never_close_is_a_broken_setup():
    base, candidate = pair(0.8, 0.8)
    found = judge(base, changed(candidate, open_thoughts=np.ones((300, 4), bool)), GatePolicy())
    assert found.verdict is GateVerdict.INVALID


def test_catastrophic_drift_fails_whatever_the_accuracy():
    found = judge(*pair(0.8, 0.8), GatePolicy(margin_pt=8), drift=drift_of(0.6))
    assert found.verdict is GateVerdict.FAIL
    assert found.reasons == ("mean KL 0.6 nats a token is above 0.5",)
    assert not found.looks


def test_low_drift_never_passes_by_itself():
    base = arm({"demo": drawn(0.8, n=20)})
    candidate = arm({"demo": drawn(0.8, n=20, seed=5)}, seed=1)
    found = judge(base, candidate, GatePolicy(), drift=drift_of(0.0), drift_floor=0.1)
    assert found.verdict is GateVerdict.INCONCLUSIVE
    assert found.layers[2].says == "ok"


def test_unusual_drift_doubles_the_plan_and_an_early_look_may_still_decide():
    arms = pair(0.8, 0.8)
    odd = {"drift": drift_of(0.01), "drift_floor": 0.001}
    calm = judge(*arms, GatePolicy(margin_pt=3))
    found = judge(*arms, GatePolicy(margin_pt=3), **odd)
    assert found.layers[2].says == "escalate"
    assert calm.pairing is not None
    assert found.pairing is not None
    assert calm.pairing.plan.rounds[-1].repeats == {"demo": (3.5, 4)}
    assert [r.repeats["demo"] for r in found.pairing.plan.rounds] == [(i, i + 1) for i in range(8)]
    # What the small plan passes at its end is half of the large one, and not enough there.
    assert calm.verdict is GateVerdict.PASS
    assert found.verdict is GateVerdict.INCONCLUSIVE
    assert found.can_continue
    assert judge(*arms, GatePolicy(margin_pt=20), **odd).verdict is GateVerdict.PASS


def test_escalation_without_a_look_left_names_what_to_run():
    with pytest.raises(NotReadyError) as refused:
        judge(*pair(0.8, 0.8), GatePolicy(design="fixed"), drift=drift_of(0.01), drift_floor=0.001)
    assert refused.value.hint == (
        "finish both runs: g4eval run --from RUNS/base/manifest.json --runs-dir RUNS "
        "--run-id base --set demo.repeats=8; g4eval run --from RUNS/candidate/manifest.json "
        "--runs-dir RUNS --run-id candidate --set demo.repeats=8"
    )


def test_a_surge_of_truncated_answers_fails_at_equal_accuracy():
    base, candidate = pair(0.8, 0.8)
    truncated = np.zeros((300, 4), bool)
    truncated[::5] = True
    found = judge(base, changed(candidate, truncated=truncated), GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.FAIL
    assert found.reasons[0].startswith("truncated: the share rose by +18.7%")


@pytest.mark.parametrize("signal", ["looping", "other_script"])
def test_loops_and_other_scripts_warn_where_a_rise_is_sure_and_fail_where_it_is_large(signal: str):
    base, candidate = pair(0.8, 0.8)
    few = np.zeros((300, 4), bool)
    few[:5] = True  # 1.7 points more: surely some, and not surely over 1
    policy = GatePolicy(margin_pt=8, design="fixed")
    name = signal.replace("_", " ")
    found = judge(base, changed(candidate, **{signal: few}), policy)
    assert found.verdict is GateVerdict.PASS
    assert found.layers[3].findings == (f"{name}: the share surely rose, by +1.7%",)
    many = np.zeros((300, 4), bool)
    many[:, 0] = True
    found = judge(base, changed(candidate, **{signal: many}), policy)
    assert found.verdict is GateVerdict.FAIL
    assert found.reasons[0] == f"{name}: the share rose by +25.0%, surely more than 1 points"


def test_equal_shares_of_loops_are_no_finding():
    base, candidate = pair(0.8, 0.8)
    rng = np.random.default_rng(0)
    left, right = (changed(arm, looping=rng.random((300, 4)) < 0.1) for arm in (base, candidate))
    found = judge(left, right, GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.PASS
    assert found.layers[3].findings == ()
    shares = found.layers[3].details["looping"]
    assert shares["baseline"] == pytest.approx(0.1, abs=0.03)
    assert shares["increase"] == pytest.approx(shares["candidate"] - shares["baseline"])


def test_longer_answers_fail_and_a_little_longer_ones_warn():
    base, candidate = pair(0.8, 0.8)
    longer = changed(candidate, tokens=np.full((300, 4), 120.0))
    found = judge(base, longer, GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.FAIL
    assert found.reasons == ("length: +20.0 %, surely beyond 10 %",)
    little = changed(candidate, tokens=np.full((300, 4), 107.0))
    found = judge(base, little, GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.PASS
    assert found.layers[3].findings == ("length: +7.0 %",)


def test_unknown_lengths_are_no_finding():
    base, candidate = pair(0.8, 0.8)
    found = judge(
        base, changed(candidate, tokens=np.full((300, 4), np.nan)), GatePolicy(margin_pt=8)
    )
    assert found.verdict is GateVerdict.PASS


def test_nothing_complete_is_not_ready():
    with pytest.raises(NotReadyError, match="no repeat is complete"):
        judge(arm({"demo": ["C.", ".C"]}), arm({"demo": ["CC", "CC"]}, seed=1), GatePolicy())


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_results_in_any_order_give_the_same_verdict(random):
    base, candidate = pair(0.8, 0.7)
    rows = [
        TryRecord(
            sample_id=sample_id,
            repeat=repeat,
            outcome=[Outcome.INCORRECT, Outcome.CORRECT][
                int(candidate.tasks["demo"].outcomes[i, repeat])
            ],
            tokens=100,
            prompt_hash="hash",
        )
        for i, sample_id in enumerate(candidate.tasks["demo"].sample_ids)
        for repeat in range(4)
    ]
    random.shuffle(rows)
    task = build_task(
        candidate.tasks["demo"].protocol,
        dict.fromkeys(candidate.tasks["demo"].sample_ids, ""),
        rows,
    )
    shuffled = replace(candidate, tasks={"demo": task})
    first, second = (judge(base, c, GatePolicy()) for c in (candidate, shuffled))
    assert first.verdict is second.verdict
    assert first.reasons == second.reasons


def test_repeats_beyond_the_plan_are_not_looked_at():
    base, candidate = pair(0.8, 0.8)
    first = judge(base, candidate, GatePolicy(margin_pt=8, repeats={"demo": 2}))
    worse = candidate.tasks["demo"].outcomes.copy()
    worse[:, 2:] = 0
    second = judge(
        base, changed(candidate, outcomes=worse), GatePolicy(margin_pt=8, repeats={"demo": 2})
    )
    assert [float(a.primary.delta) for a in first.looks] == [
        float(b.primary.delta) for b in second.looks
    ]


def test_arms_must_be_independent_of_the_order_of_tasks():
    base = arm({"b": drawn(0.8, seed=1), "a": drawn(0.8, seed=2)})
    candidate = arm({"a": drawn(0.7, seed=3), "b": drawn(0.8, seed=4)}, seed=1)
    assert judge(base, candidate, GatePolicy()).tasks == ("a", "b")


def test_task_helper_reads_letters():
    assert arm_task(["CIN"]).outcomes.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(
    ("n", "groups", "rules", "told"),
    [
        (30, 0, {}, "30 questions are too few"),
        (120, 12, {}, "12 subtasks are too few"),
        (120, 0, {"design": "anytime"}, "these samples only"),
    ],
)
def test_samples_like_these_are_refused_where_no_rate_holds_with_what_to_do(n, groups, rules, told):
    arms = [
        arm({"demo": arm_task(drawn(0.8, n=n, seed=s), groups=group_names(n, groups))}, seed=s)
        for s in (0, 1)
    ]
    policy = GatePolicy.model_validate({"estimand": "super", **rules})
    found = judge(arms[0], replace(arms[1], run_id="candidate"), policy)
    assert found.verdict is GateVerdict.INVALID
    assert told in found.reasons[0]
    assert "gate.yaml" in found.reasons[0]


def group_names(n: int, groups: int) -> tuple[str, ...]:
    return tuple(f"g{i % groups}" if groups else "" for i in range(n))
