"""A dialogue of three steps, killed at any moment, goes on at its step."""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import cli_environment
from tests.talking import write_family

ROWS, REPEATS = 40, 2
STEPS = 3 * ROWS * REPEATS


def command(root: Path, run_id: str, delay: float) -> list[str]:
    return [
        *(sys.executable, "-m", "g4eval", "run", "talk", "--engine", "fake"),
        *("--tasks-dir", str(root / "families"), "--runs-dir", str(root / "runs")),
        *("--run-id", run_id, "--set", f"engine.delay_seconds={delay}"),
        *("--set", f"engine.journal={root / run_id}", "--set", "engine.concurrency=8"),
    ]


def stored_keys(root: Path) -> set[str]:
    path = root / "runs" / "killed" / "run.sqlite"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {key for (key,) in db.execute("SELECT key FROM completions")}


def finish(root: Path, run_id: str) -> str:
    result = subprocess.run(
        command(root, run_id, 0), cwd=root, env=cli_environment(), text=True, capture_output=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.replace(run_id, "RUN")


def asked(root: Path) -> list[str]:
    journal = root / "killed"
    return journal.read_text().split() if journal.exists() else []


def kill_at_random_moments(root: Path, kills: int, delay: float, seed: int) -> int:
    """Kill `kills` sessions; return how many of them had tries broken off between steps."""
    chance, broken_off = random.Random(seed), 0
    for _ in range(kills):
        stored, asked_before = stored_keys(root), len(asked(root))
        process = subprocess.Popen(
            command(root, "killed", delay), cwd=root, env=cli_environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(asked(root)) <= asked_before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not stored & set(asked(root)[asked_before:]), "asked again for what was stored"
        assert stored <= stored_keys(root), "a stored step is gone"
        with contextlib.closing(sqlite3.connect(root / "runs" / "killed" / "run.sqlite")) as db:
            (count,) = db.execute(
                "SELECT COUNT(*) FROM completions c WHERE NOT EXISTS (SELECT 1 FROM tries t WHERE "
                "t.sample_id = c.sample_id AND t.repeat = c.repeat)"
            ).fetchone()
            broken_off += count > 0
    return broken_off


def check(root: Path, kills: int, *, delay: float, seed: int) -> None:
    write_family(root, rows=ROWS, repeats=REPEATS)
    broken_off = kill_at_random_moments(root, kills, delay, seed)
    assert broken_off >= kills // 3
    table = finish(root, "killed")
    assert len(stored_keys(root)) == STEPS
    assert table == finish(root, "unbroken")
    assert table == finish(root, "killed")


def test_a_dialogue_killed_five_times_ends_with_the_table_of_an_unbroken_one(
    tmp_path: Path,
) -> None:
    check(tmp_path, 5, delay=0.2, seed=3)


@pytest.mark.slow
def test_a_dialogue_killed_fifty_times_ends_with_the_table_of_an_unbroken_one(
    tmp_path: Path,
) -> None:
    check(tmp_path, 50, delay=1.0, seed=4)
