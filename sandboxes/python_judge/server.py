"""The process that runs a container: PID 1, one child per submission, nothing left between two.

It talks to the host over its standard input and output, which no child ever holds, in frames: one
kind byte, a 4-byte big-endian length, the payload (JSON unless said).

    host -> server   L load {key, fn_name, inputs}     U unload {key}
                     R run: the length of a JSON header, 4 bytes; the header {run, key,
                       limit_seconds, clock, reading, output_bytes}; the code, UTF-8
                     K kill: the run's number, 4 bytes; ignored when that run is over
    server -> host   H hello {python, packages, features}
                     T a child's frame: stamps (`_STAMPS`), then its kind byte and its payload
                     E end of the run {run, why, ...}, after everything it left is gone

The server never runs or parses a submission. It keeps the clock: it stamps each frame with wall
and CPU time it measured itself, and kills a child that is overdue. Code and outputs pass through
memory that forked children don't get (channel.py), so that a submission can't copy what an earlier
one of the same problem printed. Threat model: README.md. Standard library only.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time
from pathlib import Path
from typing import Any

from sandboxes.python_judge import child, fair
from sandboxes.python_judge.channel import HEADER, Channel

_STAMPS = struct.Struct(">IIdddd")  # run, test, wall, CPU, waited for a core, slept: seconds
_GRACE_SECONDS = 2.0  # an alarm's delivery, a big result's encoding
_libc = ctypes.CDLL(None)
_PRELOADED = ("numpy",)
_SCRATCH = Path("/tmp")
_SHORT_SECONDS = 0.01
_SMALL_BYTES = 1 << 16  # a frame without output
_CHILD_KINDS = frozenset({b"C", b"F", b"O", b"V", b"X", b"A", b"B", b"S", b"D"})
_PR_SET_DUMPABLE = 4
_OOM_COUNTERS = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")


class Meter:
    """Wall, CPU and waiting time of the child and its threads, as the kernel counts them."""

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | 2  # the CPU clock of another process: clock_getcpuclockid(3)
        self._tasks = f"/proc/{pid}/task"
        self._last = (time.monotonic(), 0.0, 0.0)

    def lap(self) -> tuple[float, float, float, float]:
        """Return wall, CPU, waited and slept seconds since the last lap.

        The wait is read from /proc only where it can matter; until then it adds up.
        """
        before = self._last
        now = time.monotonic()
        waited = self._waited() if now - before[0] >= _SHORT_SECONDS else before[2]
        self._last = (now, self._cpu(), waited)
        wall, cpu, wait = (max(0.0, x - y) for x, y in zip(self._last, before, strict=True))
        return wall, cpu, wait, max(0.0, wall - cpu - wait)

    def _cpu(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return self._last[1]

    def _waited(self) -> float:
        try:
            total = 0
            for task in os.listdir(self._tasks):
                with open(f"{self._tasks}/{task}/schedstat", "rb") as file:
                    total += int(file.read().split()[1])
            return total / 1e9
        except (OSError, IndexError, ValueError):
            return self._last[2]


class Run:
    """One child, watched until it ends or is overdue."""

    def __init__(
        self, header: dict[str, Any], problem: child.Problem, code: memoryview, channel: Channel
    ) -> None:
        self.number: int = header["run"]
        limit: float = header["limit_seconds"]
        self.wall_limit = limit * 3 if header["clock"] == "cpu" else limit
        self._functional = problem.fn_name is not None
        self.output_bytes: int = header["output_bytes"]
        self.why: str | None = None
        self._alarmed = False
        self._tests = 0
        self._channel = channel
        self.peak = len(code)
        self._filled = 0  # bytes of the channel's buffer that hold frames not yet relayed
        self._started = time.monotonic()
        # The official wall budget of a whole submission.
        self._end = self._started + (self.wall_limit + 1) * len(problem.inputs) + 5
        self._due = min(self._end, self._started + 2 * self.wall_limit + _GRACE_SECONDS)
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _become_child(channel, theirs.fileno(), header, problem)
        theirs.close()
        self._socket = ours
        with contextlib.suppress(ConnectionError):  # it died; `watch` will see
            ours.sendall(code)
        self._frame_bytes = self.output_bytes + _SMALL_BYTES
        channel.buffer.at_least(self._frame_bytes + HEADER.size)
        self._meter = Meter(self.pid)

    def watch(self, wakeup: int) -> None:
        """Relay frames until `why` is known: done, died, killed, time, output or protocol."""
        poll = select.poll()
        for descriptor in (self._socket.fileno(), self._channel.source, wakeup):
            poll.register(descriptor, select.POLLIN)
        while self.why is None:
            left = self._due - time.monotonic()
            if left <= 0:
                self.why = "time"
                break
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000 + 1)]
            if self._socket.fileno() in ready:
                self._receive()
            elif self._channel.source in ready:
                self._obey()
            elif wakeup in ready:
                os.read(wakeup, 4096)
                if _is_dead(self.pid):
                    self._receive(drain=True)
                    self._note("died")

    def _note(self, why: str) -> None:
        """Note how the run ended, unless that is known."""
        if self.why is None:
            self.why = why

    def close(self) -> None:
        """Close the child's socket, so that nothing it left behind can speak."""
        self._socket.close()

    def _obey(self) -> None:
        frame = self._channel.read()
        if frame is None:
            os._exit(0)  # the host is gone
        if frame[0] == b"K" and int.from_bytes(frame[1], "big") == self.number:
            self.why = "killed"

    def _receive(self, *, drain: bool = False) -> None:
        self._socket.setblocking(False)  # noqa: FBT003  its only argument
        try:
            while self.why is None:
                size = self._socket.recv_into(self._channel.buffer.view[self._filled :])
                if not size:
                    self.why = "died"
                self._filled += size
                self.peak = max(self.peak, self._filled)
                self._relay()
                if not drain:
                    return
        except BlockingIOError:
            return
        except ConnectionError:
            self.why = "died"

    def _relay(self) -> None:
        view, start = self._channel.buffer.view, 0
        while self.why is None and self._filled - start >= HEADER.size:
            kind, length = HEADER.unpack_from(view, start)
            end = start + HEADER.size + length
            if kind not in _CHILD_KINDS:
                self.why = "protocol"
            elif length > self._frame_bytes:
                self.why = "output"
            elif end > self._filled:
                break
            else:
                self._take(kind, view[start + HEADER.size : end])
                start = end
        self._filled = self._channel.buffer.move_to_front(start, self._filled)

    def _take(self, kind: bytes, payload: memoryview) -> None:
        if kind == b"D":
            self.why = "done"
            return
        now = time.monotonic()
        if kind != b"A":
            self._due = min(self._end, now + self.wall_limit + _GRACE_SECONDS)
            self._alarmed = False
        elif not self._alarmed:
            self._alarmed = True
            # A functional submission may swallow the alarm and still return, as officially.
            self._due = self._end if self._functional else min(self._end, now + _GRACE_SECONDS)
        laps = self._meter.lap() if kind in b"COVXS" else (0.0, 0.0, 0.0, 0.0)
        self._channel.write(b"T", _STAMPS.pack(self.number, self._tests, *laps), kind, payload)
        self._tests += kind in b"OVXS"

    def summary(self, usage: "Usage") -> dict[str, Any]:
        """Return what the host is told at the end."""
        wall, cpu, waited, slept = self._meter.lap()
        return {
            "run": self.number,
            "why": self.why,
            "tests": self._tests,
            "last": {"wall": wall, "cpu": cpu, "waited": waited, "slept": slept},
            "wall_seconds": time.monotonic() - self._started,
            **vars(usage),
        }


