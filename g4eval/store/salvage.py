"""Take what is whole of a damaged run into a new one, and gated prompt ids out of a whole one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from g4eval.errors import StoreError
from g4eval.store import schema
from g4eval.store.birth import DATABASE, Birth, Statement, has_run
from g4eval.store.checking import TABLES, CheckedRun, Row
from g4eval.store.manifest import write_manifest
from g4eval.store.run_store import RunStore


def salvage(found: CheckedRun, target: Path) -> Path:
    """Write the rows that are whole into a new run, which the run's own command continues.

    `found` was made with its rows kept. Raises StoreError where the target is a run already, or
    where what a run can't be without, its plan, is lost.
    """
    if has_run(target):
        raise StoreError("there is a run already", where=target, hint="move it away first")
    if not found.rows["tasks"]:
        raise StoreError(
            "no task's plan can be read", where=found.folder, hint="take it from a copy"
        )
    with RunStore(target, lambda: Birth(rows=tuple(_statements(found, target.name)))) as store:
        if "manifest" in store.meta():
            write_manifest(target, store.manifest().as_json())
    return target


def blank_gated_ids(folder: Path) -> int:
    """Take prompt token ids of gated tasks out of a whole run; return of how many completions.

    Their hash and count stay. The freed pages are overwritten.
    """
    with RunStore(folder):  # the lock, and columns that an older run lacks
        pass
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = ON")
        rows = db.execute(
            "SELECT c.id, c.prompt_token_ids FROM completions c JOIN prompts p "
            "ON p.prompt_hash = c.prompt_hash AND p.messages IS NULL "
            "WHERE c.prompt_token_ids IS NOT NULL"
        ).fetchall()
        db.execute("BEGIN IMMEDIATE")
        for row, frame in rows:
            hashed = schema.ids_hash(schema.unpack_ids(frame))
            db.execute(
                "UPDATE completions SET prompt_token_ids = NULL, "
                "prompt_ids_hash = COALESCE(prompt_ids_hash, ?) WHERE id = ?",
                (hashed, row),
            )
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("VACUUM")
    return len(rows)


def _statements(found: CheckedRun, run_id: str) -> Iterator[Statement]:
    """Yield the inserts of all rows but the schema's own, under the new run's name."""
    keys = {row["key"] for row in found.rows["completions"]}
    ends = {(*_place(row), row.get("step", 0)) for row in found.rows["completions"]}
    for table in TABLES:
        rows = found.rows.get(table, [])
        if table == "tries" and table not in found.rows:  # of version 1: each was a whole try
            rows = [{**_try(row), "state": "finished"} for row in found.rows["completions"]]
        for row in sorted(rows, key=lambda row: row.get("id", 0)):
            values = dict(row)
            if table == "meta":
                if values["name"] == "schema_version":
                    continue
                values = _renamed(values, run_id)
            if table == "grades" and values["key"] not in keys:
                continue  # its completion is lost, and is made again
            is_end = table == "tries" and values["state"] == "finished"
            if is_end and (*_place(row), values["last_step"]) not in ends:
                continue  # its end is lost, and is made again
            for number in ("rowid", "id"):  # numbered anew, in the same order
                values.pop(number, None)
            names = ", ".join(values)
            marks = ", ".join("?" * len(values))
            yield f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())


def _place(row: Row) -> tuple[Any, ...]:
    return row["task_id"], row["sample_id"], row["repeat"]


def _try(row: Row) -> dict[str, Any]:
    names = ("task_id", "sample_id", "repeat")
    return {**{name: row[name] for name in names}, "last_step": 0}


def _renamed(values: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Return a row of meta with the new run's id."""
    if values["name"] == "run_id":
        values["value"] = run_id
    if values["name"] == "manifest":
        values["value"] = json.dumps({**json.loads(values["value"]), "run_id": run_id})
    return {**values, "row_hash": schema.row_hash(values["name"], values["value"])}
