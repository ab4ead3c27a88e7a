"""One hardened container and the conversation with the server in it.

What the flags are for, and what they don't cover: sandboxes/python_judge/README.md.
"""

import contextlib
import os
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g4eval.bundled import bundled_dir
from g4eval.sandbox.base import CodeJob, JobResult, Verdict
from g4eval.sandbox.frames import Frame, FrameStream, StreamError
from g4eval.sandbox.judging import Judging
from g4eval.sandbox.protocol import (
    SETUP_SECONDS,
    SMALL_FRAME_BYTES,
    End,
    frame_limit,
    kill_message,
    load_message,
    output_limit,
    read_end,
    read_json,
    read_report,
    run_message,
    unload_message,
)
from g4eval.sandbox.values import read_expected

LABEL = "org.g4eval.judge"
OWNER_LABEL = "org.g4eval.judge.owner"
_START_SECONDS = 60.0
_PATIENCE_SECONDS = 15.0  # beyond what the server itself allows, before we call it dead
_EVENT_SECONDS = 2
_LOADED_BYTES = 16 << 20
_FIRST_USER = 20_000
PLACES = 20_000  # the last user is below 65,536, the end of a user namespace of Docker's
# What the server needs to be another user than its children and to end them; they have none.
_SERVER_CAPABILITIES = ("SETUID", "SETGID", "KILL", "SETPCAP")
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may use."""

    memory_bytes: int = 4 << 30
    scratch_bytes: int = 64 * _MEBIBYTE
    scratch_inodes: int = 1024
    file_bytes: int = 16 * _MEBIBYTE
    processes: int = 64
    open_files: int = 256
    stack_bytes: int = 8 * _MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The inputs of one problem and what its tests may print; outputs stay here."""

    key: str
    fn_name: str | None
    inputs: tuple[str, ...]
    output_bytes: int
    input_bytes: int
    fault: str | None  # why no program can be judged on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A result, and what the pool must know beside it."""

    result: JobResult
    is_suspect: bool  # a time-out that others on the machine may have caused
    is_suspicious: bool  # an end after which the container has to prove itself
    overhead_seconds: float  # the slot's time less the run's


def container_options(
    limits: Limits, *, image: str, place: int, core: int | None, runtime: str | None, owner: str
) -> dict[str, Any]:
    """Return the arguments of `client.containers.create`.

    `place` (0 to PLACES - 1) decides whom server and submissions run as: two users that no other
    container of this machine has, so that what the kernel counts by user is counted apart.
    """
    from docker.types import LogConfig, Ulimit

    scratch = (
        f"size={limits.scratch_bytes},nr_inodes={limits.scratch_inodes},"
        "noexec,nosuid,nodev,mode=1777"
    )
    seccomp = (bundled_dir("sandboxes") / "python_judge" / "seccomp.json").read_text()
    return {
        "image": image,
        "command": [str(_FIRST_USER + 2 * place)],
        "stdin_open": True,
        "auto_remove": True,
        "network_mode": "none",
        "read_only": True,
        # Docker mounts the kernel's message queues whatever the IPC mode: anyone's files, for good.
        "tmpfs": {"/tmp": scratch, "/dev/mqueue": "ro,size=4k,nr_inodes=1,mode=555"},  # noqa: S108  inside the container
        "cap_drop": ["ALL"],
        "cap_add": list(_SERVER_CAPABILITIES),
        "security_opt": ["no-new-privileges", f"seccomp={seccomp}"],
        "pids_limit": limits.processes,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "cpuset_cpus": None if core is None else str(core),
        "user": "0:0",
        "ulimits": [
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
            Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
            Ulimit(name="stack", soft=limits.stack_bytes, hard=limits.stack_bytes),
        ],
        "ipc_mode": "none",
        "init": False,
        "log_config": LogConfig(type=LogConfig.types.NONE),
        "runtime": runtime,
        "labels": {LABEL: "1", OWNER_LABEL: owner},
    }


