"""`g4eval check`: is a stored run what was written, and what of it can still be read?

Every row is read by itself, so that one damaged page hides no other; nothing is written here.
store/salvage.py takes what is whole into a new run.
"""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g4eval.errors import G4EvalError, StoreError
from g4eval.fingerprint import prompt_hash, sha256_json
from g4eval.store import schema
from g4eval.store.birth import DATABASE
from g4eval.store.damage import DAMAGE, check_tries
from g4eval.store.manifest import MANIFEST, read_manifest
from g4eval.store.stored import Manifest, StoredPlan
from g4eval.store.verdicts import Calibration, VerdictRecord

# Table -> its key, by which single rows are asked for where a scan fails.
TABLES = {
    "meta": "rowid",
    "tasks": "rowid",
    "samples": None,  # without rowid: read from both ends
    "prompts": None,
    "completions": "id",
    "grades": "id",
    "attempts": "id",
    "tries": None,
    "tool_results": "id",
    "sessions": "id",
}
ORDERS = {  # of tables without rowid
    "samples": "task_id, sample_id",
    "prompts": "prompt_hash",
    "tries": "task_id, sample_id, repeat",
}
HASHED = {
    "meta": "name, value",
    "tasks": "task_id, record",
    "samples": "task_id, sample_id, position, target, groups",
    "completions": schema.HASHED_OF_A_COMPLETION,
    "grades": f"{schema.GRADE_COLUMNS}, graded_at",
    "attempts": "key, task_id, sample_id, repeat, error, at, refused",
}
SHOWN = 5  # findings of a kind
MOST_GAPS = 2_000  # numbers that no row answers to, one after the other, before giving up

MOST_ROWS = 10_000_000  # as far as a damaged table's highest number is believed

Row = Mapping[str, Any]


@dataclass(slots=True)
class CheckedRun:
    """What a check found."""

    folder: Path
    damage: list[str] = field(default_factory=list)  # not what was written
    notes: list[str] = field(default_factory=list)  # whole, and worth knowing
    rows: dict[str, list[Row]] = field(default_factory=dict)  # kept where they are to be salvaged
    whole: Counter[str] = field(default_factory=Counter)  # rows that can be read, by table
    broken: Counter[str] = field(default_factory=Counter)
    gated_prompts: set[str] = field(default_factory=set)
    gated_ids: int = 0  # completions of gated tasks that hold prompt token ids

    def as_json(self) -> dict[str, Any]:
        """Return what `g4eval check --json` prints."""
        return {
            "run": str(self.folder),
            "is_whole": not self.damage,
            "damage": self.damage,
            "notes": self.notes,
            "rows": dict(self.whole),
            "damaged_rows": dict(self.broken),
        }


def check_run(folder: Path, *, keep_rows: bool = False) -> CheckedRun:
    """Check a run folder; raises StoreError where its database can't be opened at all."""
    found = CheckedRun(folder)
    path = folder / DATABASE
    if not path.is_file():
        raise StoreError("there is no run here", where=folder, hint="give the folder of a run")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        db.text_factory = _text  # what isn't UTF-8 any more has another hash, and is named by it
        _check_pages(db, found)
        tables = _tables_of(db)
        for table in tables:
            _check_table(db, table, found, keep_rows=keep_rows)
        if "tries" in tables:
            _check_ends(db, found)
    _check_files(folder, found)
    if not found.whole["tasks"] and not found.whole["completions"]:
        raise StoreError("nothing of the run can be read", where=path, hint="take it from a copy")
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _check_pages(db: sqlite3.Connection, found: CheckedRun) -> None:
    try:
        told = [row[0] for row in db.execute(f"PRAGMA integrity_check({SHOWN})")]
    except DAMAGE as error:
        found.damage.append(f"database: {_words(error)}")
        return
    if told != ["ok"]:
        found.damage += [f"database: {line}" for text in told for line in text.splitlines()]


def _tables_of(db: sqlite3.Connection) -> list[str]:
    """Return the tables that a run should have; version 1 knew no tries."""
    try:
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    except DAMAGE:
        return list(TABLES)
    added_later = {"tries", "tool_results"} - there
    return [table for table in TABLES if table not in added_later]


def _check_ends(db: sqlite3.Connection, found: CheckedRun) -> None:
    try:
        check_tries(db)
    except DAMAGE as error:
        found.damage.append(f"tries: {_words(error)}")


def _check_table(db: sqlite3.Connection, table: str, found: CheckedRun, *, keep_rows: bool) -> None:
    """Read each row of a table, compare its hashes, and look for gaps where rows were."""
    kept: list[Row] = []
    last = 0
    for row in _rows(db, table, found):
        try:
            _check_row(table, row)
            _note_gated(table, row, found)
            last = max(last, row["id"]) if TABLES[table] == "id" else 0
        except (*DAMAGE, StoreError) as error:
            found.broken[table] += 1
            if found.broken[table] <= SHOWN:
                found.damage.append(f"{table}: {_words(error)}")
            continue
        found.whole[table] += 1
        if keep_rows:
            kept.append(row)
    lost = last - found.whole[table] - found.broken[table]
    if TABLES[table] == "id" and lost > 0:  # rows are numbered without gaps, and never deleted
        found.damage.append(f"{table}: {lost:,} rows are gone")
    found.rows[table] = kept


