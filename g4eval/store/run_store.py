"""Write a run folder: SQLite, append-only, resumable, one process at a time.

One thread writes; it commits every 64 completions or 100 ms, whichever comes first. What is
committed survives `kill -9`. `StoreError` from any method means that nothing more will be written;
what was committed before is there.
"""

import asyncio
import contextlib
import fcntl
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from g4eval.errors import EngineError, StoreError
from g4eval.fingerprint import prompt_hash
from g4eval.records import (
    Attempt,
    Chat,
    Completion,
    Grade,
    Json,
    Request,
    Sample,
    Text,
    TokenIds,
    ToolResult,
    Try,
)
from g4eval.store import schema
from g4eval.store.birth import DATABASE, Birth, Statement, make_run
from g4eval.store.manifest import write_manifest
from g4eval.store.migration import migrate, remove_copy
from g4eval.store.reader import RunReader

COMPLETIONS_PER_COMMIT = 64
ROWS_PER_COMMIT = 256  # of all kinds
SECONDS_PER_COMMIT = 0.1
PAGES_PER_CHECKPOINT = 8192  # 32 MB: each one waits for the disk
QUEUE_ROWS = 1024  # rows waiting to be written, before add_* waits

_INSERT_COMPLETION = (
    f"INSERT INTO completions ({schema.COMPLETION_COLUMNS}, {schema.MORE_COLUMNS}) "
    f"VALUES ({', '.join('?' * 27)}) ON CONFLICT (key) DO NOTHING"
)
_INSERT_GRADE = (
    f"INSERT INTO grades ({schema.GRADE_COLUMNS}, graded_at, row_hash) "
    f"VALUES ({', '.join('?' * 11)})"
)
_INSERT_ATTEMPT = (
    "INSERT INTO attempts (key, task_id, sample_id, repeat, error, at, refused, step, row_hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_TRY = "INSERT OR REPLACE INTO tries VALUES (?, ?, ?, ?, ?)"
_INSERT_TOOL_RESULT = (
    "INSERT INTO tool_results (task_id, sample_id, repeat, step, tool, arguments, result) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_PROMPT = "INSERT OR IGNORE INTO prompts (prompt_hash, messages) VALUES (?, ?)"

_INSERT_SAMPLE = (
    "INSERT OR IGNORE INTO samples (task_id, sample_id, position, target, groups, row_hash) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)

_DISK_ERRORS = (sqlite3.OperationalError, OSError)  # what a user can mend; the rest is ours


def meta_row(name: str, value: str) -> Statement:
    """Return the statement that stores a fact of the run as a whole."""
    sql = "INSERT OR REPLACE INTO meta (name, value, row_hash) VALUES (?, ?, ?)"
    return sql, (name, value, schema.row_hash(name, value))


def task_rows(
    task_id: str,
    record: Mapping[str, Any],
    samples: Iterable[Sample],
    *,
    gated: bool,
    positions: Mapping[str, int] | None = None,
) -> Iterator[Statement]:
    """Yield the statements that store a task's plan and samples; `RunStore.set_task` says more."""
    text = json.dumps(record)
    sql = "INSERT OR REPLACE INTO tasks (task_id, record, row_hash) VALUES (?, ?, ?)"
    yield sql, (task_id, text, schema.row_hash(task_id, text))
    for position, sample in enumerate(samples):
        place = position if positions is None else positions[sample.sample_id]
        target = None if gated else json.dumps(sample.target)
        groups = json.dumps(dict(sample.groups))
        values = (task_id, sample.sample_id, place, target, groups)
        yield _INSERT_SAMPLE, (*values, schema.row_hash(*values))


class RunStore(RunReader):
    """One run, open for writing; also a reader of it.

    Where there is no run yet, it is made whole, with what `birth` says; `is_new` tells so.

    Raises StoreError where another process writes to the run already.
    """

    def __init__(self, folder: Path, birth: Callable[[], Birth] = Birth) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as undo:
                self._lock = undo.enter_context(_lock(folder))
                self.is_new = make_run(folder, birth)
                if not self.is_new:
                    migrate(folder)
                self._writer = _Writer(folder / DATABASE)
                undo.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the run can't be written: {error}", where=folder) from error
        try:
            super().__init__(folder)
        except StoreError:
            self._writer.close()
            self._lock.close()
            raise
        self._answering: str | None = None  # the model whose answers these are, by the server
        # Request key to the prompt's hash and whether it is gated, of what is in flight.
        self._prompt_hashes: dict[str, tuple[str, bool]] = {}
        self._last_prompt = ""
        self._session = _Session()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.close()
            return
        with contextlib.suppress(StoreError):  # the first error is the one to hear of
            self.close()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Write what is waiting, note the session, release the lock."""
        session = self._session
        try:
            if session.completions:
                self._writer.put(
                    "INSERT INTO sessions (started_at, ended_at, completions, completion_tokens) "
                    "VALUES (?, ?, ?, ?)",
                    (session.started, session.ended, session.completions, session.tokens),
                )
        finally:
            try:
                super().close()  # first: the last connection to close leaves one file
                self._writer.close()
            finally:
                self._lock.close()

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Store facts of the run as a whole."""
        for name, value in values.items():
            self._writer.put(*meta_row(name, value))
        self._writer.flush()

    def note_grader(self, name: str, facts: Mapping[str, Json]) -> None:
        """Store what a grader judges with, such as an image; in the manifest too."""
        manifest = self.manifest().as_json()
        graders = {**manifest.get("graders", {}), name: dict(facts)}
        if graders != manifest.get("graders"):
            manifest["graders"] = graders
            self.set_meta({"manifest": json.dumps(manifest)})
            write_manifest(self.folder, self.manifest().as_json())

    def set_task(
        self,
        task_id: str,
        record: Mapping[str, Any],
        samples: Iterable[Sample],
        *,
        gated: bool,
        positions: Mapping[str, int] | None = None,
    ) -> None:
        """Store what is planned for a task. Samples are added, never taken away.

        `positions` are their places in the whole task, where these are only some of it.
        """
        for sql, values in task_rows(task_id, record, samples, gated=gated, positions=positions):
            self._writer.put(sql, values)
        self._writer.flush()

    def expect(self, request: Request, *, gated: bool) -> None:
        """Note the prompt of a request that goes out now: its text, or for gated tasks its hash."""
        self._session.started = self._session.started or time.time()
        hashed = prompt_hash(request.prompt)
        if hashed != self._last_prompt:  # the repeats of a sample come one after the other
            self._last_prompt = hashed
            self._writer.put(_INSERT_PROMPT, (hashed, None if gated else request.prompt))
        self._prompt_hashes[request.key] = hashed, gated

    async def add_completion(self, completion: Completion) -> None:
        """Store a completion; waits only while the writer is far behind."""
        if completion.model is not None:
            self._check_model(completion.model)
        self._session.completions += 1
        self._session.tokens += completion.completion_tokens or 0
        hashed, gated = self._prompt_hashes.pop(completion.key, (None, False))
        await self._put(_INSERT_COMPLETION, (completion, hashed, not gated))

    async def add_answer(self, completion: Completion) -> None:
        """Store the completion of a try that asks one question: the whole of it."""
        await self.add_completion(completion)
        c = completion
        await self._put(_INSERT_TRY, (c.task_id, c.sample_id, c.repeat, "finished", c.step))

    async def end_try(self, ended: Try | Attempt) -> None:
        """Note that a try came to its end, by its last step or by a request that failed for good.

        After its completions and in their order, so never in an earlier commit than theirs.
        """
        if isinstance(ended, Try):
            row = (ended.task_id, ended.sample.sample_id, ended.repeat, "finished")
            await self._put(_INSERT_TRY, (*row, ended.completion.step))
        else:
            row = (ended.task_id, ended.sample_id, ended.repeat, "failed")
            await self._put(_INSERT_TRY, (*row, ended.step))

    async def add_tool_result(
        self, task_id: str, sample_id: str, repeat: int, found: ToolResult
    ) -> None:
        """Store what a tool gave back in a try."""
        await self._put(_INSERT_TOOL_RESULT, (found, task_id, sample_id, repeat))

    async def add_attempt(self, attempt: Attempt) -> None:
        """Store a failure, so that the sample counts as ungraded until it is sent again."""
        self._prompt_hashes.pop(attempt.key, None)
        a = attempt
        error, at, refused = schema.storable(a.error), float(a.at), int(a.refused)
        row = (a.key, a.task_id, a.sample_id, a.repeat, error, at, refused)
        await self._put(_INSERT_ATTEMPT, (*row, a.step, schema.row_hash(*row)))

    def _check_model(self, name: str) -> None:
        """Refuse the answer of another model than the run's; a server may be changed behind it."""
        if self._answering is None:
            self._answering = self.meta().get(schema.ANSWERING_MODEL)
        if self._answering is None:
            self._answering = name
            self._writer.put(*meta_row(schema.ANSWERING_MODEL, name))
        if name != self._answering:
            raise EngineError(
                f"the server answers as {name!r} now, and this run's answers came from "
                f"{self._answering!r}",
                where=self.folder,
                hint="serve that model again, or give this one another --run-id",
            )

    async def add_grade(self, grade: Grade) -> None:
        """Store a grade beside the ones that are there."""
        row = (*schema.grade_row(grade), time.time())
        await self._put(_INSERT_GRADE, (*row, schema.row_hash(*row)))

    async def flush(self) -> None:
        """Wait until everything added is committed."""
        await asyncio.get_running_loop().run_in_executor(None, self._writer.flush)

    async def _put(self, sql: str, values: tuple[Any, ...]) -> None:
        while self._writer.waiting > QUEUE_ROWS:
            await asyncio.sleep(0.002)
        self._writer.put(sql, values)
        self._session.ended = time.time()


@dataclass(slots=True)
class _Session:
    """What this process has done with the run."""

    started: float = 0.0  # as the first request went out
    ended: float = 0.0  # as the last completion, failure or grade came in
    completions: int = 0
    tokens: int = 0


class _Writer:
    """The one thread that writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[Statement | threading.Event | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._has_committed = False
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error:
            self._db.close()
            raise
        self._thread = threading.Thread(target=self._run, name="g4eval-store", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        """Set the database up for writing."""
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {PAGES_PER_CHECKPOINT}")

    @property
    def waiting(self) -> int:
        """How many statements are queued."""
        return self._queue.qsize()

    def put(self, sql: str, values: tuple[Any, ...]) -> None:
        """Queue one statement; raises StoreError once writing has failed."""
        self._check()
        self._queue.put((sql, values))

    def flush(self) -> None:
        """Wait until everything queued so far is committed."""
        done = threading.Event()
        self._queue.put(done)
        done.wait()
        self._check()

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()
        try:
            self._db.close()
        except sqlite3.Error as error:
            self._error = self._error or error
        self._check()

    def _check(self) -> None:
        if self._error is not None and not isinstance(self._error, _DISK_ERRORS):
            raise RuntimeError(f"the store refused a row: {self._error}") from self._error
        if self._error is not None:
            raise StoreError(
                f"the run can't be written any more: {self._error}",
                where=self._path,
                hint="free some disk, then run the same command: what was finished is there",
            ) from self._error

    def _run(self) -> None:
        while True:
            batch, events, ends = self._next_batch()
            if self._error is None and batch:
                try:
                    self._write(batch)
                except Exception as error:  # noqa: BLE001  told to every caller from here on
                    self._error = error
            for event in events:
                event.set()
            if ends:
                return

    def _next_batch(self) -> tuple[list[Statement], list[threading.Event], bool]:
        """Gather statements for one commit; an event or the end closes the batch early."""
        batch: list[Statement] = []
        completions = 0
        deadline: float | None = None
        while len(batch) < ROWS_PER_COMMIT and completions < COMPLETIONS_PER_COMMIT:
            try:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                break
            if item is None:
                return batch, [], True
            if isinstance(item, threading.Event):
                return batch, [item], False
            batch.append(item)
            completions += item[0] is _INSERT_COMPLETION
            deadline = deadline or time.monotonic() + SECONDS_PER_COMMIT
        return batch, [], False

    def _write(self, batch: list[Statement]) -> None:
        self._db.execute("BEGIN")
        try:
            for sql, values in batch:
                self._db.execute(sql, _encode(values))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if not self._has_committed:
            self._has_committed = True
            remove_copy(self._path.parent)


def _encode(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Compress long texts here, on the writer's thread; other values are ready."""
    if isinstance(values[0], Completion):
        completion, hashed, keep_prompt_ids = values
        return schema.completion_row(completion, hashed, keep_prompt_ids=keep_prompt_ids)
    if isinstance(values[-1], Chat | Text | TokenIds):
        return values[0], schema.pack_prompt(values[-1])
    if isinstance(values[0], ToolResult):
        found, *place = values
        texts = schema.pack_text(found.arguments), schema.pack_text(found.result)
        return (*place, found.step, found.tool, *texts)
    return values


def _lock(folder: Path) -> IO[bytes]:
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StoreError(
            "another process is writing to this run",
            where=folder,
            hint="wait for it, or give this one another --run-id",
        ) from error
    return lock
