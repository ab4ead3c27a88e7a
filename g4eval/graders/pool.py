"""Grade while the engine generates: a bounded queue, then worker processes with a time limit.

What doesn't fit in the queue is graded later from the store, so memory stays flat. A grader that
hangs, dies or raises costs one completion its grade (`ungraded`, tried again by the next session),
never the run. Asynchronous graders (code in a sandbox) run in this process instead.
"""

import asyncio
import contextlib
import inspect
import os
import resource
import signal
from asyncio import FIRST_COMPLETED, TaskGroup
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from types import FrameType, TracebackType
from typing import Protocol, Self, cast

from g4eval.errors import G4EvalError
from g4eval.graders.base import (
    GRADERS,
    Grader,
    TimeUpError,
    grade_try,
    no_answer,
    raised_reason,
    ungraded,
)
from g4eval.graders.plugin_grader import checked_grade, leave_if_forked, load_plugin_grader
from g4eval.records import Grade, Json, Sample, StoredTry, Thought, Try
from g4eval.tasking.loader import Task
from g4eval.tasking.plugins import is_ours

BATCH = 64  # completions a worker takes at a time, at most
BATCHES_PER_WORKER = 3  # under way at once, so that a worker never waits for the next
SECONDS_PER_BATCH = 0.01  # to wait for a fuller one
QUEUE = 2048  # visible texts waiting; beyond it they are graded from the store
SECONDS_PER_GRADE = 10.0
GRACE_SECONDS = 20.0  # on top, before a worker that doesn't answer is killed
WORKER_MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class GraderRef:
    """Where a grader's class is found: a registered name, or a class in a family's plugin.py."""

    name: str
    folder: Path | None = None

    @classmethod
    def of(cls, task: Task) -> Self:
        """Return the reference to a task's grader."""
        kind, colon, class_name = task.spec.grader.partition(":")
        return cls(class_name, task.folder) if colon else cls(kind)

    def load(self) -> Grader:
        """Return the grader, one instance a process."""
        is_anywhere = self.folder is None or self.folder.is_absolute()
        return _load_grader(self, None if is_anywhere else Path.cwd())


class AsyncGrader(Protocol):
    """A grader that waits for something outside this process; an async context manager."""

    name: str
    version: int
    concurrency: int  # how many completions it grades at once

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def grade(self, one_try: Try) -> Grade:
        """Return the grade; ungraded for a failure of ours; SandboxError if it can't go on."""
        ...


@dataclass(frozen=True, slots=True)
class GradedTask:
    """A task as the pool needs it."""

    task_id: str
    grader: GraderRef
    samples: Mapping[str, Sample]


class GradeStore(Protocol):
    """The part of the run store that grading needs."""

    async def add_grade(self, grade: Grade) -> None:
        """Store a grade."""
        ...

    async def flush(self) -> None:
        """Wait until everything added is committed."""
        ...

    def note_grader(self, name: str, facts: Mapping[str, Json]) -> None:
        """Store what a grader judges with."""
        ...

    def last_row(self, task_id: str) -> int:
        """Return the row id of the task's newest completion."""
        ...

    def ungraded(
        self, task_id: str, grader: str, version: int, *, after: int, retry: bool, limit: int
    ) -> list[tuple[int, StoredTry]]:
        """Return (row id, try) of the next ones that lack a grade."""
        ...


def lacks_grades(tasks: Iterable[GradedTask], store: GradeStore) -> bool:
    """Whether a stored completion lacks its grader's grade, or was left ungraded."""
    for task in tasks:
        grader = task.grader.load()
        if store.ungraded(task.task_id, grader.name, grader.version, after=0, retry=True, limit=1):
            return True
    return False


