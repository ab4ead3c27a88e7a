"""What the gate tells to do where arms aren't comparable: grade again, export again, declare."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from g4eval.gating.decision import decide_once
from g4eval.gating.next_steps import grading_commands
from g4eval.gating.policy import GatePolicy
from g4eval.gating.render import render_markdown, render_text
from tests.unit.gating.arms import PROTOCOL, arm, arm_task, drawn

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def graded_by(*graders: str, run_id: str, folder: Path | None = None, **facts):
    protocol = {**PROTOCOL, "grader": list(graders)}
    found = arm(
        {"demo": arm_task(drawn(0.8), protocol=protocol)},
        seed=run_id == "candidate",
        run_id=run_id,
        **facts,
    )
    return replace(found, folder=folder)


def texts(base, candidate) -> list[str]:
    record = decide_once(base, candidate, GatePolicy(), now=NOW).record
    assert (record.verdict, record.exit_code) == ("INVALID", 4)
    return [render_text(record, was_stored=False), render_markdown(record)]


def test_the_run_graded_by_an_older_grader_is_graded_again(tmp_path: Path) -> None:
    base = graded_by("integer 1", run_id="base", folder=tmp_path / "base run")
    candidate = graded_by("integer 2", run_id="candidate", folder=tmp_path / "candidate")
    for text in texts(base, candidate):
        assert f"g4eval grade '{tmp_path}/base run'" in text
        assert "g4eval grade " + str(tmp_path / "candidate") not in text
        assert "export" not in text


def test_a_gate_file_behind_is_exported_again() -> None:
    base = graded_by("integer 1", run_id="base")
    candidate = graded_by("integer 2", run_id="candidate", folder=Path("runs/candidate"))
    for text in texts(base, candidate):
        assert "g4eval grade RUNS/base" in text
        assert "g4eval export RUNS/base --to gate --out FILE" in text


def test_the_candidate_may_be_the_one_behind() -> None:
    base = graded_by("integer 10", run_id="base", folder=Path("runs/base"))
    candidate = graded_by("integer 9", run_id="candidate", folder=Path("runs/candidate"))
    assert grading_commands(base, candidate, ["demo"]) == ["g4eval grade runs/candidate"]


def test_a_run_graded_half_by_each_version_is_behind() -> None:
    base = graded_by("integer 1", "integer 2", run_id="base", folder=Path("runs/base"))
    candidate = graded_by("integer 2", run_id="candidate", folder=Path("runs/candidate"))
    assert grading_commands(base, candidate, ["demo"]) == ["g4eval grade runs/base"]


def test_other_graders_are_not_older_ones() -> None:
    base = graded_by("integer 1", run_id="base")
    assert grading_commands(base, graded_by("choice 2", run_id="candidate"), ["demo"]) == []


def test_a_fact_that_one_arm_does_not_know_can_be_declared() -> None:
    base = graded_by("integer 1", run_id="base", quantization="unknown")
    for text in texts(base, graded_by("integer 1", run_id="candidate", quantization="fp8")):
        assert "--set engine.quantization=VALUE" in text
        assert "the baseline's" in text
    imported = graded_by(
        "integer 1", run_id="candidate", engine="import", weights_fingerprint="unknown"
    )
    text = texts(graded_by("integer 1", run_id="base"), imported)[0]
    assert "g4eval import ... --set engine.weights_fingerprint=VALUE" in text
