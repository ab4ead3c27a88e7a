"""`kill -9` at any moment, then the same command: nothing twice, nothing lost, the same table."""

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

REQUESTS = 2000

TASK = """id: slow_math
version: 1
title: Invented sums, graded slowly
licence: invented
invented: true
data:
  rows: {rows}
  sources:
    - kind: package
      path: rows.jsonl
      columns: {{sample_id: id, target: answer, problem: problem}}
prompts:
  default: {{template: prompt.jinja, source: invented}}
grader: plugin:SlowGrader
metrics: [accuracy, pass@k]
repeats: {repeats}
max_new_tokens: 100
"""

PLUGIN = """import time

from g4eval.graders.extract import last_boxed
from g4eval.records import Grade, Outcome


class SlowGrader:
    name = "slow"
    version = 1

    def grade(self, one_try):
        time.sleep(0.001)
        found = last_boxed(one_try.completion.text)
        right = found == str(one_try.sample.target)
        outcome = Outcome.CORRECT if right else Outcome.INCORRECT
        return Grade(
            key=one_try.key, grader=self.name, grader_version=1, outcome=outcome,
            extraction=found,
        )

    def example(self, sample, repeat, *, right):
        return f"\\\\boxed{{{sample.target + (0 if right else 1)}}}"
"""


