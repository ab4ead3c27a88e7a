import pytest

from g4eval.gating.compare import compare_arms
from tests.unit.gating.arms import arm, arm_task


def test_flips_and_both_estimands_of_a_small_comparison():
    base = arm({"demo": ["CCCC", "CCIC", "IIII"]})
    candidate = arm({"demo": ["CCCI", "CIIC", "IIII"]}, seed=1, run_id="candidate")
    found = compare_arms(base, candidate, ["demo"])
    task = found["tasks"]["demo"]
    assert (task["gains"], task["losses"], task["n_pairs"]) == (0, 2, 12)
    assert task["delta_pt"] == pytest.approx(100 * (-0.25 - 0.25 + 0) / 3)
    assert found["macro"]["delta_pt"] == task["delta_pt"]
    # Within-sample variances: baseline 0 and .25, candidate .25 and .3333, over three samples.
    assert task["expected_discordance_pct"] == pytest.approx(100 * (0.25 + 0.25 + 1 / 3) / 3)
    assert task["sign_flip_p_loss"] == 0.25  # 1 of the 4 sign patterns of two samples
    assert [s["sample_id"] for s in task["samples"]] == ["s0000", "s0001"]
    assert task["samples"][0]["right"] == [4, 3]


def test_swapping_the_arms_negates_every_difference():
    base, candidate = arm({"demo": ["CCCC", "CCIC"]}), arm({"demo": ["CCCI", "IIIC"]}, seed=1)
    there = compare_arms(base, candidate, ["demo"])
    back = compare_arms(candidate, base, ["demo"])
    assert there["macro"]["delta_pt"] == -back["macro"]["delta_pt"]
    assert there["macro"]["se_fixed_pt"] == back["macro"]["se_fixed_pt"]


def test_one_repeat_adds_the_tests_for_two_by_two_tables():
    base = arm({"demo": ["C"] * 12 + ["I"] * 4 + ["C"] * 20})
    candidate = arm({"demo": ["I"] * 12 + ["C"] * 4 + ["C"] * 20}, seed=1)
    task = compare_arms(base, candidate, ["demo"])["tasks"]["demo"]
    assert task["mcnemar"]["exact"] == pytest.approx(0.076813, abs=1e-6)
    assert task["tango_pt"][0] < task["delta_pt"] < task["tango_pt"][1]


def test_samples_that_one_arm_lacks_are_left_out_and_told():
    base, candidate = arm({"demo": ["C", "I", "C"]}), arm({"demo": ["C", "C"]}, seed=1)
    found = compare_arms(base, candidate, ["demo"])
    assert found["tasks"]["demo"]["n_samples"] == 2
    assert found["differences"][-1].startswith("demo.samples (1 in one arm only")


def test_subtasks_get_adjusted_p_values():
    groups = ("easy",) * 4 + ("hard",) * 8
    base = arm({"demo": arm_task(["C"] * 12, groups=groups)})
    candidate = arm({"demo": arm_task(["C"] * 4 + ["I"] * 8, groups=groups)}, seed=1)
    found = compare_arms(base, candidate, ["demo"])["tasks"]["demo"]["subtasks"]
    assert found["hard"] == {"delta_pt": -100.0, "n_samples": 8, "p_loss_holm": 2 / 256}
    assert found["easy"]["p_loss_holm"] == 1.0


def test_facts_that_differ_are_told():
    base = arm({"demo": ["CC"]})
    found = compare_arms(base, arm({"demo": ["CC"]}, seed=1, quantization="fp8"), ["demo"])
    assert found["differences"] == ["quantization: baseline 'none', candidate 'fp8'"]
