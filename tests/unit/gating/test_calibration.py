import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from g4eval.errors import NotComparableError, NotReadyError, StoreError
from g4eval.gating.arm import CORRECT, INCORRECT, Arm
from g4eval.gating.calibration import GraderNoise, calibrate, check_armed, save_calibration
from g4eval.gating.load import read_calibration
from g4eval.gating.policy import GatePolicy
from tests.unit.gating.arms import arm, arm_task

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = GatePolicy(margin_pt=5)


def beta_arm(seed: int, *, draw: int, n: int = 200, k: int = 8, shift: float = 0.0) -> Arm:
    """An arm whose samples have difficulties of their own, the same ones for each `seed`."""
    rates = np.random.default_rng(99).beta(1.6, 0.4, (n, 1)) - shift
    right = np.random.default_rng(draw).random((n, k)) < rates
    return arm(
        {"demo": arm_task(["".join("IC"[int(c)] for c in row) for row in right])},
        seed=seed,
        run_id=f"run{seed}",
    )


def failed(found) -> list[str]:
    return [check.name for check in found.checks if not check.is_met]


def test_an_honest_pair_arms_the_gate_and_measures_the_correlation():
    found = calibrate(
        beta_arm(0, draw=1), beta_arm(1, draw=2), beta_arm(2, draw=3, shift=0.6), POLICY, now=NOW
    )
    assert failed(found) == []
    assert found.is_armed
    # Beta(1.6, 0.4): correlation 1 / (1.6 + 0.4 + 1)
    assert found.tasks["demo"].rho == pytest.approx(1 / 3, abs=0.06)
    assert found.tasks["demo"].accuracy == pytest.approx(0.8, abs=0.03)


def test_a_second_run_that_copies_the_first_is_no_independent_draw():
    base = beta_arm(0, draw=1)
    found = calibrate(base, replace(base, seed=1), None, POLICY, now=NOW)
    assert failed(found) == ["demo: flips are those of sampling"]


def test_a_hidden_state_between_the_runs_shows_in_the_flips():
    # Equal in the mean, but every sample is all right or all wrong by turns.
    base = arm({"demo": ["CCCCCCCC"] * 100 + ["IIIIIIII"] * 100})
    again = arm({"demo": ["IIIIIIII"] * 100 + ["CCCCCCCC"] * 100}, seed=1)
    found = calibrate(base, again, None, POLICY, now=NOW)
    assert "demo: flips are those of sampling" in failed(found)


def test_a_worse_second_run_does_not_arm():
    found = calibrate(beta_arm(0, draw=1), beta_arm(1, draw=2, shift=0.2), None, POLICY, now=NOW)
    assert "the baseline does not fail against itself" in failed(found)
    assert "the macro difference is within 3 standard errors" in failed(found)


def test_equal_seeds_do_not_arm():
    found = calibrate(beta_arm(0, draw=1), beta_arm(0, draw=2), None, POLICY, now=NOW)
    assert "the two runs draw independently" in failed(found)


def test_a_control_that_is_not_damaged_does_not_arm():
    found = calibrate(
        beta_arm(0, draw=1), beta_arm(1, draw=2), beta_arm(2, draw=3), POLICY, now=NOW
    )
    assert failed(found) == ["the positive control fails"]


def test_repeats_that_depend_on_their_index_fail_the_half_splits():
    # Later repeats of each sample are worse: halves still agree, as they are drawn at random.
    outcomes = np.full((200, 8), CORRECT, np.int8)
    outcomes[:, 4:] = INCORRECT
    task = arm_task(["C" * 8] * 200, outcomes=outcomes)
    base = arm({"demo": task})
    found = calibrate(base, replace(base, seed=1), None, POLICY, now=NOW)
    assert "half-splits of the baseline pass" not in failed(found)


