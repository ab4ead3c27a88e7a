"""A run is there whole or not at all; what was left half-made is made again."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from g4eval.config import RunConfig
from g4eval.errors import StoreError
from g4eval.session import run_session
from g4eval.store.birth import Birth, has_run, make_run
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore
from tests.conftest import Cli

RUN = ("run", "demo_math", "--engine", "fake", "--limit", "4", "--run-id", "r")


def test_a_run_has_its_tables_manifest_and_plan_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("g4eval.session.write_manifest", stop)
    config = RunConfig(tasks=("demo_math",), engine="fake", runs_dir=tmp_path, run_id="r")
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run_session(config, Silent()))
    with RunReader(tmp_path / "r") as run:
        assert run.manifest().run_id == "r"
        assert len(run.samples("demo_math")) == 16


class Silent:
    def note(self, message: str) -> None: ...

    def start(self, *_: object) -> Any: ...

    def stop(self) -> None: ...


def test_a_run_whose_making_fails_is_not_there(tmp_path: Path) -> None:
    broken = Birth(rows=(("INSERT INTO nothing VALUES (1)", ()),))
    with pytest.raises(sqlite3.Error):
        make_run(tmp_path, lambda: broken)
    assert not list(tmp_path.iterdir())
    assert not has_run(tmp_path)
    assert make_run(tmp_path, Birth)
    assert has_run(tmp_path)
    assert not make_run(tmp_path, lambda: broken)


@pytest.mark.parametrize("left", ["making", "making with journal", "empty", "no tables", "wal"])
def test_a_half_made_run_is_made_again_by_the_same_command(
    quick_cli: Cli, tmp_path: Path, left: str
) -> None:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    if left.startswith("making"):
        (folder / "run.sqlite.making").write_bytes(b"SQLite format 3\0 half of a page")
        (folder / "run.sqlite.making-journal").write_bytes(b"x" * 512)
    elif left == "empty":
        (folder / "run.sqlite").touch()
    else:  # as older versions left it: opened, and no table yet
        with closing(sqlite3.connect(folder / "run.sqlite")) as db:
            db.execute("PRAGMA journal_mode = WAL" if left == "wal" else "PRAGMA user_version = 1")
    shown = quick_cli("show", str(folder))
    assert shown.returncode in (2, 5)
    made = quick_cli(*RUN)
    assert made.returncode == 0, made.stderr
    assert not list(folder.glob("*.making*"))
    assert "demo_math" in quick_cli("show", "r").stdout


def test_a_database_that_is_none_is_not_thrown_away(quick_cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "run.sqlite").write_bytes(b"\0" * 8192)
    made = quick_cli(*RUN)
    assert made.returncode == 5, made.stderr
    assert "bug" not in made.stderr
    assert (folder / "run.sqlite").read_bytes() == b"\0" * 8192


def test_reading_a_run_that_is_being_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite.making").touch()
    with pytest.raises(StoreError, match="only being made"):
        RunReader(tmp_path)
    with RunStore(tmp_path) as store:
        assert store.is_new
