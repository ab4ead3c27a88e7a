"""The tables of run.sqlite, and how records become rows and rows records.

Long texts are zstd frames, token ids zstd frames of little-endian int32; the rest is plain, so any
SQLite tool can read outcomes and counts. docs/store.md explains the tables.
"""

import json
import sqlite3
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import zstandard

from g4eval.records import (
    Chat,
    Completion,
    Grade,
    Media,
    Message,
    Outcome,
    Prompt,
    StopReason,
    Text,
    Thought,
    TokenIds,
    ToolCall,
)

T = TypeVar("T", int, float)

SCHEMA_VERSION = 2
VERSION_OF_TRIES = 2  # before, every completion was a try of one step that had ended
MOST_FRAME_BYTES = 2**30  # of one text, unpacked: what a damaged header says is not believed

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
  step INTEGER NOT NULL DEFAULT 0,
  UNIQUE (task_id, sample_id, repeat, step)
);
CREATE TABLE IF NOT EXISTS tries (
  task_id TEXT NOT NULL, sample_id TEXT NOT NULL, repeat INTEGER NOT NULL,
  state TEXT NOT NULL, last_step INTEGER NOT NULL, PRIMARY KEY (task_id, sample_id, repeat)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tool_results (
  id INTEGER PRIMARY KEY, task_id TEXT NOT NULL, sample_id TEXT NOT NULL, repeat INTEGER NOT NULL,
  step INTEGER NOT NULL, tool TEXT NOT NULL, arguments BLOB NOT NULL, result BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS tool_results_by_try ON tool_results (task_id, sample_id, repeat);
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
        "rest_hash": ("TEXT", "NULL"),  # of the frames of raw_text and token_ids
        "row_hash": ("TEXT", "NULL"),  # of the rest of the row
        "step": ("INTEGER NOT NULL DEFAULT 0", "0"),  # of the try
        "logprobs": ("BLOB", "NULL"),  # of a scored continuation
        "is_greedy": ("INTEGER", "NULL"),  # of it: whether each token was the most likely one
    },
    "meta": {"row_hash": ("TEXT", "NULL")},
    "tasks": {"row_hash": ("TEXT", "NULL")},
    "samples": {"row_hash": ("TEXT", "NULL")},
    "grades": {"row_hash": ("TEXT", "NULL")},
    "attempts": {
        "refused": ("INTEGER NOT NULL DEFAULT 0", "0"),  # 1: can never succeed
        "step": ("INTEGER NOT NULL DEFAULT 0", "0"),  # of the try
        "row_hash": ("TEXT", "NULL"),
    },
}

ANSWERING_MODEL = "answering_model"  # of meta: the server's name for who answers

# What row_hash of a completion is over, in this order; a later column goes behind, and is left out
# of the hash where it is NULL, so that hashes of older rows stay what they are.
HASHED_OF_A_COMPLETION = (
    "key, task_id, sample_id, repeat, stop_reason, thought, text_hash, prompt_hash, "
    "prompt_tokens, reasoning_tokens, completion_tokens, started_at, finished_at, target, "
    "prompt_ids_hash, rest_hash, finish_word, model, step, is_greedy"
)
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


MORE_COLUMNS = (
    "finish_word, model, text_hash, prompt_hash, prompt_ids_hash, rest_hash, step, logprobs, "
    "is_greedy, row_hash"
)


class _More(NamedTuple):
    """The values of MORE_COLUMNS but for the hash of them all."""

    finish_word: str | None
    model: str | None
    text_hash: str
    prompt_hash: str | None
    prompt_ids_hash: str | None
    rest_hash: str | None
    step: int
    logprobs: bytes | None
    is_greedy: int | None


def statements() -> list[str]:
    """Return the statements that make the tables which aren't there."""
    return [statement for statement in SCHEMA.split(";") if statement.strip()]


