"""The Docker sandbox: a pool of warm, hardened containers, one a slot, one thread a slot.

A job that fails on our side is tried again in a container of its own, then reported as IE. A
time-out that may be the machine's fault is judged once more, its limit then counting only time that
others left it; that run decides and both are kept. Containers are replaced after `recycle_after`
jobs, and at once after anything out of turn. What a slot does: slot.py.
"""

import asyncio
import hashlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from g4eval.errors import MissingExtraError, SandboxError
from g4eval.records import Json
from g4eval.sandbox.base import CodeJob, JobResult
from g4eval.sandbox.canary import canary_fault
from g4eval.sandbox.container import (
    LABEL,
    OWNER_LABEL,
    PLACES,
    Container,
    Limits,
    Problem,
    container_options,
    describe_problem,
    failed_result,
    owner_is_dead,
    owner_label,
)
from g4eval.sandbox.frames import StreamError
from g4eval.sandbox.image import image_tag
from g4eval.sandbox.schedule import Schedule, Task
from g4eval.sandbox.selftest import check_container
from g4eval.sandbox.slot import Containers, Slot

_DAEMON_HINT = (
    "start Docker (`systemctl start docker`, or `dockerd` as root) and check that this user may "
    "use it: `docker info`"
)
_REMEMBERED_PROBLEMS = 16  # each holds its tests, which can be 10 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How a pool is laid out."""

    slots: int | None = None  # None: cores less one, at least one
    image: str | None = None  # None: the image built from this version's sources
    runtime: str | None = None  # None: the daemon's default; "runsc" for gVisor
    recycle_after: int = 200
    daemon_patience_seconds: float = 60.0  # how long a daemon may be away
    limits: Limits = field(default_factory=Limits)


