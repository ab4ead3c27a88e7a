"""A run of the first store: read as it is, brought up to date by whoever writes."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from g4eval.errors import StoreError
from g4eval.store import migration
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore
from tests.conftest import ROOT, Cli, cli_environment

FIRST_RUNS = ROOT / "tests" / "fixtures" / "first_runs"
STORED = FIRST_RUNS / "stored"


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return db.execute(sql).fetchall()


def version(folder: Path) -> str:
    ((found,),) = query(folder, "SELECT value FROM meta WHERE name = 'schema_version'")
    return str(found)


def rows_of(folder: Path) -> list[Any]:
    with RunReader(folder) as run:
        return [row for task in run.tasks() for row in run.rows(task)]


@pytest.fixture
def run_1(tmp_path: Path) -> Path:
    """A copy of a run of version 1, some of whose requests failed for good."""
    folder = tmp_path / "runs" / "failed"
    shutil.copytree(STORED / "failed", folder)
    return folder


def test_opening_for_writing_brings_it_up_to_date_and_keeps_a_copy_until_a_commit(run_1) -> None:
    before, bytes_before = rows_of(run_1), (run_1 / "run.sqlite").read_bytes()
    assert version(run_1) == "1"
    with RunStore(run_1) as store:
        assert (run_1 / migration.COPY).read_bytes() == bytes_before
        store.set_meta({"note": "something"})
        assert not (run_1 / migration.COPY).exists()
    assert version(run_1) == "2"
    assert rows_of(run_1) == before
    states = dict(query(run_1, "SELECT state, COUNT(*) FROM tries GROUP BY state"))
    assert states == {"finished": 26, "failed": 6}
    with RunReader(run_1) as run:
        assert len(run.failed("demo_math")) == 6
        assert run.begun_tries("demo_math") == set()


def test_a_killed_migration_leaves_the_run_or_what_came_of_it(run_1) -> None:
    """Killed after each statement in turn, the next writer always ends with the same rows."""
    before = rows_of(run_1)
    script = (
        "import os, signal, sqlite3, sys\n"
        "from pathlib import Path\n"
        "from g4eval.store import migration\n"
        "left = int(sys.argv[2])\n"
        "def trace(_):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "connect = sqlite3.connect\n"
        "def traced(*args, **kwargs):\n"
        "    db = connect(*args, **kwargs)\n"
        "    db.set_trace_callback(trace)\n"
        "    return db\n"
        "migration.sqlite3.connect = traced\n"
        "migration.migrate(Path(sys.argv[1]))\n"
    )
    for statements in range(0, 60, 7):
        folder = run_1.parent / f"killed-{statements}"
        shutil.copytree(run_1, folder)
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(statements)],
            env=cli_environment(), check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        assert rows_of(folder) == before
        with RunStore(folder):
            pass
        assert (version(folder), rows_of(folder)) == ("2", before)


def test_a_disk_that_has_no_room_for_the_copy_leaves_the_run_as_it_was(run_1, monkeypatch) -> None:
    before = (run_1 / "run.sqlite").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(StoreError, match="No space left"):
        RunStore(run_1)
    assert (run_1 / "run.sqlite").read_bytes() == before
    assert sorted(p.name for p in run_1.iterdir() if "before" in p.name) == []


def test_a_run_of_a_newer_version_is_refused_by_readers_and_writers(run_1) -> None:
    with contextlib.closing(sqlite3.connect(run_1 / "run.sqlite")) as db, db:
        db.execute("UPDATE meta SET value = '3' WHERE name = 'schema_version'")
    for opening in (RunReader, RunStore):
        with pytest.raises(StoreError, match="store version 3") as refused:
            opening(run_1)
        assert "newer" in str(refused.value)


@pytest.fixture
def read_only(tmp_path: Path):
    """Runs of version 1 on a mount that can't be written; needs the right to mount."""
    folder = tmp_path / "runs"
    shutil.copytree(STORED, folder)
    options = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here: root only")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_read_only_mount_it_shows_gates_compares_exports_and_reports(
    read_only: Path, quick_cli: Cli, tmp_path: Path
) -> None:
    assert not os.access(read_only / "base", os.W_OK) or _refuses(read_only)
    shutil.copy(FIRST_RUNS / "gate.yaml", tmp_path)
    for command, code in (
        (("show", "base"), 0),
        (("show", "base", "demo_math-1"), 0),
        (("gate", "gated_base", "gated_cand", "--policy", "gate.yaml"), 3),
        (("compare", "gated_base", "gated_cand"), 0),
        (("export", "base", "--to", "jsonl"), 0),
        (("export", "gated_base", "--to", "gate", "--out", "gate.json"), 0),
        (("report", "gated_base", "gated_cand", "--out", "pages"), 0),
    ):
        result = quick_cli(*command)
        assert result.returncode == code, (command, result.stderr)
    assert version_of_bytes(read_only / "base") == version_of_bytes(STORED / "base")


def _refuses(folder: Path) -> bool:
    try:
        (folder / "probe").touch()
    except OSError:
        return True
    return False


def version_of_bytes(folder: Path) -> bytes:
    return (folder / "run.sqlite").read_bytes()
