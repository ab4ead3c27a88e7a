"""The border of a run's database: what can't be read from it is named as damage, not as a bug.

Every method of the reader that reads rows is wrapped once, by `bordered`. A row of a run made by
0.2.0 or later has a hash over its values; a row of an older run is checked for its types.
"""

import functools
import inspect
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import zstandard

from g4eval.errors import StoreError
from g4eval.store import schema

Method = TypeVar("Method", bound=Callable[..., Any])

# What reading a damaged row raises, once its parser has no value it knows: enums, frames, JSON,
# UTF-8, arithmetic on another type.
DAMAGE = (
    sqlite3.DatabaseError,
    zstandard.ZstdError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)
CHECKED_BYTES = 64 * 2**20  # a database up to this size is checked whole before its table is read
HINT = (
    "g4eval check RUN says what can still be read, and with --repair takes it into a new run; "
    "a copy made before is better"
)


class DamagedError(StoreError):
    """A run's database isn't what was written."""


def bordered(method: Method) -> Method:
    """Wrap a reader's method, or generator of rows: what damage raises becomes DamagedError."""

    @functools.wraps(method)
    def rows(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from method(self, *args, **kwargs)
        except DAMAGE as error:
            raise damaged(self.folder, error) from error

    @functools.wraps(method)
    def value(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except DAMAGE as error:
            raise damaged(self.folder, error) from error

    return cast("Method", rows if inspect.isgeneratorfunction(method) else value)


def damaged(folder: Path, error: BaseException) -> BaseException:
    """Return what a reader raises for an error: damage, unless it is a mistake of ours."""
    if isinstance(error, sqlite3.ProgrammingError):  # such as a closed database
        return error
    words = str(error) or type(error).__name__
    return DamagedError(f"the run is damaged: {words}", where=folder / "run.sqlite", hint=HINT)


def check_row(values: Sequence[Any], stored_hash: object, kinds: Iterable[type], what: str) -> None:
    """Raise ValueError where a row's hash is another; without one, where a type is off.

    kinds: the type of each value of a row without hash; None is allowed everywhere.
    """
    if stored_hash is not None:
        if schema.row_hash(*values) != stored_hash:
            raise ValueError(f"{what} is not what was written (its hash is another)")
        return
    for value, kind in zip(values, kinds, strict=False):
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{what} holds {type(value).__name__} where {kind.__name__} belongs")


def check_tries(db: sqlite3.Connection) -> None:
    """Raise ValueError where a try's state is none, or it lacks the completion it ended with.

    Rows of tries have no hash: who they are of is held against completions, and the rest is a word.
    """
    other = db.execute(
        "SELECT sample_id, repeat, state FROM tries WHERE state NOT IN ('finished', 'failed')"
    ).fetchone()
    if other is not None:
        raise ValueError(f"the state of {other[0]!r}/{other[1]} is not what was written")
    lost = db.execute(
        "SELECT sample_id, repeat FROM tries t WHERE state = 'finished' AND NOT EXISTS "
        "(SELECT 1 FROM completions c WHERE c.task_id = t.task_id AND c.sample_id = t.sample_id "
        "AND c.repeat = t.repeat AND c.step = t.last_step) LIMIT 1"
    ).fetchone()
    if lost is not None:
        raise ValueError(f"the end of {lost[0]!r}/{lost[1]} is not what was written: it is missing")


def check_whole(db: sqlite3.Connection, path: Path) -> None:
    """Raise ValueError where the pages or indexes of a database don't fit together.

    Larger ones than CHECKED_BYTES are left to `g4eval check`: their rows are checked all the same.
    Also where a planned task has a completion or an attempt at a sample that it hasn't.
    """
    for table in ("completions", "attempts"):
        lost = db.execute(
            f"SELECT sample_id FROM {table} t WHERE task_id IN (SELECT task_id FROM tasks) AND NOT "
            "EXISTS (SELECT 1 FROM samples s WHERE s.task_id = t.task_id AND "
            "s.sample_id = t.sample_id) LIMIT 1"
        ).fetchone()
        if lost is not None:
            raise ValueError(f"{table} has {lost[0]!r}, which is no sample of its task")
    if path.stat().st_size > CHECKED_BYTES:
        return
    found = [text for (text,) in db.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise ValueError("; ".join(found).replace("\n", " "))