class DockerSandbox:
    """Judges jobs in Docker containers. See g4eval/sandbox/base.py for the Protocol.

    Covers and doesn't cover: sandboxes/python_judge/README.md.
    """

    def __init__(self, options: PoolOptions | None = None) -> None:
        self.options = options or PoolOptions()
        cores = sorted(os.sched_getaffinity(0))
        self.slots = self.options.slots or max(1, len(cores) - 1)
        self._cores = cores
        self._schedule = Schedule()
        self._threads: list[threading.Thread] = []
        self._client: Any = None
        self._background: ThreadPoolExecutor | None = None
        self._problems: OrderedDict[int, tuple[Any, Problem]] = OrderedDict()
        self._facts: dict[str, Json] = {}
        self._containers: set[Container] = set()
        self._lock = threading.Lock()
        self._checked = False
        self.overheads: list[float] = []  # seconds a job, beside the run's own time

    def describe(self) -> dict[str, Json]:
        """Return what belongs in a run's manifest: image, runtime, packages, limits."""
        return dict(self._facts)

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:  # interrupted: what the thread has started must go again
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.to_thread(self._stop)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._stop)

    async def judge(self, job: CodeJob) -> JobResult:
        """Return the verdict; IE for a failure of ours; SandboxError if the pool can't go on."""
        problem = self._problem_of(job)
        if problem.fault is not None:
            return failed_result(job, problem.fault)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[JobResult] = loop.create_future()

        def settle(outcome: JobResult | BaseException) -> None:
            if future.done():
                return
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        def resolve(outcome: JobResult | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, outcome)

        self._schedule.add(Task(job=job, problem=problem, resolve=resolve))
        return await future

    def _problem_of(self, job: CodeJob) -> Problem:
        """Describe a job's problem; jobs that share their list of tests are described once."""
        known = self._problems.get(id(job.tests))
        if known is not None and known[0] is job.tests and known[1].fn_name == job.fn_name:
            return known[1]
        digest = hashlib.sha256(repr(job.fn_name).encode())
        for test in job.tests:
            digest.update(len(test.input).to_bytes(8, "big"))
            digest.update(test.input.encode("utf-8", "surrogatepass"))
        problem = describe_problem(digest.hexdigest(), job)
        self._problems[id(job.tests)] = (job.tests, problem)
        if len(self._problems) > _REMEMBERED_PROBLEMS:
            self._problems.popitem(last=False)
        return problem

    def _start(self) -> None:
        self._client = connect()
        self._sweep()
        image = self.options.image or image_tag()
        self._facts = {
            "image": image,
            "image_id": _image_id(self._client, image),
            "runtime": self.options.runtime or "the daemon's default",
            "limits": asdict(self.options.limits),
        }
        self._background = ThreadPoolExecutor(self.slots * 2, "judge-containers")
        firsts = [self._background.submit(self._new_container, slot) for slot in range(self.slots)]
        try:
            containers = [first.result() for first in firsts]
        except BaseException:
            self._stop()
            raise
        for slot, container in enumerate(containers):
            thread = threading.Thread(
                target=self._serve, args=(slot, container), name=f"judge-slot-{slot}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _stop(self) -> None:
        for task in self._schedule.close():
            task.resolve(SandboxError("the sandbox was closed", hint="grade the run again"))
        with self._lock:
            containers = list(self._containers)
            self._containers.clear()
        if self._background is not None:
            list(self._background.map(Container.remove, containers))
        for thread in self._threads:
            thread.join()
        if self._background is not None:
            self._background.shutdown(wait=True)
        if self._client is not None:
            with self._lock:
                late = list(self._containers)
            for container in late:
                container.remove()
            self._client.close()

    def _sweep(self) -> None:
        """Remove containers whose owner died without removing them.

        Of a list alone: a container that is going just then, another process's perhaps, can be
        listed and not be there to be looked at.
        """
        from docker.errors import APIError

        for row in self._client.api.containers(all=True, filters={"label": LABEL}):
            if owner_is_dead((row.get("Labels") or {}).get(OWNER_LABEL, "")):
                with suppress(APIError):
                    self._client.api.remove_container(row["Id"], force=True)

    def _serve(self, slot: int, first: Container) -> None:
        """Judge in this slot until the schedule is closed; without a container, none can go on."""
        assert self._background is not None
        ahead = self._background
        containers = Containers(
            make=lambda: self._new_container(slot),
            make_ahead=lambda: ahead.submit(self._new_container, slot),
            discard=self._discard,
            recycle_after=self.options.recycle_after,
        )
        try:
            Slot(self._schedule, containers, first, self.overheads.append).serve()
        except Exception as error:  # noqa: BLE001  a bug of ours too: nobody may wait for ever
            for task in self._schedule.close():
                task.resolve(error)

    def _discard(self, container: Container) -> None:
        with self._lock:
            self._containers.discard(container)
        assert self._background is not None
        try:
            self._background.submit(container.remove)
        except RuntimeError:  # the pool is closing
            container.remove()

    def _new_container(self, slot: int) -> Container:
        """Start a container, waiting for a daemon that is away; SandboxError if it stays away."""
        options = container_options(
            self.options.limits,
            image=self._facts["image"],
            place=secrets.randbelow(PLACES),
            core=self._cores[-1 - slot % len(self._cores)],
            runtime=self.options.runtime,
            owner=owner_label(),
        )
        deadline = time.monotonic() + self.options.daemon_patience_seconds
        container: Container | None = None
        while container is None:
            try:
                container = self._checked_first(Container.start(self._client, options))
            except Exception as error:
                if not _is_passing(error) or time.monotonic() > deadline:
                    raise SandboxError(
                        f"a judge container can't be started: {error}", hint=_DAEMON_HINT
                    ) from error
                time.sleep(0.5)
        return container

    def _checked_first(self, container: Container) -> Container:
        """Return a new container; the first of all must hold and judge what is known."""
        with self._lock:
            self._containers.add(container)
            if self._checked:
                return container
            check_container(container)
            fault = canary_fault(container)
            self._checked = fault is None
            self._facts.update(container.hello)
        if fault is not None:
            self._discard(container)
            raise StreamError(fault)
        return container


def check_ready() -> None:
    """Raise NotReadyError, saying what to do, where no job could be judged on this machine."""
    with closing(connect()) as client:
        _image_id(client, image_tag())


def connect() -> Any:
    """Return a client of the Docker daemon, or say what is missing."""
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise MissingExtraError(
            "judging code needs the docker package, which is not installed",
            hint="pip install 'g4eval[docker]'",
        ) from error
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        # Asked here, since docker's own client would leave a socket open.
        raise SandboxError("no Docker daemon answers", where=host, hint=_DAEMON_HINT)
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except DockerException as error:
        raise SandboxError(f"no Docker daemon answers: {error}", hint=_DAEMON_HINT) from error
    return client


def _image_id(client: Any, image: str) -> str:
    from docker.errors import ImageNotFound

    try:
        return str(client.images.get(image).id)
    except ImageNotFound as error:
        raise SandboxError(
            f"there is no image {image!r}", hint="g4eval doctor --build-sandbox"
        ) from error


def _is_passing(error: Exception) -> bool:
    """Return whether an error of Docker's may go away by itself: the daemon restarts, is busy."""
    from docker.errors import APIError, ImageNotFound, NotFound

    if isinstance(error, ImageNotFound):
        return False
    if isinstance(error, NotFound):  # somebody removed the new container: `docker container prune`
        return True
    if isinstance(error, APIError):
        return bool(error.response is None or error.response.status_code >= 500)
    return isinstance(error, (StreamError, OSError)) or "requests" in type(error).__module__