class GraderPool:
    """Worker processes, started when first needed.

    Args:
        tasks: what will be graded.
        workers: how many processes; default: one less than there are cores, from 1 to 8.
    """

    def __init__(self, tasks: Iterable[GradedTask], *, workers: int | None = None) -> None:
        self.tasks = {task.task_id: task for task in tasks}
        self.workers = workers or min(8, max(1, (os.cpu_count() or 2) - 1))
        self._executor: ProcessPoolExecutor | None = None

    @asynccontextmanager
    async def saving_to(
        self, store: GradeStore, watch: Callable[[Grade], None] = lambda _: None
    ) -> AsyncIterator["Grading"]:
        """Grade what is offered into `store`; on the way out, grade all that is left.

        `watch` hears of each grade.
        """
        try:
            async with AsyncExitStack() as stack, TaskGroup() as group:
                graders = {
                    task.task_id: await _open(task.grader.load(), stack)
                    for task in self.tasks.values()
                }
                for grader in graders.values():
                    if describe := getattr(grader, "describe", None):
                        store.note_grader(grader.name, describe())
                grading = Grading(self, store, graders, watch)
                consumers = grading.start(group)
                yield grading
                await grading.finish()
                for consumer in consumers:
                    consumer.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first one stopped the others
        finally:
            self._stop(self._executor)

    async def grade_batch(self, task: GradedTask, tries: list[Try]) -> list[Grade]:
        """Grade in a worker; one that hangs or dies is found by grading each alone."""
        executor = self._running_executor()
        try:
            future = executor.submit(_grade_tries, task.grader, tries)
            # Other batches may stand before this one.
            limit = BATCHES_PER_WORKER * (SECONDS_PER_GRADE * len(tries) + GRACE_SECONDS)
            # Shielded: the executor's own thread can't bear a future that is cancelled under it.
            grading = asyncio.wrap_future(future)
            grading.add_done_callback(_hear)
            return await asyncio.wait_for(asyncio.shield(grading), limit)
        except (TimeoutError, BrokenProcessPool) as error:
            self._stop(executor)
            if len(tries) > 1:
                return [g for one_try in tries for g in await self.grade_batch(task, [one_try])]
            reason = "the grader hung" if isinstance(error, TimeoutError) else "the grader died"
            return [ungraded(task.grader.load(), tries[0], reason)]

    def _running_executor(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=_start_worker
            )
        return self._executor

    def _stop(self, executor: ProcessPoolExecutor | None) -> None:
        """End the workers at once; a hung one doesn't hear a polite request."""
        if executor is None or executor is not self._executor:
            return  # another batch has stopped it already
        self._executor = None
        processes = list((getattr(executor, "_processes", None) or {}).values())
        executor.shutdown(wait=False)  # what waits is told that the pool is broken
        for process in processes:
            process.kill()


class Grading:
    """Grading under way: `offer` what has just been stored; the pool saves the grades."""

    def __init__(
        self,
        pool: GraderPool,
        store: GradeStore,
        graders: Mapping[str, Grader | AsyncGrader],
        watch: Callable[[Grade], None],
    ) -> None:
        self._watch = watch
        self._pool = pool
        self._store = store
        self._graders = graders
        self._queues = {task_id: asyncio.Queue[Try](QUEUE) for task_id in graders}

    def start(self, group: TaskGroup) -> "list[asyncio.Task[None]]":
        """Start to grade what is offered, and what earlier sessions left ungraded."""
        self._catching_up = group.create_task(self._grade_stored(self._last_rows(), retry=True))
        return [
            group.create_task(self._consume(task_id))
            for task_id, grader in self._graders.items()
            for _ in range(_concurrency(grader, self._pool))
        ]

    def offer(self, one_try: Try) -> None:
        """Queue a stored try for grading; one too many is graded later from the store."""
        queue = self._queues.get(one_try.task_id)  # None: a task that nothing here can judge
        if queue is not None and not queue.full():
            queue.put_nowait(_text_only(one_try))

    async def finish(self) -> None:
        """Wait for what is queued, then grade what the store has and the queue dropped."""
        await self._catching_up
        for waiting in self._queues.values():
            await waiting.join()
        await self._store.flush()
        await self._grade_stored(self._last_rows(), retry=False)

    def _last_rows(self) -> dict[str, int]:
        return {task_id: self._store.last_row(task_id) for task_id in self._graders}

    async def _consume(self, task_id: str) -> None:
        waiting = self._queues[task_id]
        most = 1 if _is_async(self._graders[task_id]) else BATCH
        while True:
            batch = [await waiting.get()]
            if most > 1 and len(batch) < waiting.qsize() + 1 < most:
                await asyncio.sleep(SECONDS_PER_BATCH)  # a fuller batch costs less
            while len(batch) < most and not waiting.empty():
                batch.append(waiting.get_nowait())
            await self._grade(task_id, batch)
            for _ in batch:
                waiting.task_done()

    async def _grade_stored(self, last_rows: Mapping[str, int], *, retry: bool) -> None:
        """Grade from the store, page by page, what lacks a grade up to these rows."""
        for task_id, grader in self._graders.items():
            size = 1 if _is_async(grader) else BATCH
            under_way: set[asyncio.Task[None]] = set()
            after, last = 0, last_rows[task_id]
            while after < last:
                page = self._store.ungraded(
                    task_id, grader.name, grader.version, after=after, retry=retry, limit=size
                )
                if not page:
                    break
                after = page[-1][0]
                samples = self._pool.tasks[task_id].samples
                tries = (stored.with_sample(samples) for row, stored in page if row <= last)
                batch = [_text_only(one_try) for one_try in tries]
                under_way.add(asyncio.create_task(self._grade(task_id, batch)))
                if len(under_way) > _concurrency(grader, self._pool):  # one waits, none idles
                    done, under_way = await asyncio.wait(under_way, return_when=FIRST_COMPLETED)
                    for task in done:
                        task.result()
            await asyncio.gather(*under_way)

    async def _grade(self, task_id: str, tries: list[Try]) -> None:
        task, grader = self._pool.tasks[task_id], self._graders[task_id]
        if _is_async(grader):
            grades = [await _grade_async(cast("AsyncGrader", grader), t) for t in tries]
        else:
            grades = await self._pool.grade_batch(task, tries)
        for grade in grades:
            await self._store.add_grade(grade)
            self._watch(grade)


