"""A damaged run is named as damaged: no bug, no hang, and never another table."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from g4eval.config import RunConfig
from g4eval.errors import StoreError
from g4eval.gating.load import arm_of_run
from g4eval.report.text_table import render_table
from g4eval.session import run_session
from g4eval.stats.summary import summarise
from g4eval.store.damage import DamagedError
from g4eval.store.export import export_rows
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore
from tests.unit.store.test_birth import Silent

SETTINGS = {"engine.accuracy": 0.6, "engine.failed_share": 0.05, "engine.token_ids": True}


class Quiet(Silent):
    def start(self, *_: object) -> Any:
        return lambda _: None


def make_run(folder: Path, **settings: object) -> Path:
    config = RunConfig.model_validate(
        {
            "tasks": ("demo_math", "demo_choice"),
            "engine": "fake",
            "runs_dir": folder,
            "run_id": "r",
            "repeats": 3,
            "set": {**SETTINGS, **settings},
        }
    )
    asyncio.run(run_session(config, Quiet()))
    return folder / "r"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


def all_that_is_shown(folder: Path) -> tuple[object, ...]:
    with RunReader(folder) as run:
        table = render_table(run, summarise(run))
        rows = list(export_rows(run, include_gated=True))
    arm = arm_of_run(folder)
    repeats = {name: (0, task.outcomes.shape[1]) for name, task in arm.tasks.items()}
    return table, repr(rows), arm.digest(repeats), arm.facts


def flipped(good: bytes, chance: random.Random) -> bytes:
    """One bit, or rarely a page of zeros or a file cut short."""
    data, place, kind = bytearray(good), chance.randrange(len(good)), chance.random()
    if kind < 0.9:
        data[place] ^= 1 << chance.randrange(8)
    elif kind < 0.95:
        start = place // 4096 * 4096
        data[start : start + 4096] = bytes(4096)
    else:
        del data[place:]
    return bytes(data)


def check_flips(made: Path, folder: Path, count: int, seed: int) -> dict[str, int]:
    good = (made / "run.sqlite").read_bytes()
    shown = all_that_is_shown(made)
    chance, found = random.Random(seed), {"same": 0, "named": 0}
    for _ in range(count):
        (folder / "run.sqlite").write_bytes(flipped(good, chance))
        try:
            assert all_that_is_shown(folder) == shown, "a flipped bit changed what is shown"
            found["same"] += 1
        except StoreError:
            found["named"] += 1
    return found


def test_a_flipped_bit_is_named_or_changes_nothing(made: Path, tmp_path: Path) -> None:
    found = check_flips(made, tmp_path, 80, seed=11)
    assert found["named"] > 20
    assert found["same"] > 10  # unused bytes, and copies that nothing is read from


@pytest.mark.slow
def test_three_thousand_flipped_bits_are_named_or_change_nothing(
    made: Path, tmp_path: Path
) -> None:
    assert check_flips(made, tmp_path, 3000, seed=12)["named"] > 1000


CHANGES = {
    "outcome": "UPDATE grades SET outcome = 'correct' WHERE id = (SELECT MIN(id) FROM grades "
    "WHERE outcome = 'incorrect')",
    "another word": "UPDATE grades SET outcome = 'perhaps' WHERE id = 1",
    "repeat": "UPDATE completions SET repeat = 7 WHERE id = 1",
    "stop reason": "UPDATE completions SET stop_reason = 'length' WHERE id = 1",
    "tokens": "UPDATE completions SET completion_tokens = 9e99 WHERE id = 1",
    "plan": "UPDATE tasks SET record = replace(record, '\"repeats\": 3', '\"repeats\": 2')",
    "group": 'UPDATE samples SET groups = \'{"a": "b"}\' WHERE position = 1',
    "manifest": "UPDATE meta SET value = replace(value, 'fake', 'vllm') WHERE name = 'manifest'",
    "refused": "UPDATE attempts SET refused = 1",
    "a try": "UPDATE tries SET state = 'finisxed' WHERE repeat = 1",
    "whose try": "UPDATE tries SET repeat = 9 WHERE repeat = 1",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_value_is_named(made: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "run.sqlite").write_bytes((made / "run.sqlite").read_bytes())
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db, db:
        assert db.execute(CHANGES[what]).rowcount > 0
    with pytest.raises(DamagedError, match="not what was written") as refused:
        all_that_is_shown(tmp_path)
    assert "g4eval check" in (refused.value.hint or "")


OLDER = {
    "type": "UPDATE completions SET completion_tokens = 'many' WHERE id = 1",
    "enum": "UPDATE completions SET thought = 'deep' WHERE id = 1",
    "json": "UPDATE samples SET groups = '{' WHERE position = 1",
    "other json": "UPDATE samples SET groups = '[]' WHERE position = 1",
    "details": "UPDATE grades SET details = '[1' WHERE id = 1",
    "blob": "UPDATE completions SET text = x'00ff' WHERE id = 1",
    "huge frame": "UPDATE completions SET text = x'28b52ffde0ffffffffffffff7f010000' WHERE id = 1",
    "no frame": "UPDATE completions SET text = 'plain' WHERE id = 1",
    "plan": "UPDATE tasks SET record = '{}'",
    "manifest": "UPDATE meta SET value = '[[[[' WHERE name = 'manifest'",
}


@pytest.mark.parametrize("what", OLDER)
def test_a_run_without_hashes_is_checked_for_its_types(
    made: Path, tmp_path: Path, what: str
) -> None:
    (tmp_path / "run.sqlite").write_bytes((made / "run.sqlite").read_bytes())
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db, db:
        for table in ("completions", "grades", "samples", "tasks", "meta", "attempts"):
            db.execute(f"UPDATE {table} SET row_hash = NULL")
        assert db.execute(OLDER[what]).rowcount > 0
    with pytest.raises(StoreError):
        all_that_is_shown(tmp_path)


def test_a_schema_that_is_no_text_is_named(made: Path, tmp_path: Path) -> None:
    data = (made / "run.sqlite").read_bytes()
    (tmp_path / "run.sqlite").write_bytes(data.replace(b"CREATE TABLE", b"CREATE\xccTABLE", 1))
    with pytest.raises(StoreError, match=r"can't be read|damaged"):
        all_that_is_shown(tmp_path)


def test_a_damaged_run_is_refused_by_its_writer_with_the_same_words(
    made: Path, tmp_path: Path
) -> None:
    data = bytearray((made / "run.sqlite").read_bytes())
    data[100:4096] = bytes(3996)  # the list of its tables
    (tmp_path / "run.sqlite").write_bytes(bytes(data))
    with pytest.raises(StoreError):
        RunStore(tmp_path)
    assert (tmp_path / "run.sqlite").stat().st_size == len(data), "it was thrown away"


def test_a_completion_of_a_sample_that_is_gone_is_named(made: Path, tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").write_bytes((made / "run.sqlite").read_bytes())
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db, db:
        db.execute("DELETE FROM samples WHERE position = 2")
    with pytest.raises(DamagedError, match="which is no sample of its task"):
        all_that_is_shown(tmp_path)