def make_views(db: sqlite3.Connection, version: int) -> None:
    """Make the view `answers` for one connection: the last completion of each try that ended.

    Args:
        db: a reader's.
        version: of its tables.
    """
    ended = ""
    if version >= VERSION_OF_TRIES:  # CROSS: completions outside, so that their order is kept
        ended = (
            " CROSS JOIN tries t WHERE t.task_id = c.task_id AND t.sample_id = c.sample_id"
            " AND t.repeat = c.repeat AND t.last_step = c.step AND t.state = 'finished'"
        )
    db.execute("PRAGMA temp_store = MEMORY")  # a reader writes nowhere
    db.execute(f"CREATE TEMP VIEW answers AS SELECT c.* FROM completions c{ended}")


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


def row_hash(*values: object) -> str:
    """Return the hash of a row: SQLite itself doesn't notice a flipped bit in a value."""
    end = len(values)
    while end and values[end - 1] is None:
        end -= 1
    # Most values are texts, and str() of a text costs as much as all the rest.
    text = "\x1f".join([v if type(v) is str else str(v) for v in values[:end]])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def ids_hash(ids: Sequence[int] | None) -> str | None:
    """Return the hash of token ids, which stays where they themselves are not kept."""
    if ids is None:
        return None
    return blake2b(_little_endian(array("i", ids)).tobytes(), digest_size=16).hexdigest()


def rest_hash(
    raw_text: bytes | None, token_ids: bytes | None, logprobs: bytes | None = None
) -> str | None:
    """Return the hash of the frames that no table reads."""
    if raw_text is None and token_ids is None and logprobs is None:
        return None
    whole = b"%b\0%b" % (raw_text or b"", token_ids or b"")
    if logprobs is not None:
        whole += b"\0" + logprobs
    return blake2b(whole, digest_size=8).hexdigest()


def text_hash(text: str, reasoning: str | None) -> str:
    """Return the hash of a completion's texts; equal completions have equal ones."""
    whole = f"{reasoning or ''}\0{text}".encode("utf-8", "surrogatepass")
    return blake2b(whole, digest_size=16).hexdigest()


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
    """Return what a zstd frame holds; raises ValueError where it says that it is too large."""
    size = zstandard.frame_content_size(frame)
    if not 0 <= size <= MOST_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes")
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


def pack_floats(values: Sequence[float] | None) -> bytes | None:
    """Return numbers as a zstd frame of little-endian float64."""
    return None if values is None else pack_bytes(_little_endian(array("d", values)).tobytes())


def unpack_floats(frame: bytes | None) -> tuple[float, ...] | None:
    """Return the numbers of a frame made by `pack_floats`."""
    if frame is None:
        return None
    values = array("d")
    values.frombytes(unpack_bytes(frame))
    return tuple(_little_endian(values))


def _little_endian(numbers: "array[T]") -> "array[T]":
    import sys  # noqa: PLC0415  only its byte order

    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def completion_row(
    completion: Completion, prompt_hash: str | None, *, keep_prompt_ids: bool
) -> tuple[Any, ...]:
    """Return a completion as COMPLETION_COLUMNS and MORE_COLUMNS."""
    c = completion
    raw_text = None if c.raw_text is None else pack_text(c.raw_text)
    token_ids, logprobs = pack_ids(c.token_ids), pack_floats(c.logprobs)
    more = _More(
        finish_word=storable(c.finish_word),
        model=storable(c.model),
        text_hash=text_hash(c.text, c.reasoning),
        prompt_hash=prompt_hash,
        prompt_ids_hash=ids_hash(c.prompt_token_ids),
        rest_hash=rest_hash(raw_text, token_ids, logprobs),
        step=c.step,
        logprobs=logprobs,
        is_greedy=None if c.is_greedy is None else int(c.is_greedy),
    )
    stop_reason, thought = c.stop_reason.value, c.thought.value
    hashed = row_hash(
        c.key, c.task_id, c.sample_id, c.repeat, stop_reason, thought, more.text_hash, prompt_hash,
        c.prompt_tokens, c.reasoning_tokens, c.completion_tokens, float(c.started_at),
        float(c.finished_at), c.target, more.prompt_ids_hash, more.rest_hash, more.finish_word,
        more.model, c.step or None, more.is_greedy,
    )  # fmt: skip
    return (
        c.key,
        c.task_id,
        c.sample_id,
        c.repeat,
        stop_reason,
        thought,
        pack_text(c.text),
        None if c.reasoning is None else pack_text(c.reasoning),
        raw_text,
        pack_ids(c.prompt_token_ids) if keep_prompt_ids else None,
        token_ids,
        c.prompt_tokens,
        c.reasoning_tokens,
        c.completion_tokens,
        c.started_at,
        c.finished_at,
        c.target,
        *more,
        hashed,
    )


