"""One submission as the server sees it: a forked child, watched until it ends or is overdue.

The server keeps the clock: it stamps each frame with wall and CPU time it measured itself, and ends
a run that is over or overdue. Frames that came together leave together: a batch carries its time on
the last of its tests. Standard library only.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import time
from typing import Any

from sandboxes.python_judge import child, fair
from sandboxes.python_judge.channel import HEADER, Channel

# Header; run, test; wall, CPU, waited for a core, slept: seconds; the child's kind byte.
_STAMPED = struct.Struct(">cIIIddddc")
_GRACE_SECONDS = 2.0  # an alarm's delivery, a big result's encoding
_SHORT_SECONDS = 0.01
_SMALL_BYTES = 1 << 16  # a frame without output
_CHILD_KINDS = frozenset({b"C", b"F", b"O", b"V", b"X", b"A", b"B", b"S", b"D"})
_LAST_KINDS = frozenset({b"F", b"X", b"B", b"S", b"D"})  # nothing of interest follows
_TEST_KINDS = frozenset({b"O", b"V", b"X", b"S"})
_FIRST_KINDS = _TEST_KINDS | {b"C"}
_NO_LAP = (0.0, 0.0, 0.0, 0.0)
_PR_SET_DUMPABLE = 4
_SIG_DFL = int(signal.SIG_DFL)
_prctl = ctypes.CDLL(None).prctl
_fork = os.fork

Parts = list[bytes | memoryview]


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
        self._n_tests = len(problem.inputs)
        self.why: str | None = None  # done, died, killed, time, output or protocol
        self.unsent: Parts = []  # the last batch; it leaves with the end of the run
        self._alarmed = False
        self._tests = 0
        self._is_ready = False  # a second "ready" would be a way to more time
        self._channel = channel
        self.peak = len(code)
        self._filled = 0  # bytes of the channel's buffer that hold frames not yet relayed
        self._started = time.monotonic()
        # The official wall budget of a whole submission.
        self._end = self._started + (self.wall_limit + 1) * self._n_tests + 5
        self._due = min(self._end, self._started + 2 * self.wall_limit + _GRACE_SECONDS)
        self._socket, theirs = socket.socketpair()
        self.pid = _fork()
        if self.pid == 0:
            _become_child(channel, theirs.fileno(), header, problem)
        theirs.close()
        with contextlib.suppress(ConnectionError):  # it died; `watch` will see
            self._socket.sendall(code)
        self._socket.setblocking(False)  # noqa: FBT003  its only argument
        self._frame_bytes: int = header["output_bytes"] + _SMALL_BYTES
        channel.buffer.at_least(self._frame_bytes + HEADER.size)
        self._meter = Meter(self.pid)

    def watch(self, wakeup: int) -> None:
        """Relay frames until `why` is known."""
        ours = self._socket.fileno()
        poll = select.poll()
        for descriptor in (ours, self._channel.source, wakeup):
            poll.register(descriptor, select.POLLIN)
        while self.why is None:
            left = self._due - time.monotonic()
            if left <= 0:
                self.why = "time"
                break
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000 + 1)]
            if ours in ready:
                self._receive()
            elif self._channel.source in ready:
                self._obey()
            elif wakeup in ready:
                os.read(wakeup, 4096)
                if _is_dead(self.pid):
                    self._drain()

    def close(self) -> None:
        """Close the child's socket, so that nothing it left behind can speak."""
        self._socket.close()

    def summary(self) -> dict[str, Any]:
        """Return what the host is told at the end, but for what the run used."""
        wall, cpu, waited, slept = self._meter.lap()
        return {
            "run": self.number,
            "why": self.why,
            "last": {"wall": wall, "cpu": cpu, "waited": waited, "slept": slept},
            "wall_seconds": time.monotonic() - self._started,
        }

    def _obey(self) -> None:
        frame = self._channel.read()
        if frame is None:
            os._exit(0)  # the host is gone
        if frame[0] == b"K" and int.from_bytes(frame[1], "big") == self.number:
            self.why = "killed"

    def _drain(self) -> None:
        """Take in what a dead child has left in its socket."""
        while self.why is None and self._receive():
            pass
        if self.why is None:
            self.why = "died"

    def _receive(self) -> bool:
        """Take in what is there; return whether there was something."""
        try:
            size = self._socket.recv_into(self._channel.buffer.view[self._filled :])
        except BlockingIOError:
            return False
        except ConnectionError:
            size = 0
        if not size:
            self.why = "died"
            return False
        self._filled += size
        self.peak = max(self.peak, self._filled)
        self._relay()
        return True

    def _relay(self) -> None:
        """Send all whole frames on; the last batch of a run is left in `unsent`."""
        view, start = self._channel.buffer.view, 0
        batch: list[tuple[bytes, int, memoryview]] = []
        while self.why is None and self._filled - start >= HEADER.size:
            kind, length = HEADER.unpack_from(view, start)
            end = start + HEADER.size + length
            if kind not in _CHILD_KINDS or (kind == b"C" and self._is_ready):
                self.why = "protocol"
            elif length > self._frame_bytes:
                self.why = "output"
            elif end > self._filled:
                break
            else:
                batch.append((kind, self._tests, view[start + HEADER.size : end]))
                start = end
                self._is_ready |= kind in _FIRST_KINDS
                self._tests += kind in _TEST_KINDS
                if kind in _LAST_KINDS or self._tests >= self._n_tests:
                    self.why = "done"
        self.unsent = self._stamped(batch)
        if self.why is None:
            self._set_due(batch)
            self._channel.send(self.unsent)
            self._filled = self._channel.buffer.move_to_front(start, self._filled)

    def _set_due(self, batch: list[tuple[bytes, int, memoryview]]) -> None:
        """Move the deadline: a frame starts the next test's time, an alarm ends this one's."""
        now = time.monotonic()
        for kind, _, _ in batch:
            if kind != b"A":
                self._due = min(self._end, now + self.wall_limit + _GRACE_SECONDS)
                self._alarmed = False
            elif not self._alarmed:
                self._alarmed = True
                # A functional submission may swallow the alarm and still return, as officially.
                late = self._end if self._functional else now + _GRACE_SECONDS
                self._due = min(self._end, late)

    def _stamped(self, batch: list[tuple[bytes, int, memoryview]]) -> Parts:
        """Return a batch as the host gets it, its time on the last test, else on "ready"."""
        timed = max((n for n, (kind, _, _) in enumerate(batch) if kind in _FIRST_KINDS), default=-1)
        parts: Parts = []
        for n, (kind, test, payload) in enumerate(batch):
            lap = self._meter.lap() if n == timed else _NO_LAP
            size = _STAMPED.size - HEADER.size + len(payload)
            parts += (_STAMPED.pack(b"T", size, self.number, test, *lap, kind), payload)
        return parts


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
        child.set_handler(signal.SIGCHLD, _SIG_DFL)
        child.set_handler(signal.SIGINT, signal.default_int_handler)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        set_dumpable(1)
        adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(adjust, b"1000")  # out of memory, the kernel takes the child and not the server
        os.close(adjust)
        job = child.Job(header, problem, _read_exactly(3, header["code_bytes"]))
        child.run(job, fair.run_fair if header["reading"] == "fair" else child.run_official, 3)
    finally:
        os._exit(1)


def set_dumpable(value: int) -> bool:
    """Open or shut this process's memory and descriptors to others of its user."""
    return bool(_prctl(_PR_SET_DUMPABLE, value, 0, 0, 0) == 0)


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return bytes(data)


def _is_dead(pid: int) -> bool:
    """Return whether the child ended; it stays a zombie, for `sweep` to count."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
