"""`g4eval check`: what is damaged, what can still be read, and a new run of it."""

import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from g4eval.store import schema
from g4eval.store.checking import check_run
from g4eval.store.reader import RunReader
from tests.conftest import ROOT, Cli
from tests.unit.store.test_damage import flipped, make_run

RUN = ("run", "demo_math", "demo_choice", "--engine", "fake", "--repeats", "3")
SETTINGS = ("--set", "engine.accuracy=0.6", "--set", "engine.token_ids=true")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs", **{"engine.failed_share": 0.0})


def change(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db, db:
        assert db.execute(sql).rowcount > 0


def test_a_whole_run_is_said_to_be_whole(folder: Path, quick_cli: Cli) -> None:
    found = quick_cli("check", "r")
    assert found.returncode == 0, found.stdout
    assert found.stdout.splitlines()[-1] == "the run is whole"
    assert "completions: 90 rows can be read" in found.stdout
    assert json.loads(quick_cli("check", "r", "--json").stdout)["is_whole"] is True


DAMAGE = {
    "a grade": ("UPDATE grades SET outcome = 'no_answer' WHERE id = 3", "grades: "),
    "a text": ("UPDATE completions SET text = x'28b52ffd' WHERE id = 3", "completions: "),
    "token ids": ("UPDATE completions SET token_ids = NULL WHERE id = 3", "token ids"),
    "a prompt": ("UPDATE prompts SET messages = (SELECT messages FROM prompts LIMIT 1)", "prompt"),
    "a lost row": ("DELETE FROM completions WHERE id = 3", "completions: 1 rows are gone"),
    "a plan": ("UPDATE tasks SET record = replace(record, '3', '4')", "tasks: "),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_and_the_rest_is_salvaged_and_continued(
    folder: Path, quick_cli: Cli, what: str
) -> None:
    table = quick_cli("show", "r").stdout
    sql, named = DAMAGE[what]
    if what == "a plan":
        sql += " WHERE task_id = 'demo_choice'"
    change(folder, sql)
    before = (folder / "run.sqlite").read_bytes()
    found = quick_cli("check", "r")
    assert found.returncode == 5
    assert any(named in line for line in found.stdout.splitlines() if "damaged: " in line)
    repaired = quick_cli("check", "r", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert (folder / "run.sqlite").read_bytes() == before, "a damaged run was changed"
    assert quick_cli("check", "r-salvaged").returncode == 0
    again = quick_cli(*RUN, *SETTINGS, "--run-id", "r-salvaged")
    assert again.returncode == 0, again.stderr
    assert again.stdout.replace("r-salvaged", "r") == table


def test_a_zeroed_page_costs_the_rows_on_it_alone(folder: Path, tmp_path: Path) -> None:
    path = folder / "run.sqlite"
    good = path.read_bytes()
    chance, read = random.Random(1), []
    for _ in range(12):
        page = chance.randrange(1, len(good) // 4096) * 4096
        path.write_bytes(good[:page] + bytes(4096) + good[page + 4096 :])
        found = check_run(folder, keep_rows=True)
        assert found.damage
        read.append(found.whole["completions"] + found.whole["grades"])
    assert min(read) > 40
    assert sum(read) / len(read) > 140  # of 180


def test_a_check_of_random_damage_never_ends_in_a_bug(folder: Path, quick_cli: Cli) -> None:
    good, chance = (folder / "run.sqlite").read_bytes(), random.Random(3)
    for _ in range(25):
        (folder / "run.sqlite").write_bytes(flipped(good, chance))
        shutil.rmtree(folder.with_name("r-salvaged"), ignore_errors=True)
        found = quick_cli("check", "r", "--repair")
        assert found.returncode in (0, 5), found.stderr


def test_gated_prompt_ids_of_an_older_run_are_taken_out(quick_cli: Cli, tmp_path: Path) -> None:
    stored = ROOT / "tests" / "fixtures" / "first_runs" / "stored" / "gated_base"
    shutil.copytree(stored, tmp_path / "runs" / "old")
    path = tmp_path / "runs" / "old" / "run.sqlite"
    table = quick_cli("show", "old").stdout
    with closing(sqlite3.connect(path)) as db:
        kept = dict(db.execute(
            "SELECT c.key, c.prompt_token_ids FROM completions c JOIN prompts p "
            "ON p.prompt_hash = c.prompt_hash WHERE p.messages IS NULL "
            "AND c.prompt_token_ids IS NOT NULL"
        ).fetchall())  # fmt: skip
    assert kept
    assert f"{len(kept)} completions of gated tasks" in quick_cli("check", "old").stdout
    assert quick_cli("check", "old", "--repair").returncode == 0
    data = path.read_bytes()
    assert not [frame for frame in kept.values() if len(frame) > 16 and frame in data]
    with closing(sqlite3.connect(path)) as db:
        for key, frame in kept.items():
            row = db.execute(
                "SELECT prompt_token_ids, prompt_ids_hash FROM completions WHERE key = ?", (key,)
            ).fetchone()
            assert row == (None, schema.ids_hash(schema.unpack_ids(frame)))
    assert quick_cli("show", "old").stdout == table
    with RunReader(path.parent) as run:
        assert run.manifest().run_id