def make_family(root: Path, rows: int, repeats: int) -> None:
    family = root / "families" / "slow"
    family.mkdir(parents=True)
    lines = [f'{{"id": "s-{i}", "problem": "{i} + 1?", "answer": {i + 1}}}' for i in range(rows)]
    (family / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (family / "slow_math.yaml").write_text(TASK.format(rows=rows, repeats=repeats))
    (family / "prompt.jinja").write_text("{{ problem }}\n")
    (family / "plugin.py").write_text(PLUGIN)


class Runs:
    """Runs of one command in a folder: killed ones and finished ones."""

    def __init__(self, root: Path, *, delay: float) -> None:
        self.root = root
        self.journal = root / "journal"
        self.delay = delay

    def command(self, run_id: str) -> list[str]:
        settings = {
            "engine.accuracy": 0.6,
            "engine.delay_seconds": self.delay,
            "engine.concurrency": 40,
            "engine.journal": self.journal if run_id == "killed" else self.root / "other",
        }
        flags = [f for k, v in settings.items() for f in ("--set", f"{k}={v}")]
        return [
            *(sys.executable, "-m", "g4eval", "run", "slow_math", "--engine", "fake"),
            *("--tasks-dir", str(self.root / "families"), "--runs-dir", str(self.root / "runs")),
            *("--run-id", run_id, *flags),
        ]

    def start(self, run_id: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(run_id), cwd=self.root, env=cli_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, run_id: str) -> str:
        process = self.start(run_id)
        table, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return table.replace(run_id, "RUN")

    def query(self, sql: str) -> list[tuple[object, ...]]:
        path = self.root / "runs" / "killed" / "run.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path)) as db:
            return db.execute(sql).fetchall()

    def stored_keys(self) -> set[object]:
        try:
            return {row[0] for row in self.query("SELECT key FROM completions")}
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()


def kill_at_random_moments(runs: Runs, kills: int, seed: int) -> dict[str, int]:
    """Kill `kills` sessions; fail where one asked again for what was stored; count phases."""
    chance = random.Random(seed)
    phases = {"starting": 0, "generating": 0, "grading": 0}
    for _ in range(kills):
        stored = runs.stored_keys()
        asked_before = runs.journal.read_text().count("\n") if runs.journal.exists() else 0
        process = runs.start("killed")
        wait_until = time.monotonic() + 30
        grading = len(stored) >= REQUESTS
        while not grading and time.monotonic() < wait_until and process.poll() is None:
            if runs.journal.exists() and runs.journal.read_text().count("\n") > asked_before:
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5) if not grading else chance.uniform(0.5, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        asked = runs.journal.read_text().split() if runs.journal.exists() else []
        assert not stored & set(asked[asked_before:]), "asked again for what was stored"
        kept = runs.stored_keys()
        assert stored <= kept, "a stored completion is gone"
        phase = "grading" if grading else "generating" if len(asked) > asked_before else "starting"
        phases[phase] += 1
    return phases


def check_after_kills(tmp_path: Path, kills: int, *, delay: float, seed: int) -> None:
    make_family(tmp_path, rows=REQUESTS // 4, repeats=4)
    runs = Runs(tmp_path, delay=delay)
    phases = kill_at_random_moments(runs, kills, seed)
    assert phases["generating"] >= kills // 3, phases
    table = runs.finish("killed")
    assert len(runs.stored_keys()) == REQUESTS
    graded = runs.query("SELECT COUNT(DISTINCT key), COUNT(*) FROM grades")
    assert graded == [(REQUESTS, REQUESTS)], "a completion was graded twice or not at all"
    assert table == runs.finish("unbroken")
    assert table == runs.finish("killed"), "the finished run has another table"


def test_run_killed_ten_times_ends_with_the_table_of_an_unbroken_one(tmp_path: Path) -> None:
    check_after_kills(tmp_path, 10, delay=0.02, seed=1)


@pytest.mark.slow
def test_run_killed_two_hundred_times_ends_with_the_table_of_an_unbroken_one(
    tmp_path: Path,
) -> None:
    check_after_kills(tmp_path, 200, delay=0.6, seed=2)


def test_run_killed_while_grading_grades_the_rest(tmp_path: Path) -> None:
    make_family(tmp_path, rows=REQUESTS // 4, repeats=4)
    plugin = tmp_path / "families" / "slow" / "plugin.py"
    plugin.write_text(PLUGIN.replace("sleep(0.001)", "sleep(0.004)"))
    runs = Runs(tmp_path, delay=0)
    process = runs.start("killed")
    while len(runs.stored_keys()) < REQUESTS and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (graded,) = runs.query("SELECT COUNT(*) FROM grades")[0]
    assert isinstance(graded, int)
    assert graded < REQUESTS, "the kill came too late to be while grading"
    table = runs.finish("killed")
    assert runs.query("SELECT COUNT(DISTINCT key), COUNT(*) FROM grades") == [(REQUESTS, REQUESTS)]
    assert table == runs.finish("unbroken")


def test_worker_processes_end_with_a_killed_run(tmp_path: Path) -> None:
    make_family(tmp_path, rows=REQUESTS // 4, repeats=4)
    runs = Runs(tmp_path, delay=0.02)
    process = runs.start("killed")
    children = wait_for_children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if is_running(pid)]


def wait_for_children(pid: int) -> list[int]:
    """Wait until a process has a grading worker; /proc names children of each thread."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found: list[int] = []
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
        if len(found) >= 2:  # multiprocessing's resource tracker and a worker
            return found
        time.sleep(0.05)
    raise AssertionError("no worker was started")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_interrupt_exits_130_and_names_the_command_that_continues(tmp_path: Path) -> None:
    make_family(tmp_path, rows=REQUESTS // 4, repeats=4)
    runs = Runs(tmp_path, delay=0.6)
    process = runs.start("killed")
    while len(runs.stored_keys()) < 100 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "to continue: g4eval run slow_math --engine fake" in errors
    assert "Traceback" not in errors
    stored = len(runs.stored_keys())
    assert 100 <= stored < REQUESTS
    runs.delay = 0
    runs.finish("killed")
    assert len(runs.stored_keys()) == REQUESTS


def test_second_process_on_one_run_is_told_so(tmp_path: Path) -> None:
    make_family(tmp_path, rows=REQUESTS // 4, repeats=4)
    runs = Runs(tmp_path, delay=0.6)
    first = runs.start("killed")
    while len(runs.stored_keys()) < 10 and first.poll() is None:
        time.sleep(0.05)
    second = runs.start("killed")
    _, errors = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 5
    assert "error: another process is writing to this run" in errors
    assert "Traceback" not in errors


@pytest.fixture
def small_disk(tmp_path: Path):
    """A tmpfs of 3 MB; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True,
        check=False,
    )  # fmt: skip
    if mount.returncode:
        pytest.skip("a small disk can't be mounted here: root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_exits_5_and_keeps_what_was_finished(tmp_path: Path, small_disk: Path) -> None:
    make_family(tmp_path, rows=REQUESTS // 4, repeats=4)
    runs = Runs(tmp_path, delay=0)
    (tmp_path / "runs").symlink_to(small_disk)
    command = runs.command("killed")
    (small_disk / "ballast").write_bytes(b"x" * 2_300_000)
    run = subprocess.run(
        command, cwd=tmp_path, env=cli_environment(), capture_output=True, text=True, check=False
    )
    assert run.returncode == 5, run.stderr
    assert "can't be written any more" in run.stderr
    assert "Traceback" not in run.stderr
    stored = runs.stored_keys()
    (small_disk / "ballast").unlink()
    shown = subprocess.run(
        [sys.executable, "-m", "g4eval", "show", "killed", "--runs-dir", "runs"], cwd=tmp_path,
        env=cli_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert len(stored) > 0
