"""Runs of 0.1.0 open, continue, gate, report and export as they did; nothing of them has moved."""

import hashlib
import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from g4eval.config import RunConfig
from g4eval.fingerprint import request_seed
from g4eval.plan import RunPlan
from g4eval.planning import find_profile, plan_tasks
from g4eval.stats.summary import summarise
from g4eval.store.reader import RunReader
from tests.conftest import ROOT, Cli
from tests.driving import render_requests

FIXTURE = ROOT / "tests" / "fixtures" / "first_runs"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
KEYS = json.loads((FIXTURE / "keys.json").read_text())
RUNS = sorted(EXPECTED)
DEMO = [task for task in KEYS if task.startswith("demo_")]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A copy of all that is stored, where the command line looks for runs."""
    for name in ("tasks", "gate.yaml", "completions.jsonl"):
        source = FIXTURE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copytree(FIXTURE / "stored", tmp_path / "runs")
    return tmp_path / "runs"


def found(folder: Path) -> dict[str, Any]:
    """What a run holds, in the shape of expected.json."""
    with RunReader(folder) as run:
        manifest, tasks = run.manifest(), run.tasks()
        seed = manifest.identity.seed
        rows = [
            [
                *(task_id, row.sample_id, row.repeat, row.key),
                request_seed(task_id, tasks[task_id].version, row.sample_id, row.repeat, seed),
                *(row.prompt_hash, row.stop_reason.value, row.thought.value, row.text_hash),
                *(row.outcome.value, row.grade.extraction if row.grade else None),
            ]
            for task_id in tasks
            for row in run.rows(task_id)
        ]
        scores = {s.task_id: score(s) for s in summarise(run)}
    fingerprint = manifest.engine.fingerprint
    return {"engine_fingerprint": fingerprint, "seed": seed, "scores": scores, "rows": rows}


def score(summary: Any) -> dict[str, Any]:
    e = summary.estimate
    return {
        "value": None if math.isnan(e.value) else e.value,
        "n_samples": e.n_samples,
        "n_repeats": e.n_repeats,
        "n_graded": e.n_graded,
        "n_truncated": e.n_truncated,
        "n_no_answer": e.n_no_answer,
        "n_ungraded": e.n_ungraded,
        "pass_at": {str(k): value for k, (value, _) in summary.pass_at.items()},
        "maj_at": {str(k): value for k, value in summary.maj_at.items()},
        "failed": summary.audit.failed,
        "missing": summary.audit.n_missing,
    }


def assert_as_ever(folder: Path, name: str) -> None:
    expected, now = EXPECTED[name], found(folder)
    assert now["rows"] == expected["rows"]
    assert now["engine_fingerprint"] == expected["engine_fingerprint"]
    for task_id, numbers in expected["scores"].items():
        for key, value in numbers.items():
            assert now["scores"][task_id][key] == pytest.approx(value, abs=1e-12), (task_id, key)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_first_store_reads_as_ever(runs: Path, name: str):
    assert_as_ever(runs / name, name)


@pytest.mark.parametrize("name", RUNS)
def test_it_shows_and_exports(runs: Path, quick_cli: Cli, name: str):
    for command in (("show", name), ("show", name, "--json"), ("export", name, "--to", "jsonl")):
        result = quick_cli(*command)
        assert result.returncode == 0, result.stderr
        assert result.stdout
    lines = quick_cli("export", name, "--to", "jsonl").stdout.splitlines()
    assert len(lines) == len(EXPECTED[name]["rows"])
    assert quick_cli("export", name, "--to", "gate", "--out", "gate.json").returncode == 0


def test_the_same_command_adds_nothing(runs: Path, quick_cli: Cli):
    options = (
        *("--limit", "6", "--repeats", "2", "--tasks-dir", "tasks", "--allow-ungraded"),
        *("--set", "engine.token_ids=true", "--set", "engine.thinking=true"),
        *("--set", "engine.truncated_share=0.1", "--set", "engine.no_answer_share=0.1"),
        *("--set", "engine.text_bytes=120", "--set", "engine.journal=asked"),
    )
    tasks = ("demo_math", "demo_choice", "demo_logic", "demo_code", "zoo")
    command = ("run", *tasks, "--engine", "fake", "--model", "m", "--run-id", "base", *options)
    result = quick_cli(*command)
    assert result.returncode == 0, result.stderr
    assert not (runs.parent / "asked").exists()
    before, now = EXPECTED["base"]["rows"], found(runs / "base")["rows"]
    # What could not be judged then may be judged now.
    assert [r[:9] for r in now] == [r[:9] for r in before]
    assert [r for r in now if r[0] != "demo_code"] == [r for r in before if r[0] != "demo_code"]


def test_a_run_that_was_stopped_sends_only_what_is_missing(runs: Path, quick_cli: Cli):
    with closing(sqlite3.connect(runs / "stopped" / "run.sqlite")) as db:
        stored = {key for (key,) in db.execute("SELECT key FROM completions")}
    command = ("run", "demo_math", "--engine", "fake", "--model", "m", "--repeats", "3")
    result = quick_cli(*command, "--run-id", "stopped", "--set", "engine.journal=asked")
    assert result.returncode == 0, result.stderr
    asked = (runs.parent / "asked").read_text().split()
    assert len(asked) == len(set(asked)) == 48 - len(stored)
    assert not set(asked) & stored
    whole = quick_cli(*command, "--run-id", "whole")
    assert whole.returncode == 0
    again, anew = found(runs / "stopped"), found(runs / "whole")
    assert again["rows"] == anew["rows"]
    assert again["scores"] == anew["scores"]


def test_failed_requests_are_sent_again(runs: Path, quick_cli: Cli):
    command = ("run", "demo_math", "--engine", "fake", "--model", "m", "--repeats", "2")
    result = quick_cli(*command, "--run-id", "failed", "--set", "engine.journal=asked")
    assert result.returncode == 0, result.stderr
    assert len((runs.parent / "asked").read_text().split()) == 6
    assert found(runs / "failed")["scores"]["demo_math"]["failed"] == 0


def test_the_same_file_is_imported_again_without_a_change(runs: Path, quick_cli: Cli):
    result = quick_cli(
        "import", "demo_math", "completions.jsonl", "--model", "somebody", "--run-id", "imported"
    )
    assert result.returncode == 0, result.stderr
    assert_as_ever(runs / "imported", "imported")


def test_a_stored_verdict_stands(runs: Path, quick_cli: Cli):
    before = (runs / "gated_cand" / "verdict.json").read_bytes()
    result = quick_cli("gate", "gated_base", "gated_cand", "--policy", "gate.yaml")
    assert result.returncode == 3, result.stderr
    assert "decided on" in result.stdout
    assert (runs / "gated_cand" / "verdict.json").read_bytes() == before


def test_a_stored_calibration_arms_a_new_decision(runs: Path, quick_cli: Cli):
    (runs / "gated_cand" / "verdict.json").unlink()
    result = quick_cli("gate", "gated_base", "gated_cand", "--policy", "gate.yaml")
    assert result.returncode == 3, result.stderr
    made = json.loads((runs / "gated_cand" / "verdict.json").read_text())
    kept = json.loads((FIXTURE / "stored" / "gated_cand" / "verdict.json").read_text())
    assert made["verdict"] == kept["verdict"]
    assert made["calibration"]["id"] == kept["calibration"]["id"]


def test_it_is_graded_again(runs: Path, quick_cli: Cli):
    result = quick_cli("grade", "gated_base", "--tasks-dir", "tasks")
    assert result.returncode == 0, result.stderr
    assert_as_ever(runs / "gated_base", "gated_base")


def test_it_is_reported(runs: Path, quick_cli: Cli):
    result = quick_cli("report", "gated_base", "gated_cand", "--out", "pages")
    assert result.returncode == 0, result.stderr
    assert (runs.parent / "pages" / "index.html").is_file()


@pytest.mark.parametrize("task_id", KEYS)
def test_keys_and_seeds_of_every_task_are_what_they_were(
    task_id: str, request: pytest.FixtureRequest
):
    needs_data = task_id not in DEMO
    data_dir = request.getfixturevalue("data_dir") if needs_data else None
    config = RunConfig(
        tasks=(task_id,),
        data_dir=data_dir,
        allow_ungraded=True,
        allow_partial_data=True,
        repeats=2,
        engine="fake",
        model="gemma-4-31b",
    )
    plans = plan_tasks(config, find_profile(config))
    plan = RunPlan(tasks=plans, seed=3, engine_fingerprint="0" * 64)
    requests = [r for p in plans for r in render_requests(p, plan)]
    first = requests[0]
    every = "\n".join(f"{r.key} {r.seed}" for r in requests)
    assert {
        "requests": len(requests),
        "first": [first.sample_id, first.key, first.seed],
        "all": hashlib.sha256(every.encode()).hexdigest(),
    } == KEYS[task_id]


def test_the_fixture_has_no_text_of_real_benchmarks():
    assert {row[0] for run in EXPECTED.values() for row in run["rows"]} == {*DEMO, "zoo"}
    assert not [p for p in (FIXTURE / "stored").iterdir() if p.name not in EXPECTED]