def _rows(db: sqlite3.Connection, table: str, found: CheckedRun) -> Iterator[Row]:
    """Yield a table's rows; behind a damaged page go on row by row, or from the other end."""
    key = TABLES[table]
    order = key or ORDERS[table]
    seen: set[Any] = set()
    columns = "*" if key != "rowid" else "rowid, *"
    try:
        for row in db.execute(f"SELECT {columns} FROM {table} NOT INDEXED ORDER BY {order}"):
            seen.add(_identity(row, order))
            yield dict(row)
    except DAMAGE as error:
        found.damage.append(f"{table}: {_words(error)}")
        if key is None:
            yield from _from_the_end(db, table, order, seen)
        else:
            yield from _one_by_one(db, table, key, seen)


def _from_the_end(db: sqlite3.Connection, table: str, order: str, seen: set[Any]) -> Iterator[Row]:
    """Yield the rows behind a damaged page, last first, as far as they can be read."""
    back = ", ".join(f"{name} DESC" for name in order.split(", "))
    with contextlib.suppress(*DAMAGE):
        for row in db.execute(f"SELECT * FROM {table} ORDER BY {back}"):
            if _identity(row, order) not in seen:
                yield dict(row)


def _one_by_one(db: sqlite3.Connection, table: str, key: str, seen: set[Any]) -> Iterator[Row]:
    """Yield the rows that can be asked for by their number, until many in a row are not there."""
    number = misses = most = 0
    with contextlib.suppress(*DAMAGE):
        most = min(int(db.execute(f"SELECT MAX({key}) FROM {table}").fetchone()[0]), MOST_ROWS)
    while misses < MOST_GAPS or number < most:
        number += 1
        if (number,) in seen:
            misses = 0
            continue
        try:
            row = db.execute(
                f"SELECT {key}, * FROM {table} NOT INDEXED WHERE {key} = ?", (number,)
            ).fetchone()
        except DAMAGE:
            row = None
        misses = 0 if row is not None else misses + 1
        if row is not None:
            yield dict(row)


def _identity(row: sqlite3.Row, order: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in order.split(", "))


def _check_row(table: str, row: Row) -> None:
    """Raise what damage raises where a row isn't what was written."""
    if table in HASHED and row.get("row_hash") is not None:
        values = [row.get(name) for name in HASHED[table].split(", ")]
        if table == "completions":  # a row of one step has the hash that it had without steps
            values[HASHED[table].split(", ").index("step")] = row.get("step") or None
        if schema.row_hash(*values) != row["row_hash"]:
            raise ValueError(f"{_name(row)} is not what was written (its hash is another)")
    match table:
        case "tasks":
            StoredPlan.parse(json.loads(row["record"]), where=row["task_id"])
        case "prompts" if row["messages"] is not None:
            if prompt_hash(schema.unpack_prompt(row["messages"])) != row["prompt_hash"]:
                raise ValueError(f"prompt {row['prompt_hash'][:12]} is not what was written")
        case "completions":
            _check_completion(row)
        case "grades":
            schema.row_grade([row[name] for name in schema.GRADE_COLUMNS.split(", ")])
        case _:
            return


def _check_completion(row: Row) -> None:
    names = [*schema.COMPLETION_COLUMNS.split(", "), "text_hash"]
    added: list[Any] = [row.get(name) for name in ("finish_word", "model", "rest_hash")]
    added += [row.get("step", 0), row.get("logprobs"), row.get("is_greedy")]
    completion = schema.row_completion([*(row[name] for name in names), *added])
    kept = row.get("prompt_ids_hash")
    ids = completion.prompt_token_ids
    if kept is not None and ids is not None and schema.ids_hash(ids) != kept:
        raise ValueError(f"prompt token ids of {_name(row)} are not what was written")


def _note_gated(table: str, row: Row, found: CheckedRun) -> None:
    """Count prompt token ids of gated tasks: a prompt without its text is a gated one."""
    if table == "prompts" and row["messages"] is None:
        found.gated_prompts.add(row["prompt_hash"])
    if table == "completions" and row["prompt_token_ids"] is not None:
        found.gated_ids += row["prompt_hash"] in found.gated_prompts


def _check_files(folder: Path, found: CheckedRun) -> None:
    """Check the JSON files beside the database."""
    readers: Sequence[tuple[str, Any]] = (
        (MANIFEST, read_manifest),
        ("verdict*.json", VerdictRecord.read),
        ("calibration.json", Calibration.read),
    )
    for pattern, read in readers:
        for path in sorted(folder.glob(pattern)):
            try:
                record = read(path)
            except G4EvalError as error:
                found.damage.append(f"{path.name}: {error.what}")
                continue
            if isinstance(record, Manifest):
                _check_manifest(record, found)
    if not (folder / MANIFEST).exists():
        found.notes.append(f"{MANIFEST} is not there: the next session of the run writes it again")
    if found.gated_ids:
        found.notes.append(
            f"{found.gated_ids:,} completions of gated tasks hold prompt token ids, which decode "
            "to the questions: --repair takes them out"
        )


def _check_manifest(manifest: Manifest, found: CheckedRun) -> None:
    stored = manifest.engine.fingerprint
    if stored and stored != sha256_json(manifest.engine.facts):
        found.damage.append(f"{MANIFEST}: the engine's facts don't give its fingerprint")


def _name(row: Row) -> str:
    for names in (("sample_id", "repeat"), ("key",), ("task_id",), ("name",)):
        if all(name in row for name in names):
            return "/".join(str(row[name])[:40] for name in names)
    return "a row"


def _words(error: BaseException) -> str:
    return error.what if isinstance(error, StoreError) else str(error) or type(error).__name__