def owner_label() -> str:
    """Return who owns containers started by this process: host, process id, its start time."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def owner_is_dead(label: str) -> bool:
    """Return whether a container's owner ran on this host and is gone."""
    host, _, rest = label.rpartition(":")
    host, _, pid = host.rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and _started(int(pid)) != rest


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    return stat.rpartition(")")[2].split()[19]


@dataclass(slots=True, eq=False)
class Container:
    """A started container. One thread uses it; any failure is a StreamError and its end."""

    handle: Any  # docker.models.containers.Container
    stream: FrameStream
    attachment: Any  # keeps the HTTP connection under the stream open
    hello: dict[str, Any] = field(default_factory=dict)
    jobs: int = 0
    is_spent: bool = False
    loaded: "OrderedDict[str, int]" = field(default_factory=OrderedDict)  # key -> bytes

    @classmethod
    def start(cls, client: Any, options: dict[str, Any]) -> "Container":
        """Create, attach, start and greet; raises Docker's errors and StreamError."""
        handle = client.containers.create(**options)
        container: Container | None = None
        try:
            # Attached before the start, so that not a byte is missed; when this process ends in
            # whatever way, its end of the stream closes, the server exits and Docker removes it.
            attachment = client.api.attach_socket(
                handle.id, params={"stdin": 1, "stdout": 1, "stream": 1}
            )
            container = cls(
                handle, FrameStream(getattr(attachment, "_sock", attachment)), attachment
            )
            handle.start()
            hello = container._receive(_START_SECONDS, SMALL_FRAME_BYTES)
        except BaseException:
            if container is not None:
                container._detach()
            _remove(handle)
            raise
        container.hello = read_json(hello)
        return container

    def judge(
        self, job: CodeJob, problem: Problem, clock: str = "wall", *, look: bool = False
    ) -> Judged:
        """Run one job to its verdict; `look` whether the server is still as it was."""
        started = time.monotonic()
        self._load(problem)
        self.jobs += 1
        number = self.jobs
        self._send(
            b"R",
            run_message(number, problem.key, job, clock, problem.output_bytes, look=look),
        )
        judging = Judging(job, clock)
        end = self._follow(number, judging, job, problem)
        if end.state:
            raise StreamError(f"an earlier run changed what the server is: {end.state}")
        result = judging.finish(end)
        if end.why == "protocol" or not end.clean or end.out_of_memory:
            self.is_spent = True
        return Judged(
            result=result,
            is_suspect=judging.is_suspect,
            is_suspicious=_is_suspicious(end),
            overhead_seconds=time.monotonic() - started - end.wall_seconds,
        )

    def run_program(self, job: CodeJob, problem: Problem) -> str:
        """Run a program of ours and return what it printed; StreamError if it doesn't end well."""
        self._load(problem)
        self.jobs += 1
        self._send(b"R", run_message(self.jobs, problem.key, job, "wall", problem.output_bytes))
        output = ""
        while (frame := self._receive(_START_SECONDS, SMALL_FRAME_BYTES)).kind != b"E":
            report = read_report(frame)
            if report.kind == b"O":
                output += report.payload.decode("utf-8", "replace")
            elif report.kind == b"X":
                output += f"{report.payload!r}"
        return output

    def ran_out_of_memory(self) -> bool:
        """Return whether the kernel killed in it for memory, as Docker was told; never raises."""
        from docker.errors import APIError

        until = int(time.time()) + _EVENT_SECONDS  # what has happened may be told a little later
        wanted = {"container": self.handle.id, "event": "oom"}
        client = self.handle.client
        try:
            with contextlib.closing(
                client.events(since=until - 3600, until=until, filters=wanted, decode=True)
            ) as events:
                return any(True for _ in events)
        except (APIError, OSError, ValueError):
            return False

    def remove(self) -> None:
        """End it, whatever it is doing; never raises."""
        self.is_spent = True
        self._detach()
        _remove(self.handle)

    def _detach(self) -> None:
        """Close the connection under the stream, of which docker-py holds three layers."""
        self.stream.shut()
        response = getattr(self.attachment, "_response", None)
        for layer in (response, self.attachment, getattr(self.attachment, "_sock", None)):
            if layer is not None:
                with contextlib.suppress(OSError, ValueError):  # closed by the one before
                    layer.close()

    def _follow(self, number: int, judging: Judging, job: CodeJob, problem: Problem) -> End:
        limit = job.time_limit_seconds
        silence = max(SETUP_SECONDS, 2 * limit) + _PATIENCE_SECONDS
        budget = (limit + 1) * len(problem.inputs) + 5 + _PATIENCE_SECONDS
        longest = frame_limit(problem.output_bytes)
        told = False
        while True:
            frame = self._receive(silence, longest)
            if frame.kind == b"E":
                end = read_end(frame)
                if end.run != number:
                    raise StreamError(f"the end of run {end.run} during run {number}")
                return end
            if frame.kind == b"W":
                continue  # it still waits for its core
            report = read_report(frame)
            if report.run != number:
                raise StreamError(f"a frame of run {report.run} during run {number}")
            if report.kind == b"A" and job.fn_name is not None:
                silence = 2 * budget
            judging.report(report)
            if judging.must_kill and not told:
                self._send(b"K", kill_message(number))
                told = True

    def _load(self, problem: Problem) -> None:
        if problem.key in self.loaded:
            self.loaded.move_to_end(problem.key)
            return
        while self.loaded and sum(self.loaded.values()) + problem.input_bytes > _LOADED_BYTES:
            key, _ = self.loaded.popitem(last=False)
            self._send(b"U", unload_message(key))
        self._send(b"L", load_message(problem.key, problem.fn_name, problem.inputs))
        self.loaded[problem.key] = problem.input_bytes

    def _send(self, kind: bytes, payload: bytes) -> None:
        seconds = _START_SECONDS + len(payload) / _MEBIBYTE
        self.stream.send(kind, payload, timeout_seconds=seconds)

    def _receive(self, timeout_seconds: float, max_bytes: int) -> Frame:
        return self.stream.receive(timeout_seconds=timeout_seconds, max_bytes=max_bytes)


