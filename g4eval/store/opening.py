"""Open a run's database for reading: never writing, also from a folder that can't be written."""

import sqlite3
from pathlib import Path
from typing import NoReturn

from g4eval.errors import StoreError
from g4eval.store import schema
from g4eval.store.birth import DATABASE, HALF_MADE
from g4eval.store.damage import DAMAGE, HINT


def open_to_read(folder: Path) -> sqlite3.Connection:
    """Return a connection to a run's database; raises StoreError where there is none to read."""
    path = folder / DATABASE
    if path.with_name(HALF_MADE).exists() and not path.is_file():
        _refuse_half_made(folder)
    if not path.is_file():
        raise StoreError("there is no run here", where=folder, hint="give the folder of a run")
    failure: sqlite3.Error | None = None
    ways = ["mode=ro"]
    log = path.with_name(f"{DATABASE}-wal")
    if not (log.exists() and log.stat().st_size):
        ways.append("mode=ro&immutable=1")  # a folder that can't be written, and nothing to recover
    for options in ways:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True)
        try:
            db.execute("SELECT 1 FROM meta").fetchone()
        except sqlite3.OperationalError as error:
            db.close()
            failure = error
        except DAMAGE as error:  # also in its own schema, which may be no text any more
            db.close()
            raise StoreError(f"the run can't be read: {error}", where=path, hint=HINT) from error
        else:
            return db
    if str(failure).startswith("no such table"):  # older versions made a run under its own name
        _refuse_half_made(folder)
    raise StoreError(f"the run can't be read: {failure}", where=path) from failure


def version_of(db: sqlite3.Connection, folder: Path) -> int:
    """Return the version of a run's tables; raises StoreError for one newer than this g4eval."""
    row = db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    version = 1 if row is None else int(row[0])
    if version > schema.SCHEMA_VERSION:
        raise StoreError(
            f"the run is of store version {version}, and this g4eval knows {schema.SCHEMA_VERSION}",
            where=folder,
            hint="use the g4eval that wrote it, or a newer one",
        )
    return version


def _refuse_half_made(folder: Path) -> NoReturn:
    raise StoreError(
        "the run is only being made: nothing is stored yet",
        where=folder,
        hint="try again in a moment; if it was stopped there, its command makes it anew",
    )
