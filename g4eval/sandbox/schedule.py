"""Which job a slot takes next: one of the problem it has loaded, else the longest waiting.

A job that must run alone (a suspect time-out, a retry after a failure of ours) waits until nothing
else is queued or running, and nothing starts beside it.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from g4eval.sandbox.base import CodeJob, JobResult
from g4eval.sandbox.container import Problem


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A job on its way through the pool."""

    job: CodeJob
    problem: Problem
    resolve: Callable[[JobResult | BaseException], None]
    clock: str = "wall"
    failures: int = 0  # of ours
    earlier: list[JobResult] = field(default_factory=list)  # suspect verdicts, oldest first


class Schedule:
    """A queue for several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Task]] = OrderedDict()  # by problem, oldest first
        self._alone: deque[Task] = deque()
        self._running: set[Task] = set()
        self._alone_running = False
        self._closed = False

    def add(self, task: Task, *, alone: bool = False) -> None:
        """Queue a task."""
        with self._changed:
            if alone:
                self._alone.append(task)
            else:
                self._waiting.setdefault(task.problem.key, deque()).append(task)
            self._changed.notify_all()

    def take(self, loaded: Container[str]) -> Task | None:
        """Return the next task, waiting for one; None once the schedule is closed."""
        with self._changed:
            while not self._closed:
                task = self._next(loaded)
                if task is not None:
                    self._running.add(task)
                    return task
                self._changed.wait()
            return None

    def finish(self, task: Task) -> None:
        """Note that a task taken is no longer running."""
        with self._changed:
            self._running.discard(task)
            self._alone_running = False
            self._changed.notify_all()

    def close(self) -> list[Task]:
        """Hand out nothing more; return what was waiting or running."""
        with self._changed:
            self._closed = True
            left = [task for tasks in self._waiting.values() for task in tasks]
            left += [*self._alone, *self._running]
            self._waiting.clear()
            self._alone.clear()
            self._changed.notify_all()
            return left

    def _next(self, loaded: Container[str]) -> Task | None:
        if self._alone_running:
            return None
        if self._waiting:
            busy = {task.problem.key for task in self._running}
            mine = next((key for key in self._waiting if key in loaded), None)
            free = next((key for key in self._waiting if key not in busy), None)
            key = mine or free or next(iter(self._waiting))
            task = self._waiting[key].popleft()
            if not self._waiting[key]:
                del self._waiting[key]
            return task
        if self._alone and not self._running:
            self._alone_running = True
            return self._alone.popleft()
        return None
