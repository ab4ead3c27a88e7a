"""One slot of the pool: a thread that judges one task after another in its container.

Nothing is said of a job before a canary has vouched for the container it ran in (canary.py). If
none can, the jobs it judged since the last one are judged again, each in a container of its own.
"""

from collections.abc import Callable
from collections.abc import Container as Keys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from g4eval.errors import SandboxError
from g4eval.sandbox.base import JobResult, Verdict
from g4eval.sandbox.canary import CANARY_EVERY, canary_fault
from g4eval.sandbox.container import Container, Judged, failed_result
from g4eval.sandbox.frames import StreamError
from g4eval.sandbox.judging import SetupError
from g4eval.sandbox.schedule import Schedule, Task

if TYPE_CHECKING:
    from concurrent.futures import Future

_MAX_FAILURES = 2  # of ours, on one job: then IE
_MAX_SETUPS = (
    3  # failures before a job's first line, each in a fresh and proven container: then RTE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """Where a slot gets containers from."""

    make: Callable[[], Container]  # raises SandboxError
    make_ahead: Callable[[], "Future[Container]"]
    discard: Callable[[Container], None]
    recycle_after: int  # jobs


class Slot:
    """Serves a schedule; see the module."""

    def __init__(
        self,
        schedule: Schedule,
        containers: Containers,
        first: Container,
        heard: Callable[[float], None],
    ) -> None:
        self._schedule = schedule
        self._containers = containers
        self._container: Container | None = first
        self._next: Future[Container] | None = None
        self._jobs = 0  # that the container has judged
        self._held: list[tuple[Task, Judged]] = []  # since a canary last vouched for it
        self._heard = heard  # told the overhead of each job, in seconds

    def serve(self) -> None:
        """Judge until the schedule is closed; SandboxError if there can be no container."""
        while (task := self._take()) is not None:
            self._judge(task)
            self._renew()
        if self._next is not None:
            self._containers.discard(self._next.result())

    def _take(self) -> Task | None:
        """Return the next task; while there is none, say what is held."""
        loaded: Keys[str] = self._container.loaded if self._container else ()
        task = self._schedule.take(loaded, wait=False)
        if task is None:
            if self._held:
                self._vouch()
            self._renew()
            task = self._schedule.take(self._container.loaded if self._container else ())
        return task

    def _judge(self, task: Task) -> None:
        if task.is_fresh and self._jobs:
            if self._held:
                self._vouch()
            self._retire()
        if self._container is None:
            self._container = self._containers.make()
        self._jobs += 1
        if task.is_fresh and (fault := canary_fault(self._container)):
            self._lost(task, StreamError(fault))
            return
        try:
            judged = self._container.judge(task.job, task.problem, task.clock)
        except SetupError as error:
            self._not_begun(task, error)
        except StreamError as error:
            self._lost(task, error)
        else:
            self._held.append((task, judged))
            self._schedule.hold(task)
            if judged.is_suspicious or task.is_fresh or len(self._held) >= CANARY_EVERY:
                self._vouch()

    def _vouch(self) -> bool:
        """Run the canary and say what is held, or have it judged again; return which."""
        if self._container is None:
            return False
        fault = canary_fault(self._container)
        held, self._held = self._held, []
        if fault is not None:
            self._container.is_spent = True
        for task, judged in held:
            # A container for one job was proven before it, and nobody else was there.
            if fault is None or task.is_fresh:
                self._settle(task, judged)
            else:
                task.is_fresh = True
                self._schedule.add(task)
        return fault is None

    def _settle(self, task: Task, judged: Judged) -> None:
        """Say a job's result; a time-out that others may have caused is judged once more."""
        if judged.is_suspect and not task.earlier:
            task.earlier.append(judged.result)
            task.clock = "cpu"
            self._schedule.add(task)
            return
        self._heard(judged.overhead_seconds)
        self._resolve(task, _with_history(judged.result, task))

    def _resolve(self, task: Task, result: JobResult) -> None:
        self._schedule.finish(task)
        task.resolve(result)

    def _not_begun(self, task: Task, error: SetupError) -> None:
        """Judge a job again that failed before its first line: that is our failure, at first."""
        assert self._container is not None
        was_fresh, proven = task.is_fresh, self._vouch()
        self._container.is_spent = True
        if was_fresh:
            task.setups += proven
            task.failures += not proven
        if task.setups >= _MAX_SETUPS:
            why = f"{error}; so in {task.setups} fresh containers, where other programs run"
            self._resolve(task, _blamed(task, Verdict.RUNTIME_ERROR, why))
        else:
            self._again(task, error)

    def _lost(self, task: Task, error: StreamError) -> None:
        """Judge a job again whose container ended, and what is held: nothing can vouch for it."""
        assert self._container is not None
        self._container.is_spent = True
        held, self._held = self._held, []
        for other, judged in held:
            if other.is_fresh:
                self._settle(other, judged)
            else:
                other.is_fresh = other.is_repeated
                other.is_repeated = True
                self._schedule.add(other)
        task.failures += 1
        task.memory_kills += self._container.ran_out_of_memory()
        if task.memory_kills >= _MAX_FAILURES:
            self._resolve(
                task, _blamed(task, Verdict.MEMORY_LIMIT, "out of memory, server and all")
            )
        else:
            self._again(task, error)

    def _again(self, task: Task, error: StreamError) -> None:
        if task.failures >= _MAX_FAILURES:
            self._resolve(task, failed_result(task.job, f"the sandbox failed twice: {error}"))
        else:
            task.is_fresh = True
            self._schedule.add(task)

    def _renew(self) -> None:
        """Replace a container that is used up, by one started meanwhile if there is one."""
        if self._container is None:
            return
        most = self._containers.recycle_after
        if self._jobs >= most - most // 4 and self._next is None and not self._container.is_spent:
            self._next = self._containers.make_ahead()
        if self._container.is_spent or self._jobs >= most:
            if self._held:
                self._vouch()
            self._retire()

    def _retire(self) -> None:
        """Give the container back; the next one may be ready already."""
        assert self._container is not None
        self._containers.discard(self._container)
        self._container, self._jobs = None, 0
        if self._next is not None:
            started, self._next = self._next, None
            try:
                self._container = started.result()
            except SandboxError:
                self._container = None  # tried again, with patience, when the next task comes


def _with_history(result: JobResult, task: Task) -> JobResult:
    if not task.earlier:
        return result
    earlier = [
        {"verdict": old.verdict.value, "clock": old.details["clock"], "tests": old.details["tests"]}
        for old in task.earlier
    ]
    return replace(result, details={**result.details, "suspect": earlier})


def _blamed(task: Task, verdict: Verdict, error: str) -> JobResult:
    """Return the result of a job that fails again and again where others don't: it is to blame."""
    return JobResult(
        job_id=task.job.job_id,
        verdict=verdict,
        results=(verdict,),
        error=error,
        details={
            "official_results": [-2],
            "official_error_code": -5,
            "clock": task.clock,
            "tests": [],
            "blamed": task.setups or task.memory_kills,
        },
    )
