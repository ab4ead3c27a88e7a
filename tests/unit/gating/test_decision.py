import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from g4eval.errors import StoreError, UsageError
from g4eval.gating.arm import Arm
from g4eval.gating.decision import decide_once
from g4eval.gating.policy import GatePolicy
from g4eval.store.verdicts import Calibration
from tests.unit.gating.arms import arm, drawn, pair

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
POLICY = GatePolicy(margin_pt=8)
CALIBRATION = Calibration.sealed(
    {
        "created": NOW.isoformat(),
        "baseline": "base",
        "again": "again",
        "engine_fingerprint": "f",
        "checks": [{"name": "n", "is_met": True, "found": "f"}],
        "is_armed": True,
    }
)
ANYTIME = GatePolicy(design="anytime", margin_pt=8)


def in_folder(candidate: Arm, folder: Path) -> Arm:
    return replace(candidate, folder=folder)


def cut(whole: Arm, repeats: int) -> Arm:
    """The arm when only its first repeats had been made."""
    return replace(whole, tasks={t: task.until(repeats) for t, task in whole.tasks.items()})


def test_a_verdict_is_stored_and_given_again(tmp_path: Path):
    base, candidate = pair(0.8, 0.8)
    candidate = in_folder(candidate, tmp_path)
    first = decide_once(base, candidate, POLICY, now=NOW)
    assert first.record.verdict == "PASS"
    assert not first.was_stored
    again = decide_once(base, candidate, POLICY, now=LATER)
    assert again.was_stored
    assert again.record.as_json() == json.loads((tmp_path / "verdict.json").read_text())
    assert again.record.decided_at == "2026-01-02T03:04:00+00:00"


def test_another_policy_on_a_decided_pair_is_refused_with_both_values(tmp_path: Path):
    base, candidate = pair(0.8, 0.8)
    candidate = in_folder(candidate, tmp_path)
    decide_once(base, candidate, POLICY, now=NOW)
    with pytest.raises(UsageError, match=r"margin_pt: 8.0 in the decision, 9.0 asked for"):
        decide_once(base, candidate, GatePolicy(margin_pt=9), now=LATER)


def test_outcomes_that_changed_after_the_decision_are_refused(tmp_path: Path):
    base, candidate = pair(0.8, 0.8)
    decide_once(base, in_folder(candidate, tmp_path), POLICY, now=NOW)
    outcomes = candidate.tasks["demo"].outcomes.copy()
    outcomes[0, 0] = 1 - outcomes[0, 0]
    regraded = replace(
        candidate, tasks={"demo": replace(candidate.tasks["demo"], outcomes=outcomes)}
    )
    with pytest.raises(UsageError, match="have changed"):
        decide_once(base, in_folder(regraded, tmp_path), POLICY, now=LATER)


def test_more_repeats_do_not_reopen_a_verdict(tmp_path: Path):
    base, candidate = pair(0.8, 0.8)
    first = decide_once(cut(base, 2), in_folder(cut(candidate, 2), tmp_path), ANYTIME, now=NOW)
    assert first.record.verdict == "PASS"
    again = decide_once(base, in_folder(candidate, tmp_path), ANYTIME, now=LATER)
    assert again.was_stored


def open_pair() -> tuple[Arm, Arm]:
    base = arm({"demo": drawn(0.8, n=200, k=8, seed=1)})
    return base, arm({"demo": drawn(0.8, n=200, k=8, seed=2)}, seed=1, run_id="candidate")


def test_more_repeats_continue_an_open_anytime_decision(tmp_path: Path):
    base, candidate = open_pair()
    first = decide_once(cut(base, 2), in_folder(cut(candidate, 2), tmp_path), ANYTIME, now=NOW)
    assert first.record.verdict == "INCONCLUSIVE"
    same = decide_once(cut(base, 2), in_folder(cut(candidate, 2), tmp_path), ANYTIME, now=LATER)
    assert same.was_stored
    more = decide_once(base, in_folder(candidate, tmp_path), ANYTIME, now=LATER)
    assert more.record.verdict == "PASS"
    assert more.record.first_look_at == first.record.decided_at
    # Its looks are those that a decision with all data from the start would have had.
    at_once = decide_once(base, candidate, ANYTIME, now=NOW)
    assert more.record.looks == at_once.record.looks


def test_more_repeats_complete_the_rounds_of_a_written_plan(tmp_path: Path):
    base, candidate = open_pair()
    policy = GatePolicy(margin_pt=5, repeats={"demo": 8})
    first = decide_once(base, in_folder(cut(candidate, 2), tmp_path), policy, now=NOW)
    assert first.record.can_continue
    assert len(first.record.looks) == 2
    more = decide_once(base, in_folder(candidate, tmp_path), policy, now=LATER)
    assert not more.was_stored
    assert more.record.looks[0] == first.record.looks[0]


def test_more_repeats_do_not_bring_back_alpha_that_is_spent(tmp_path: Path):
    base, candidate = open_pair()
    policy = GatePolicy(margin_pt=3, alpha_fail=0.001)
    first = decide_once(cut(base, 2), in_folder(cut(candidate, 2), tmp_path), policy, now=NOW)
    assert first.record.verdict == "INCONCLUSIVE"
    again = decide_once(base, in_folder(candidate, tmp_path), policy, now=LATER)
    assert again.was_stored


