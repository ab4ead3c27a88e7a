"""Bring a run of an older version to today's tables: under the writer's lock, after a copy.

Readers never come here: they read every version as it is. The copy, `run.sqlite.before`, is on the
disk before anything is changed, and stays until the first commit after the change.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from g4eval.store import schema
from g4eval.store.birth import DATABASE, settle
from g4eval.store.opening import version_of

COPY = "run.sqlite.before"

_TRIES_OF_VERSION_1 = """
INSERT OR IGNORE INTO tries SELECT task_id, sample_id, repeat, 'finished', 0 FROM completions;
INSERT OR IGNORE INTO tries SELECT task_id, sample_id, repeat, 'failed', 0 FROM attempts;
"""


def migrate(folder: Path) -> None:
    """Bring the run in `folder` up to date; one that is changes nothing but missing columns.

    The caller holds the lock. Raises StoreError for a run of a newer version, OSError or
    sqlite3.Error where the disk refuses: then the run is as it was.
    """
    path = folder / DATABASE
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        version = version_of(db, folder)
        db.execute("PRAGMA synchronous = FULL")
        if version < schema.SCHEMA_VERSION:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _copy(path, folder / COPY)
        db.execute("BEGIN IMMEDIATE")
        try:
            if version < schema.VERSION_OF_TRIES:
                _add_tries(db)
            schema.add_columns(db)
            if version < schema.SCHEMA_VERSION:
                row = ("schema_version", str(schema.SCHEMA_VERSION))
                sql = "INSERT OR REPLACE INTO meta (name, value, row_hash) VALUES (?, ?, ?)"
                db.execute(sql, (*row, schema.row_hash(*row)))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def remove_copy(folder: Path) -> None:
    """Remove the copy of before a migration; what is there now has been written to."""
    (folder / COPY).unlink(missing_ok=True)


def _copy(path: Path, copy: Path) -> None:
    draft = copy.with_name(copy.name + ".part")
    try:
        with path.open("rb") as source, draft.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        draft.rename(copy)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    settle(copy.parent)


def _add_tries(db: sqlite3.Connection) -> None:
    """Make room for several steps a try; every completion was a try that had come to its end."""
    columns = ", ".join(sorted(schema.columns_of(db, "completions")))
    db.execute("ALTER TABLE completions RENAME TO completions_before")
    for statement in schema.statements():
        db.execute(statement)
    schema.add_columns(db)
    db.execute(f"INSERT INTO completions ({columns}) SELECT {columns} FROM completions_before")
    db.execute("DROP TABLE completions_before")
    for statement in _TRIES_OF_VERSION_1.split(";"):
        db.execute(statement)
