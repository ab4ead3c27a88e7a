"""Which job a slot takes next: one of the problem it has loaded, else the longest waiting."""

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
    is_fresh: bool = False  # needs a container of its own
    is_repeated: bool = False  # its result was lost with a container once
    failures: int = 0  # of ours
    memory_kills: int = 0  # of them, those of a container that the kernel took for memory
    setups: int = 0  # failures before its first line, in proven containers
    earlier: list[JobResult] = field(default_factory=list)  # suspect verdicts, oldest first


class Schedule:
    """A queue for several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Task]] = OrderedDict()  # by problem, oldest first
        self._running: set[Task] = set()
        self._held: set[Task] = set()  # judged; the result waits for a canary
        self._closed = False

    def add(self, task: Task) -> None:
        """Queue a task, perhaps one that has been judged before."""
        with self._changed:
            self._running.discard(task)
            self._held.discard(task)
            self._waiting.setdefault(task.problem.key, deque()).append(task)
            self._changed.notify_all()

    def take(self, loaded: Container[str], *, wait: bool = True) -> Task | None:
        """Return the next task, waiting for one; None once the schedule is closed.

        Without `wait`: None where there is none now.
        """
        with self._changed:
            while not self._closed:
                task = self._next(loaded)
                if task is not None:
                    self._running.add(task)
                    return task
                if not wait:
                    break
                self._changed.wait()
            return None

    def hold(self, task: Task) -> None:
        """Note that a task is no longer running, though nothing is said of it yet."""
        with self._changed:
            self._running.discard(task)
            self._held.add(task)

    def finish(self, task: Task) -> None:
        """Note that a task's result is known."""
        with self._changed:
            self._running.discard(task)
            self._held.discard(task)

    def close(self) -> list[Task]:
        """Hand out nothing more; return all of which nothing has been said."""
        with self._changed:
            self._closed = True
            left = [task for tasks in self._waiting.values() for task in tasks]
            left += [*self._running, *self._held]
            self._waiting.clear()
            self._changed.notify_all()
            return left

    def _next(self, loaded: Container[str]) -> Task | None:
        if not self._waiting:
            return None
        busy = {task.problem.key for task in self._running}
        mine = next((key for key in self._waiting if key in loaded), None)
        free = next((key for key in self._waiting if key not in busy), None)
        key = mine or free or next(iter(self._waiting))
        task = self._waiting[key].popleft()
        if not self._waiting[key]:
            del self._waiting[key]
        return task