class Usage:
    """What a run used and how its child ended."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.memory_bytes = 0
        self.status: int | None = None  # as os.waitstatus_to_exitcode
        self.out_of_memory = False
        self.processes = 0
        self.clean = False


def main() -> None:
    """Serve until the host closes the stream."""
    if os.getpid() != 1:
        sys.exit("this server kills every other process it sees: it runs as PID 1 of a container")
    channel = Channel(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    sys.stdin.close()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  for good
    os.environ.pop("PYTHONPATH", None)
    child.execute_prelude()
    features = _harden()
    wakeup = _wake_on_children()
    packages = {name: importlib.import_module(name).__version__ for name in _PRELOADED}
    gc.collect()
    gc.freeze()
    hello = {"python": sys.version.split()[0], "packages": packages, "features": features}
    channel.write(b"H", json.dumps(hello).encode())
    problems: dict[str, child.Problem] = {}
    kills = OutOfMemoryKills()
    while (frame := channel.read()) is not None:
        kind, payload = frame
        if kind == b"K":
            continue
        if kind == b"R":
            (size,) = struct.unpack_from(">I", payload)
            header, code = json.loads(bytes(payload[4 : 4 + size])), payload[4 + size :]
            header["code_bytes"] = len(code)
            _serve(
                header=header,
                problem=problems[header["key"]],
                code=code,
                channel=channel,
                wakeup=wakeup,
                kills=kills,
            )
            continue
        message = json.loads(bytes(payload))
        if kind == b"L":
            problems[message["key"]] = child.Problem(message["fn_name"], message["inputs"])
            channel.buffer.release(len(payload))
        elif kind == b"U":
            problems.pop(message["key"], None)


def _serve(
    *,
    header: dict[str, Any],
    problem: child.Problem,
    code: memoryview,
    channel: Channel,
    wakeup: int,
    kills: "OutOfMemoryKills",
) -> None:
    run = Run(header, problem, code, channel)
    run.watch(wakeup)
    last = run.summary(Usage())
    usage = _sweep(run.pid)
    run.close()
    usage.out_of_memory = usage.status == -signal.SIGKILL and kills.has_grown()
    usage.clean = _empty(_SCRATCH)
    channel.write(b"E", json.dumps(last | vars(usage)).encode())
    channel.buffer.release(run.peak)


def _become_child(
    channel: Channel, descriptor: int, header: dict[str, Any], problem: child.Problem
) -> None:
    """Give up everything of the server's, take the code in and run it; never returns."""
    try:
        os.close(channel.source)
        os.close(channel.sink)
        os.dup2(descriptor, 3)
        os.closerange(4, 256)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        _set_dumpable(1)
        adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(adjust, b"1000")  # out of memory, the kernel takes the child and not the server
        os.close(adjust)
        job = child.Job(header, problem, _read_exactly(3, header["code_bytes"]))
        child.run(job, fair.run_fair if header["reading"] == "fair" else child.run_official, 3)
    finally:
        os._exit(1)


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return bytes(data)


