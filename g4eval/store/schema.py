"""The tables of run.sqlite, and how records become rows and rows records.

Long texts are zstd frames, token ids zstd frames of little-endian int32; the rest is plain, so any
SQLite tool can read outcomes and counts. docs/store.md explains the tables.
"""

import json
import sqlite3
import threading
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import zstandard

from g4eval.records import Completion, Grade, Message, Outcome, StopReason, Thought

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (task_id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
  task_id TEXT NOT NULL, sample_id TEXT NOT NULL, position INTEGER NOT NULL,
  target TEXT, groups TEXT NOT NULL, PRIMARY KEY (task_id, sample_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prompts (prompt_hash TEXT PRIMARY KEY, messages BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS completions (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
  task_id TEXT NOT NULL, sample_id TEXT NOT NULL, repeat INTEGER NOT NULL,
  prompt_hash TEXT, stop_reason TEXT NOT NULL, thought TEXT NOT NULL,
  text BLOB NOT NULL, reasoning BLOB, raw_text BLOB, text_hash TEXT NOT NULL,
  prompt_token_ids BLOB, token_ids BLOB,
  prompt_tokens INTEGER, reasoning_tokens INTEGER, completion_tokens INTEGER,
  started_at REAL NOT NULL, finished_at REAL NOT NULL, target TEXT,
  UNIQUE (task_id, sample_id, repeat)
);
CREATE TABLE IF NOT EXISTS grades (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, grader TEXT NOT NULL, grader_version INTEGER NOT NULL,
  outcome TEXT NOT NULL, extraction TEXT, lenient_extraction TEXT, lenient_outcome TEXT,
  verdict TEXT, details TEXT NOT NULL, graded_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS grades_by_key ON grades (key);
CREATE TABLE IF NOT EXISTS attempts (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, task_id TEXT NOT NULL, sample_id TEXT NOT NULL,
  repeat INTEGER NOT NULL, error TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
  id INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL NOT NULL,
  completions INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
);
"""

# Columns that came later, with the value that rows of older runs read as. Writers add them; readers
# of a run without them, who never write, see the value.
ADDED: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "completions": {
        "finish_word": ("TEXT", "NULL"),  # the server's own, where it stands in no table
        "model": ("TEXT", "NULL"),  # the server's name for who answered, where it told one
        "prompt_ids_hash": ("TEXT", "NULL"),  # of prompt_token_ids, kept where they are not
        "row_hash": ("TEXT", "NULL"),  # of the rest of the row
    },
    "grades": {"row_hash": ("TEXT", "NULL")},
    "attempts": {
        "refused": ("INTEGER NOT NULL DEFAULT 0", "0"),  # 1: can never succeed
        "row_hash": ("TEXT", "NULL"),
    },
}

ANSWERING_MODEL = "answering_model"  # of meta: the server's name for who answers

COMPLETION_COLUMNS = (
    "key, task_id, sample_id, repeat, stop_reason, thought, text, reasoning, raw_text, "
    "prompt_token_ids, token_ids, prompt_tokens, reasoning_tokens, completion_tokens, "
    "started_at, finished_at, target"
)
GRADE_COLUMNS = (
    "key, grader, grader_version, outcome, extraction, lenient_extraction, lenient_outcome, "
    "verdict, details"
)

_codec = threading.local()
# Quicker than Outcome(value) and the like.
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
STOP_REASONS = {reason.value: reason for reason in StopReason}
THOUGHTS = {thought.value: thought for thought in Thought}


def add_columns(db: sqlite3.Connection) -> None:
    """Add the columns that a run of an older version lacks; the caller holds the transaction."""
    for table, columns in ADDED.items():
        there = columns_of(db, table)
        for name, (kind, _) in columns.items():
            if name not in there:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def columns_of(db: sqlite3.Connection, table: str) -> frozenset[str]:
    """Return the names of a table's columns."""
    return frozenset(row[1] for row in db.execute(f"PRAGMA table_info({table})"))


def pack_text(text: str) -> bytes:
    """Return a zstd frame; lone surrogates survive."""
    return pack_bytes(text.encode("utf-8", "surrogatepass"))


def unpack_text(frame: bytes) -> str:
    """Return the text of a frame made by `pack_text`."""
    return unpack_bytes(frame).decode("utf-8", "surrogatepass")


def pack_bytes(data: bytes) -> bytes:
    """Return a zstd frame."""
    if not hasattr(_codec, "compressor"):
        _codec.compressor = zstandard.ZstdCompressor(level=1)
    return bytes(_codec.compressor.compress(data))


def unpack_bytes(frame: bytes) -> bytes:
    """Return what a zstd frame holds."""
    if not hasattr(_codec, "decompressor"):
        _codec.decompressor = zstandard.ZstdDecompressor()
    return bytes(_codec.decompressor.decompress(frame))


def pack_ids(ids: Sequence[int] | None) -> bytes | None:
    """Return token ids as a zstd frame of little-endian int32."""
    return None if ids is None else pack_bytes(_little_endian(array("i", ids)).tobytes())


def unpack_ids(frame: bytes | None) -> list[int] | None:
    """Return the token ids of a frame made by `pack_ids`."""
    if frame is None:
        return None
    ids = array("i")
    ids.frombytes(unpack_bytes(frame))
    return _little_endian(ids).tolist()


def _little_endian(ids: "array[int]") -> "array[int]":
    import sys  # noqa: PLC0415  only its byte order

    if sys.byteorder == "big":
        ids.byteswap()
    return ids


def completion_row(completion: Completion, text_hash: str) -> tuple[Any, ...]:
    """Return a completion as COMPLETION_COLUMNS, finish word, model, and then its text's hash."""
    c = completion
    return (
        c.key,
        c.task_id,
        c.sample_id,
        c.repeat,
        c.stop_reason.value,
        c.thought.value,
        pack_text(c.text),
        None if c.reasoning is None else pack_text(c.reasoning),
        None if c.raw_text is None else pack_text(c.raw_text),
        pack_ids(c.prompt_token_ids),
        pack_ids(c.token_ids),
        c.prompt_tokens,
        c.reasoning_tokens,
        c.completion_tokens,
        c.started_at,
        c.finished_at,
        c.target,
        storable(c.finish_word),
        storable(c.model),
        text_hash,
    )


def row_completion(row: Sequence[Any]) -> Completion:
    """Return the completion of a row of COMPLETION_COLUMNS, finish word and model."""
    return Completion(
        key=row[0],
        task_id=row[1],
        sample_id=row[2],
        repeat=row[3],
        stop_reason=StopReason(row[4]),
        thought=Thought(row[5]),
        text=unpack_text(row[6]),
        reasoning=None if row[7] is None else unpack_text(row[7]),
        raw_text=None if row[8] is None else unpack_text(row[8]),
        prompt_token_ids=unpack_ids(row[9]),
        token_ids=unpack_ids(row[10]),
        prompt_tokens=row[11],
        reasoning_tokens=row[12],
        completion_tokens=row[13],
        started_at=row[14],
        finished_at=row[15],
        target=row[16],
        finish_word=row[17],
        model=row[18],
    )


def grade_row(grade: Grade) -> tuple[Any, ...]:
    """Return a grade as GRADE_COLUMNS."""
    return (
        grade.key,
        grade.grader,
        grade.grader_version,
        grade.outcome.value,
        storable(grade.extraction),
        storable(grade.lenient_extraction),
        None if grade.lenient_outcome is None else grade.lenient_outcome.value,
        grade.verdict,
        json.dumps(dict(grade.details)) if grade.details else "{}",
    )


def row_grade(row: Sequence[Any]) -> Grade:
    """Return the grade of a row of GRADE_COLUMNS."""
    return Grade(
        key=row[0],
        grader=row[1],
        grader_version=row[2],
        outcome=_OUTCOMES[row[3]],
        extraction=row[4],
        lenient_extraction=row[5],
        lenient_outcome=None if row[6] is None else _OUTCOMES[row[6]],
        verdict=row[7],
        details=dict(_details(row[8])),
    )


@lru_cache(maxsize=1024)
def _details(text: str) -> Mapping[str, Any]:
    """Return a grade's details, read-only: most grades of a task share a few."""
    return MappingProxyType(json.loads(text))


def pack_messages(messages: Sequence[Message]) -> bytes:
    """Return a prompt as a zstd frame of JSON."""
    return pack_text(json.dumps([{"role": m.role, "content": m.content} for m in messages]))


def unpack_messages(frame: bytes) -> tuple[Message, ...]:
    """Return the prompt of a frame made by `pack_messages`."""
    return tuple(Message(**turn) for turn in json.loads(unpack_text(frame)))


def storable(text: str | None) -> str | None:
    """SQLite's text is UTF-8, which can't hold lone surrogates."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
