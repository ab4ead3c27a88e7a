import pytest

from benchmarks.gate_sim.doors import rates_of
from benchmarks.gate_sim.truths import TaskTruth
from g4eval.gating.plan import Workload, assumed_tasks, known_tasks, plan_json
from g4eval.gating.policy import GatePolicy
from g4eval.stats.power import PlannedTask
from tests.unit.gating.arms import arm


def test_named_plans_prove_what_the_planning_table_says():
    found = plan_json(
        assumed_tasks(0.65), GatePolicy(), Workload(mean_tokens={}, tokens_per_second=None)
    )
    nightly = found["plans"]["nightly"]
    assert nightly["pairs"] == 5784
    assert nightly["margin_pt_at_power"] == pytest.approx({"80%": 1.0, "90%": 1.2}, abs=0.05)
    assert nightly["task_margin_pt"]["aime"] == pytest.approx(2.1, abs=0.05)
    assert nightly["tokens_an_arm"] is None


def test_a_margin_sets_the_repeats_that_prove_it():
    policy = GatePolicy(margin_pt=1.0, design="fixed")
    found = plan_json(assumed_tasks(0.65), policy, Workload(mean_tokens={}, tokens_per_second=None))
    row = found["needed_at_power"]["80%"]
    assert row["margin_pt_at_power"]["80%"] <= 1.0
    assert row["repeats"]["aime"] == 17  # 16 give 1.04 points; the others are rounded up


def test_what_is_priced_in_brings_the_anchors_together():
    workload = Workload(mean_tokens={}, tokens_per_second=None)
    near = plan_json(assumed_tasks(0.5), GatePolicy(margin_pt=3, ok_pt=-1), workload)
    far = plan_json(assumed_tasks(0.5), GatePolicy(margin_pt=2), workload)
    assert near["needed_at_power"] == far["needed_at_power"]


@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
@pytest.mark.parametrize("primary", ["macro", "aime"])
def test_a_planned_power_is_what_the_gate_reaches(design, primary):
    policy = GatePolicy(design=design, primary=primary, margin_pt=4, guardrail_alpha=0)
    tasks = {
        "aime": PlannedTask(n_samples=60, accuracy=0.85, repeats=3, rho=0.5),
        "other": PlannedTask(n_samples=100, accuracy=0.7, repeats=5, rho=0.5),
    }
    row = plan_json(tasks, policy, Workload(mean_tokens={}, tokens_per_second=None))[
        "needed_at_power"
    ]["80%"]
    k = row["repeats"]
    truths = {
        name: TaskTruth(n=t.n_samples, accuracy=t.accuracy, base_repeats=k[name], repeats=k[name])
        for name, t in tasks.items()
    }
    found = rates_of(truths, policy, count=1000, seed=4)
    assert 100 * found.passed == pytest.approx(row["power_pct"], abs=3 + 3 * 1.3)
    assert row["power_pct"] >= 80


def test_tokens_and_hours_follow_from_lengths_and_rate():
    tasks = known_tasks(arm({"demo": ["CI", "CC"]}), 0.5)
    workload = Workload(mean_tokens={"demo": 1800.0}, tokens_per_second=2.0)
    row = plan_json(tasks, GatePolicy(repeats={"demo": 3}), workload)["plans"]["pr"]
    assert row["pairs"] == 6
    assert row["tokens_an_arm"] == 10_800
    assert row["hours_an_arm"] == 1.5
    assert tasks["demo"].accuracy == 0.75


def test_an_unknown_length_leaves_tokens_unknown():
    tasks = known_tasks(arm({"demo": ["CI"]}), None)
    assert tasks["demo"].rho == 0.5
    row = plan_json(
        tasks, GatePolicy(), Workload(mean_tokens={"demo": None}, tokens_per_second=5.0)
    )["plans"]["pr"]
    assert row["tokens_an_arm"] is None
    assert row["hours_an_arm"] is None