def _hear(future: "asyncio.Future[list[Grade]]") -> None:
    """Take note of how a batch ended, whether or not anybody still waits for it."""
    if not future.cancelled():
        future.exception()


async def _open(grader: Grader | AsyncGrader, stack: AsyncExitStack) -> Grader | AsyncGrader:
    if _is_async(grader):
        await stack.enter_async_context(cast("AsyncGrader", grader))
    return grader


def _is_async(grader: Grader | AsyncGrader) -> bool:
    return inspect.iscoroutinefunction(grader.grade)


def _concurrency(grader: Grader | AsyncGrader, pool: GraderPool) -> int:
    if _is_async(grader):
        return cast("AsyncGrader", grader).concurrency
    return BATCHES_PER_WORKER * pool.workers


async def _grade_async(grader: AsyncGrader, one_try: Try) -> Grade:
    if one_try.completion.thought is Thought.OPEN:
        return no_answer(grader, one_try)
    try:
        grade = await grader.grade(one_try)
    except (G4EvalError, asyncio.CancelledError):
        raise
    except Exception as error:  # noqa: BLE001  any bug of a grader is ours, never the model's
        return ungraded(grader, one_try, raised_reason(error))
    return checked_grade(grade, grader, one_try)


def _text_only(one_try: Try) -> Try:
    """Leave behind what no grader reads, so that little crosses to the worker."""
    if all(c.reasoning is None and c.token_ids is None for c in one_try.completions):
        return one_try
    return replace(
        one_try,
        completions=tuple(
            replace(c, reasoning=None, raw_text=None, prompt_token_ids=None, token_ids=None)
            for c in one_try.completions
        ),
    )


@cache
def _load_grader(ref: GraderRef, _from: Path | None) -> Grader:
    if ref.folder is None:
        return GRADERS.load(ref.name)()
    return load_plugin_grader(ref.folder, ref.name)


def _start_worker() -> None:
    """Leave interrupts to the parent, cap memory, print to stderr, and end when the parent does."""
    os.dup2(2, 1)  # stdout is the parent's data; a plugin may print
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what stops a service is sent to all of it
    signal.signal(signal.SIGALRM, _time_up)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY_BYTES, hard))
    parent = parent_process()
    assert parent is not None
    Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _time_up(_signal: int, _frame: FrameType | None) -> None:
    raise TimeUpError


def _grade_tries(ref: GraderRef, tries: list[Try]) -> list[Grade]:
    """Grade in a worker process, each try within its own time."""
    grader = ref.load()
    grades = [_grade_in_time(grader, one_try) for one_try in tries]
    if ref.folder is None or is_ours(ref.folder):
        return grades
    return [checked_grade(g, grader, t) for g, t in zip(grades, tries, strict=True)]


def _grade_in_time(grader: Grader, one_try: Try) -> Grade:
    me = os.getpid()
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_GRADE)
        try:
            grade = grade_try(grader, one_try)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            leave_if_forked(me)
    except TimeUpError:
        return ungraded(grader, one_try, f"no grade within {SECONDS_PER_GRADE:g} s")
    except MemoryError:
        return ungraded(grader, one_try, "the grader used up its memory")
    return grade