def test_one_repeat_can_be_calibrated_without_the_parts_that_need_two():
    found = calibrate(beta_arm(0, draw=1, k=1), beta_arm(1, draw=2, k=1), None, POLICY, now=NOW)
    assert found.is_armed


def test_a_stored_calibration_arms_its_baseline(tmp_path: Path):
    base = beta_arm(0, draw=1)
    found = calibrate(base, beta_arm(1, draw=2), None, POLICY, now=NOW)
    save_calibration(tmp_path, found)
    check_armed(replace(base, calibration=read_calibration(tmp_path)), uncalibrated=False)


def test_a_baseline_without_calibration_is_refused_unless_asked_for():
    base = beta_arm(0, draw=1)
    with pytest.raises(NotReadyError, match="no A/A calibration"):
        check_armed(base, uncalibrated=False)
    check_armed(base, uncalibrated=True)


def test_a_calibration_that_missed_something_is_refused_with_what_it_missed():
    base = beta_arm(0, draw=1)
    missed = calibrate(base, beta_arm(0, draw=2), None, POLICY, now=NOW)
    with pytest.raises(NotComparableError, match="not the two runs draw independently"):
        check_armed(replace(base, calibration=missed), uncalibrated=False)


def test_graders_that_could_not_be_asked_again_are_told_of_and_do_not_disarm():
    arms = (beta_arm(0, draw=1), beta_arm(1, draw=2), None)
    absent = GraderNoise(n_graded=0, changed=(), not_run="no data")
    found = calibrate(*arms, POLICY, now=NOW, noise=absent)
    assert found.checks[-1].found == "not run: no data"
    assert found.is_armed
    noisy = GraderNoise(n_graded=9, changed=("demo s0001/0 correct then incorrect",))
    assert failed(calibrate(*arms, POLICY, now=NOW, noise=noisy)) == ["graders repeat their grades"]


def stored(folder: Path, **changes: object) -> Arm:
    """A baseline whose calibration was edited after it was stored."""
    base = beta_arm(0, draw=1)
    path = save_calibration(folder, calibrate(base, beta_arm(1, draw=2), None, POLICY, now=NOW))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return base


@pytest.mark.parametrize(
    "changes",
    [
        {"is_armed": False},
        {"checks": [{"name": "x", "is_met": True, "found": "y"}]},
        {"drift_floor_kl": 9.0},
        {"created": "2020-01-01T00:00:00+00:00"},
        {"data": None, "repeats": None},
    ],
)
def test_an_edited_calibration_is_refused(tmp_path: Path, changes: dict[str, object]):
    stored(tmp_path, **changes)
    with pytest.raises(StoreError, match="its hash is another"):
        read_calibration(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"checks": "all"}, {"created": "yesterday"}, {"tasks": {"demo": 3}}, {"id": None}]
)
def test_a_calibration_with_a_field_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, object]
):
    stored(tmp_path, **changes)
    with pytest.raises(StoreError, match=next(iter(changes))):
        read_calibration(tmp_path)


def test_a_calibration_of_outcomes_that_have_changed_arms_nothing(tmp_path: Path):
    base = stored(tmp_path)
    found = read_calibration(tmp_path)
    outcomes = base.tasks["demo"].outcomes.copy()
    outcomes[0, 0] = 1 - outcomes[0, 0]
    task = replace(base.tasks["demo"], outcomes=outcomes)
    with pytest.raises(NotComparableError, match="made from other outcomes"):
        check_armed(replace(base, tasks={"demo": task}, calibration=found), uncalibrated=False)
    cut = {"demo": base.tasks["demo"].until(1)}
    with pytest.raises(NotComparableError, match="made from other outcomes"):
        check_armed(replace(base, tasks=cut, calibration=found), uncalibrated=False)
    facts = {**base.facts, "dtype": "float16"}
    with pytest.raises(NotComparableError, match="made from other engine facts"):
        check_armed(replace(base, facts=facts, calibration=found), uncalibrated=False)