def _is_suspicious(end: End) -> bool:
    """Return whether a run ended in a way after which its container has to prove itself."""
    fell = end.why == "died" and (end.status is None or end.status < 0)
    odd = end.why in ("time", "bound", "protocol", "setup")
    return fell or odd or end.out_of_memory or not end.clean


def describe_problem(key: str, job: CodeJob) -> Problem:
    """Return what a container needs to know of a job's tests: everything but the outputs."""
    inputs = tuple(test.input for test in job.tests)
    return Problem(
        key=key,
        fn_name=job.fn_name,
        inputs=inputs,
        output_bytes=output_limit([test.output for test in job.tests]),
        input_bytes=sum(map(len, inputs)),
        fault=_fault(job),
    )


def _fault(job: CodeJob) -> str | None:
    """Return why a job can't be judged: its tests, not its program, are at fault."""
    if not job.tests:
        return "the job has no tests"
    if job.fn_name is not None:
        for number, test in enumerate(job.tests):
            try:
                read_expected(test.output)
            except (ValueError, RecursionError) as error:
                return f"the expected output of test {number} is no JSON: {error}"
    return None


def failed_result(job: CodeJob, reason: str) -> JobResult:
    """Return the result of a job that we failed to judge."""
    return JobResult(job_id=job.job_id, verdict=Verdict.INTERNAL_ERROR, results=(), error=reason)


def _remove(handle: Any) -> None:
    from docker.errors import APIError

    try:
        handle.remove(force=True)
    except (APIError, OSError):
        pass  # already going or gone: it removes itself
    except Exception as error:  # requests' own errors when the daemon is away
        if "requests" not in type(error).__module__:
            raise
