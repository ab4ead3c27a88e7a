"""Time of a verdict over 5,000 samples x 16 repeats: from two run folders, and from arms in memory.

What is read of texts but once (gating/signals.py) is timed apart.

python benchmarks/gate_speed.py [--keep FOLDER]; one core. The target is 2 s from the folders.
"""

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from g4eval.gating.decision import decide_once
from g4eval.gating.gate_file import read_gate_file, write_gate_file
from g4eval.gating.load import arm_of_run
from g4eval.gating.policy import GatePolicy
from g4eval.store import schema
from g4eval.store.manifest import write_manifest

N_SAMPLES, N_REPEATS = 5000, 16


def write_run(folder: Path, seed: int, accuracy: float) -> None:
    """Write a run folder with drawn outcomes and no texts."""
    folder.mkdir(parents=True)
    plan = {
        "version": 1, "prompt": "default", "settings": {}, "text_sha256": None,
        "is_generated": True, "splits": [], "grader": "integer", "grader_version": 1,
        "repeats": N_REPEATS,
        "sampling": {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "max_new_tokens": 1024},
    }  # fmt: skip
    engine = {"engine": "fake", "other": {"seed": seed}}
    write_manifest(folder, {"engine": engine, "identity": {"seed": seed}, "config": {}})
    right = np.random.default_rng(seed).random((N_SAMPLES, N_REPEATS)) < accuracy
    with sqlite3.connect(folder / "run.sqlite") as db:
        db.executescript(schema.SCHEMA)
        db.execute("INSERT INTO meta VALUES ('run_id', ?)", (folder.name,))
        db.execute("INSERT INTO tasks VALUES ('demo', ?)", (json.dumps(plan),))
        empty = schema.pack_text("")
        for i, row in enumerate(right):
            sample = f"sample-{i:05}"
            db.execute("INSERT INTO samples VALUES ('demo', ?, ?, NULL, '{}')", (sample, i))
            for j, is_right in enumerate(row.tolist()):
                key = f"{sample}/{j}"
                db.execute(
                    "INSERT INTO completions (key, task_id, sample_id, repeat, prompt_hash, "
                    "stop_reason, thought, text, text_hash, completion_tokens, started_at, "
                    "finished_at) VALUES (?, 'demo', ?, ?, 'p', 'stop', 'none', ?, ?, 900, 0, 0)",
                    (key, sample, j, empty, sha256(key.encode()).hexdigest()),
                )
                db.execute(
                    "INSERT INTO grades (key, grader, grader_version, outcome, details, graded_at) "
                    "VALUES (?, 'integer', 1, ?, '{}', 0)",
                    (key, "correct" if is_right else "incorrect"),
                )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write two runs, decide them, print seconds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--keep", type=Path, help="Keep the runs in this folder.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        for name, seed in (("base", 0), ("candidate", 1)):
            if not (root / name).exists():
                write_run(root / name, seed, 0.8)
        write_gate_file(arm_of_run(root / "base"), root / "base.json")
        first = time.perf_counter()
        arm_of_run(root / "candidate")  # reads the signals of its texts, which are empty here
        first = time.perf_counter() - first
        started = time.perf_counter(), time.process_time()
        base, candidate = arm_of_run(root / "base"), arm_of_run(root / "candidate")
        loaded = time.perf_counter(), time.process_time()
        decided = decide_once(base, candidate, GatePolicy(), now=datetime.now(UTC))
        ended = time.perf_counter(), time.process_time()
        (root / "candidate" / "verdict.json").unlink()
        from_file = time.perf_counter()
        read_gate_file(root / "base.json")
        from_file = time.perf_counter() - from_file
    print(f"{N_SAMPLES} x {N_REPEATS} pairs, {decided.record.verdict}")
    for name, a, b in (("load two runs", started, loaded), ("decide", loaded, ended)):
        print(f"{name}: {b[0] - a[0]:.2f} s, {b[1] - a[1]:.2f} s of CPU")
    print(f"load one gate file: {from_file:.2f} s; a run for the first time: {first:.2f} s")


if __name__ == "__main__":
    main()
