"""Stored files: verdicts, calibrations, manifests, policies, gate files and a run's database."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from g4eval.gating.arm import Arm
from g4eval.gating.calibration import check_armed
from g4eval.gating.gate_file import FORMAT, FORMAT_VERSION, read_gate_file
from g4eval.gating.policy import GatePolicy, read_policy
from g4eval.gating.render import render_junit, render_markdown, render_text
from g4eval.report.manifest_words import facts_of, summary_of
from g4eval.report.text_table import render_table
from g4eval.stats.summary import summarise
from g4eval.store import schema
from g4eval.store.birth import Birth, make_run
from g4eval.store.checking import check_run
from g4eval.store.manifest import read_manifest
from g4eval.store.reader import RunReader
from g4eval.store.verdicts import Calibration, VerdictRecord
from tests.conftest import ROOT
from tests.fuzz.border import Border, mutated_json

STORED = ROOT / "tests" / "fixtures" / "first_runs" / "stored"


def read_verdict(data: bytes, folder: Path) -> None:
    (folder / "verdict.json").write_bytes(data)
    record = VerdictRecord.read(folder / "verdict.json")
    render_text(record, was_stored=True), render_markdown(record), render_junit(record)


def read_calibration(data: bytes, folder: Path) -> None:
    (folder / "calibration.json").write_bytes(data)
    found = Calibration.read(folder / "calibration.json")
    arm = Arm(run_id="r", seed=0, facts={}, declared=(), tasks={}, config={}, calibration=found)
    check_armed(arm, uncalibrated=False)


def read_stored_manifest(data: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(data)
    manifest = read_manifest(folder)
    facts_of(manifest), summary_of(manifest)


def read_stored_policy(data: bytes, folder: Path) -> None:
    (folder / "gate.yaml").write_bytes(data)
    policy = read_policy(folder / "gate.yaml")
    policy.planned_repeats("aime26"), policy.margin, policy.fingerprint


def read_arm(data: bytes, folder: Path) -> None:
    (folder / "base.json").write_bytes(data)
    arm = read_gate_file(folder / "base.json")
    arm.digest({name: (0, task.n_repeats) for name, task in arm.tasks.items()})


def read_database(changes: list[tuple[int, int]], folder: Path) -> None:
    data = bytearray(DATABASE)
    for place, byte in changes:
        data[place % len(data)] = byte
    (folder / "run.sqlite").write_bytes(bytes(data))
    check_run(folder)
    with RunReader(folder) as run:
        render_table(run, summarise(run))


def _database() -> bytes:
    """A run of one task without completions, and of the newest version."""
    import tempfile

    manifest = json.loads((STORED / "base" / "manifest.json").read_text())
    rows = [
        ("INSERT INTO tasks (task_id, record) VALUES (?, ?)", (name, json.dumps(plan)))
        for name, plan in manifest["tasks"].items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        birth = Birth(meta={"run_id": "r", "manifest": json.dumps(manifest)}, rows=tuple(rows))
        make_run(Path(folder), lambda: birth)
        path = Path(folder) / "run.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            for number in range(20):
                text = schema.pack_text(f"answer {number}")
                task_id = next(iter(manifest["tasks"]))
                values = (f"{number:064x}", task_id, f"s{number}", text)
                db.execute(
                    "INSERT INTO samples (task_id, sample_id, position, groups) "
                    "VALUES (?, ?, ?, '{}')",
                    (task_id, f"s{number}", number),
                )
                db.execute(
                    "INSERT INTO completions (key, task_id, sample_id, repeat, stop_reason, "
                    "thought, text, text_hash, started_at, finished_at) "
                    "VALUES (?, ?, ?, 0, 'stop', 'none', ?, ?, 1.0, 2.0)",
                    (*values, schema.text_hash(f"answer {number}", None)),
                )
        return path.read_bytes()


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _gate_file() -> dict[str, Any]:
    bits = ["00", "01"]
    task = {
        "protocol": {"version": 1, "grader": ["integer 1"]},
        "sample_ids": ["a", "b"],
        "groups": ["", ""],
        "outcomes": ["CI", "N."],
        **dict.fromkeys(("truncated", "open_thoughts", "looping", "other_script"), bits),
        "tokens": [[1, None], [2.0, 3]],
        "prompt_hashes": ["p", ["q", "r"]],
        "text_hashes": [["0a", ""], ["", "ff"]],
        "long_texts": bits,
        "questions": ["x", "y"],
    }
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "run_id": "base",
        "seed": 0,
        "facts": _json(STORED / "gated_cand" / "verdict.json")["baseline"]["engine"],
        "declared": [],
        "config": {"tasks": ["demo"], "set": {"engine.accuracy": 0.5}},
        "calibration": _json(STORED / "gated_base" / "calibration.json"),
        "tasks": {"demo": task},
    }


def _old_verdict() -> dict[str, Any]:
    """One without a hash, so that what was changed in it is looked at."""
    return {**_json(STORED / "gated_cand" / "verdict.json"), "version": 1}


DATABASE = _database()
# Places and bytes: Hypothesis would print a whole database with each of its notes.
CHANGES = st.lists(st.tuples(st.integers(0, len(DATABASE) - 1), st.integers(0, 255)), max_size=8)

BORDERS = [
    Border(name="verdict", inputs=mutated_json([_old_verdict()]), read=read_verdict),
    Border(
        name="calibration",
        inputs=mutated_json([_json(STORED / "gated_base" / "calibration.json")]),
        read=read_calibration,
    ),
    Border(
        name="manifest",
        inputs=mutated_json([_json(STORED / "base" / "manifest.json")]),
        read=read_stored_manifest,
    ),
    Border(
        name="policy",
        inputs=mutated_json([GatePolicy().model_dump(mode="json")]),
        read=read_stored_policy,
    ),
    Border(name="gate-file", inputs=mutated_json([_gate_file()]), read=read_arm),
    Border(name="database", inputs=CHANGES, read=read_database),
]