def row_completion(row: Sequence[Any]) -> Completion:
    """Return the completion of what `Columns.completion` selects.

    Raises ValueError where its texts or token ids are not what was written.
    """
    text = unpack_text(row[6])
    reasoning = None if row[7] is None else unpack_text(row[7])
    if text_hash(text, reasoning) != row[17]:
        raise ValueError(f"the text of {row[2]!r}/{row[3]} is not what was written")
    if row[20] is not None and rest_hash(row[8], row[10], row[22]) != row[20]:
        raise ValueError(f"the token ids of {row[2]!r}/{row[3]} are not what was written")
    return Completion(
        key=row[0],
        task_id=row[1],
        sample_id=row[2],
        repeat=row[3],
        stop_reason=StopReason(row[4]),
        thought=Thought(row[5]),
        text=text,
        reasoning=reasoning,
        raw_text=None if row[8] is None else unpack_text(row[8]),
        prompt_token_ids=unpack_ids(row[9]),
        token_ids=unpack_ids(row[10]),
        prompt_tokens=row[11],
        reasoning_tokens=row[12],
        completion_tokens=row[13],
        started_at=row[14],
        finished_at=row[15],
        target=row[16],
        finish_word=row[18],
        model=row[19],
        step=row[21],
        logprobs=unpack_floats(row[22]),
        is_greedy=None if row[23] is None else bool(row[23]),
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


def pack_prompt(prompt: Prompt) -> bytes:
    """Return a prompt as a zstd frame of JSON: a list of turns, so that one reader reads all.

    A text is one turn of role `text`, token ids are one of role `token_ids`.
    """
    turns: list[dict[str, Any]]
    match prompt:
        case Chat():
            turns = [_turn(message) for message in prompt.messages]
        case Text():
            turns = [{"role": "text", "content": prompt.text}]
        case TokenIds():
            turns = [{"role": "token_ids", "content": " ".join(map(str, prompt.ids))}]
    return pack_text(json.dumps(turns))


def unpack_prompt(frame: bytes) -> Prompt:
    """Return the prompt of a frame made by `pack_prompt`."""
    messages = unpack_messages(frame)
    match messages:
        case [Message(role="text")]:
            return Text(messages[0].content)
        case [Message(role="token_ids")]:
            return TokenIds(tuple(map(int, messages[0].content.split())))
        case _:
            return Chat(messages)


def unpack_messages(frame: bytes) -> tuple[Message, ...]:
    """Return the turns of a frame made by `pack_prompt`."""
    return tuple(
        Message(
            role=turn["role"],
            content=turn["content"],
            media=tuple(Media(**media) for media in turn.get("media", ())),
            tool_calls=tuple(ToolCall(**call) for call in turn.get("tool_calls", ())),
            call_id=turn.get("call_id", ""),
        )
        for turn in json.loads(unpack_text(frame))
    )


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.media:
        turn["media"] = [asdict(media) for media in message.media]
    if message.tool_calls:
        turn["tool_calls"] = [asdict(call) for call in message.tool_calls]
    if message.call_id:
        turn["call_id"] = message.call_id
    return turn


def storable(text: str | None) -> str | None:
    """SQLite's text is UTF-8, which can't hold lone surrogates."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