def test_another_baseline_gets_a_file_of_its_own(tmp_path: Path):
    base, candidate = pair(0.8, 0.8)
    candidate = in_folder(candidate, tmp_path)
    decide_once(base, candidate, POLICY, now=NOW)
    other = replace(base, run_id="other")
    found = decide_once(other, candidate, GatePolicy(margin_pt=9), now=NOW)
    assert found.path == tmp_path / "verdict-other.json"
    assert decide_once(base, candidate, POLICY, now=LATER).was_stored
    assert decide_once(other, candidate, GatePolicy(margin_pt=9), now=LATER).was_stored


def test_an_invalid_comparison_decides_nothing(tmp_path: Path):
    base, candidate = pair(0.8, 0.8, chat_template_hash="dd")
    found = decide_once(base, in_folder(candidate, tmp_path), POLICY, now=NOW)
    assert found.record.exit_code == 4
    assert not list(tmp_path.iterdir())


def test_a_look_before_the_last_round_of_a_driven_run_is_not_stored(tmp_path: Path):
    base, candidate = open_pair()
    policy = GatePolicy(margin_pt=3, repeats={"demo": 8})
    half = in_folder(cut(candidate, 2), tmp_path)
    found = decide_once(base, half, policy, now=NOW, is_final=False)
    assert found.record.verdict == "INCONCLUSIVE"
    assert not list(tmp_path.iterdir())


def test_a_candidate_from_a_gate_file_is_judged_and_stored_nowhere():
    found = decide_once(*pair(0.8, 0.8), POLICY, now=NOW)
    assert found.path is None


def test_inconclusive_exits_as_the_policy_says():
    base, candidate = open_pair()
    policies = [
        GatePolicy.model_validate({"margin_pt": 1, "on_inconclusive": rule})
        for rule in ("exit", "fail")
    ]
    codes = [decide_once(base, candidate, p, now=NOW).record.exit_code for p in policies]
    assert codes == [3, 1]


@pytest.mark.parametrize("design", ["gst", "anytime", "fixed"])
def test_a_record_is_plain_json(design: str):
    policy = GatePolicy.model_validate({"design": design})
    found = decide_once(*pair(0.8, 0.6), policy, now=NOW)
    assert json.loads(json.dumps(found.record.as_json(), allow_nan=False)) == found.record.as_json()


def test_a_record_tells_the_difference_under_both_estimands():
    base = arm({"demo": ["CCCC", "CICI", "IIII", "CCIC"]})
    candidate = arm({"demo": ["CCCC", "IIII", "IIII", "CCIC"]}, seed=1)
    policy = GatePolicy(design="fixed")
    record = decide_once(base, candidate, policy, now=NOW).record.as_json()
    task = record["tasks"]["demo"]
    assert (task["baseline_pct"], task["candidate_pct"]) == (56.25, 43.75)
    assert record["primary"]["delta_pt"] == -12.5
    assert (task["losses"], task["gains"], task["n_pairs"]) == (2, 0, 16)
    assert task["se_super_pt"] == pytest.approx(12.5)
    assert record["pairs_used"] == record["pairs_planned"] == 16
    assert record["meaning"].startswith(("FAIL means", "INCONCLUSIVE means"))


def test_the_calibration_and_its_age_are_told():
    base, candidate = pair(0.8, 0.8)
    base = replace(base, calibration=CALIBRATION)
    record = decide_once(base, candidate, POLICY, now=LATER).record
    assert record.calibration is not None
    assert record.calibration.age_days == 1.0
    assert decide_once(*pair(0.8, 0.8), POLICY, now=NOW).record.calibration is None


@pytest.mark.parametrize(
    "changes",
    [
        {"exit_code": 0},
        {"verdict": "PASS", "exit_code": 0},
        {"reasons": []},
        {"policy": {**GatePolicy(margin_pt=1).model_dump(mode="json"), "margin_pt": 50.0}},
        {"data": "0" * 64},
        {"rounds": None},
        {"sha256": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_verdict_is_not_believed(tmp_path: Path, changes: dict[str, object]):
    base, candidate = open_pair()
    candidate = in_folder(candidate, tmp_path)
    policy = GatePolicy(margin_pt=1)
    assert decide_once(base, candidate, policy, now=NOW).record.exit_code == 3
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(StoreError, match="its hash is another"):
        decide_once(base, candidate, policy, now=LATER)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "MAYBE"},
        {"decided_at": "soon"},
        {"tasks": []},
        {"rounds": [{"demo": "0"}]},
        {"looks": [{}]},
        {"baseline": "base"},
        {"version": "two"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_verdict_with_a_field_of_another_kind_names_it(
    tmp_path: Path, changes: dict[str, object]
):
    base, candidate = open_pair()
    candidate = in_folder(candidate, tmp_path)
    decide_once(base, candidate, POLICY, now=NOW)
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(StoreError, match=next(iter(changes))):
        decide_once(base, candidate, POLICY, now=LATER)


def test_a_verdict_of_a_version_without_hash_must_have_the_exit_code_of_its_verdict(
    tmp_path: Path,
):
    base, candidate = open_pair()
    candidate, policy = in_folder(candidate, tmp_path), GatePolicy(margin_pt=1)
    decide_once(base, candidate, policy, now=NOW)
    path = tmp_path / "verdict.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"} | {"version": 1}
    path.write_text(json.dumps(old))
    assert decide_once(base, candidate, policy, now=LATER).was_stored
    path.write_text(json.dumps({**old, "exit_code": 0}))
    with pytest.raises(StoreError, match="exit code 0 is none"):
        decide_once(base, candidate, policy, now=LATER)