def _sweep(pid: int) -> Usage:
    """Kill every other process of the container and reap until none is left."""
    usage = Usage()
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    while True:
        try:
            reaped, status, resources = os.wait4(-1, 0)
        except ChildProcessError:
            return usage
        usage.processes += 1
        usage.cpu_seconds += resources.ru_utime + resources.ru_stime
        usage.memory_bytes = max(usage.memory_bytes, resources.ru_maxrss * 1024)
        if reaped == pid:
            usage.status = os.waitstatus_to_exitcode(status)


def _is_dead(pid: int) -> bool:
    """Return whether the child ended; it stays a zombie, for `_sweep` to count."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _empty(folder: Path) -> bool:
    """Delete what is in a folder, following no link; return whether it is empty now."""
    try:
        pending = [Path(entry.path) for entry in os.scandir(folder)]
        while pending:
            path = pending[-1]
            if not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()
                pending.pop()
                continue
            path.chmod(0o700)
            inside = [Path(entry.path) for entry in os.scandir(path)]
            if inside:
                pending += inside
            else:
                path.rmdir()
                pending.pop()
    except OSError:
        return False
    return True


class OutOfMemoryKills:
    """The kernel's count of processes of this container that it killed for memory."""

    def __init__(self) -> None:
        self._seen = self._count()

    def has_grown(self) -> bool:
        """Return whether there was one since the last call."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        for name in _OOM_COUNTERS:
            with contextlib.suppress(OSError):
                lines = Path(name).read_text().splitlines()
                return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0


def _harden() -> dict[str, bool]:
    """Shut this process's memory and descriptors to its own children."""
    features = {"not_dumpable": _set_dumpable(0)}
    with contextlib.suppress(OSError):  # it only saves time: frames are relayed in batches
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        features["batch"] = True
    sys.set_int_max_str_digits(child.MAX_INT_DIGITS)  # officially set before inputs are parsed
    return features


def _set_dumpable(value: int) -> bool:
    return bool(_libc.prctl(_PR_SET_DUMPABLE, value, 0, 0, 0) == 0)


def _wake_on_children() -> int:
    source, sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Without a handler, the kernel drops every signal that children send to PID 1.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    return source


if __name__ == "__main__":
    main()
