"""How a run comes into being: its database is made under another name and renamed when it is whole.

So a run.sqlite always has its tables, its manifest and its plan. What a kill or a full disk leaves
half-made is thrown away by the next writer, who holds the lock, and made again.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g4eval.errors import StoreError
from g4eval.store import schema

DATABASE = "run.sqlite"
HALF_MADE = "run.sqlite.making"
SIDE_FILES = ("", "-journal", "-wal", "-shm")

Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What a run holds from its first moment on."""

    meta: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Statement, ...] = ()  # of tasks and samples


def has_run(folder: Path) -> bool:
    """Whether a run is stored here; a half-made one is none."""
    path = folder / DATABASE
    if not path.is_file():
        return False
    try:
        return not _is_half_made(path)
    except sqlite3.DatabaseError:
        return True  # a damaged one, which its reader will name


def make_run(folder: Path, birth: Callable[[], Birth]) -> bool:
    """Make the database of a run that has none; False: it is there. The caller holds the lock."""
    path, draft = folder / DATABASE, folder / HALF_MADE
    remove(draft)
    if path.is_file() and not _is_half_made(path):
        return False
    remove(path)  # by an older version, which had no other name for it
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN")
            for statement in schema.statements():
                db.execute(statement)
            schema.add_columns(db)
            for sql, values in _all_of(birth()):
                db.execute(sql, values)
            db.execute("COMMIT")
        draft.rename(path)
        settle(folder)
    except (OSError, sqlite3.Error):
        remove(draft)
        raise
    return True


def _all_of(birth: Birth) -> Iterator[Statement]:
    meta = {"schema_version": str(schema.SCHEMA_VERSION), **birth.meta}
    for name, value in meta.items():
        hashed = schema.row_hash(name, value)
        yield "INSERT INTO meta (name, value, row_hash) VALUES (?, ?, ?)", (name, value, hashed)
    yield from birth.rows


def _is_half_made(path: Path) -> bool:
    """Whether a database has no table yet; raises sqlite3.DatabaseError where it is none."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        try:
            found = db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError:  # a folder that can't be written, or a lock: not ours
            return False
    return found is None


def remove(path: Path) -> None:
    """Remove a database with its side files; raises StoreError where that is not allowed."""
    try:
        for suffix in SIDE_FILES:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"can't be removed: {error.strerror}", where=path) from error


def settle(folder: Path) -> None:
    """Make the new name last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
