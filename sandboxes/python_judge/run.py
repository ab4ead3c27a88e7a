"""One submission as the server sees it: a forked child, watched until it ends or is overdue.

The server keeps the clock: it stamps each frame with wall and CPU time it measured itself, and ends
a run that is over or overdue. Frames that came together leave together: a batch carries its time on
the last of its tests. Only what the child itself sent counts, not what its children did: the
kernel names the sender. Whose turn it is: turns.py. Standard library only.
"""

import contextlib
import math
import os
import select
import signal
import socket
import struct
import time
from typing import Any

from sandboxes.python_judge import child, fair
from sandboxes.python_judge.channel import HEADER, Channel
from sandboxes.python_judge.identity import become_submission
from sandboxes.python_judge.meter import ContainerClock, Lap, Meter
from sandboxes.python_judge.turns import ALARM, BEGUN, FRAME, LOADING, SETTING_UP, Turns

# Header; run, test; wall, CPU, waited for a core, slept: seconds; the child's kind byte.
_STAMPED = struct.Struct(">cIIIddddc")
_SETUP_SECONDS = 30.0  # of ours, before the submission's first line, on a machine that is busy
_GRACE_SECONDS = 2.0  # an alarm's delivery, a big result's encoding
_LEAST_SECONDS = 0.05  # between two looks at a clock that others slow down
_FINAL_SHARE = 0.9  # of the limit: who had that much of its own at the bound is over time
_ALARM_SHARE = 0.75  # of the limit: an alarm before that is not ours
_SMALL_BYTES = 1 << 16  # a frame without output
_TIMED_KINDS = frozenset({b"C", b"O", b"V", b"X", b"S"})
_CREDENTIALS = struct.Struct("3i")  # process, user, group of who sent
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size)
_NO_LAP = Lap()
_SIG_DFL = int(signal.SIG_DFL)
_fork = os.fork

Parts = list[bytes | memoryview]


class Ground:
    """What every run of a container uses; `user` is whom submissions run as."""

    def __init__(self, channel: Channel, container: ContainerClock, user: int) -> None:
        self.channel = channel
        self.container = container
        self.user = user


class Run:
    """One child, watched until it ends or is overdue."""

    def __init__(
        self, header: dict[str, Any], problem: child.Problem, code: memoryview, ground: Ground
    ) -> None:
        self.number: int = header["run"]
        self._limit: float = header["limit_seconds"]
        self._waits_for_cpu = header["clock"] == "cpu"
        self._any_sender = header["reading"] == "fair"  # a process a test
        self._functional = problem.fn_name is not None
        self._n_tests = len(problem.inputs)
        self.turns = Turns(self._n_tests, functional=self._functional)
        self.unsent: Parts = []  # frames that leave with the end of the run, each of them once
        self._alarmed = False
        self._ground, self._channel = ground, ground.channel
        self.peak = len(code)
        self._filled = 0  # bytes of the channel's buffer that hold frames not yet relayed
        self._started = time.monotonic()
        self._end = self._due = self._started + _SETUP_SECONDS
        self._allowed = math.inf  # seconds of its own until the next frame must be there
        self._socket, theirs = socket.socketpair()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.pid = _fork()
        if self.pid == 0:
            _become_child(ground, theirs.fileno(), header, problem)
        theirs.close()
        with contextlib.suppress(ConnectionError):  # it died; `watch` will see
            self._socket.sendall(code)
        self._socket.setblocking(False)  # noqa: FBT003  its only argument
        self._frame_bytes: int = header["output_bytes"] + _SMALL_BYTES
        self._channel.buffer.at_least(self._frame_bytes + FRAME.size)
        self._meter = Meter(self.pid, ground.container)

    def watch(self, wakeup: int) -> None:
        """Relay frames until the run is over."""
        ours = self._socket.fileno()
        poll = select.poll()
        for descriptor in (ours, self._channel.source, wakeup):
            poll.register(descriptor, select.POLLIN)
        while self.turns.why is None:
            left = self._due - time.monotonic()
            if left <= 0:
                self._is_due()
                continue
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
        lap = self._meter.lap()
        return {
            "run": self.number,
            "why": self.turns.why,
            "answered": self.turns.answered,
            "last": {name: getattr(lap, name) for name in ("wall", "cpu", "waited", "slept")},
            "wall_seconds": time.monotonic() - self._started,
        }

    def _obey(self) -> None:
        frame = self._channel.read()
        if frame is None:
            os._exit(0)  # the host is gone
        if frame[0] == b"K" and int.from_bytes(frame[1], "big") == self.number:
            self.turns.end("killed")

    def _drain(self) -> None:
        """Take in what a dead child has left in its socket."""
        while self.turns.why is None and self._receive():
            pass
        self.turns.end("died")

    def _receive(self) -> bool:
        """Take in what is there; return whether there was something."""
        try:
            size, notes, _, _ = self._socket.recvmsg_into(
                [self._channel.buffer.view[self._filled :]], _ANCILLARY_BYTES
            )
        except BlockingIOError:
            return False
        except ConnectionError:
            size, notes = 0, []
        if not size:
            self.turns.end("died")
            return False
        if self._any_sender or any(_CREDENTIALS.unpack(note)[0] == self.pid for *_, note in notes):
            self._filled += size
            self.peak = max(self.peak, self._filled)
            self._relay()
        return True

    def _relay(self) -> None:
        """Send all whole frames on, or leave the last batch of a run in `unsent`."""
        view, start = self._channel.buffer.view, 0
        batch: list[tuple[bytes, int, memoryview]] = []
        while self.turns.why is None and self._filled - start >= FRAME.size:
            kind, test, length = FRAME.unpack_from(view, start)
            end = start + FRAME.size + length
            if not self.turns.is_next(kind, test):
                self.turns.end("protocol")
            elif length > self._frame_bytes:
                self.turns.end("output")
            elif end > self._filled:
                break
            else:
                self.turns.move(kind)
                batch.append((kind, test, view[start + FRAME.size : end]))
                start = end
        if batch and batch[-1][0] == BEGUN:
            self._meter.lap()  # setting up is nobody's time
        now = time.monotonic()
        batch = [frame for frame in batch if self._counts(frame[0], now)]
        self.unsent = self._stamped(batch)
        if self.turns.why is None:
            self._channel.send(self.unsent)
            self.unsent = []
            self._filled = self._channel.buffer.move_to_front(start, self._filled)

    def _counts(self, kind: bytes, now: float) -> bool:
        """Move the deadline on by one frame; return whether the host has a use for it."""
        if kind == BEGUN:
            budget = (self._limit + 1) * self._n_tests + 5  # the official wall budget
            self._end = now + budget * (2 if self._waits_for_cpu else 1)
            self._allow(now, 2 * self._limit + _GRACE_SECONDS)  # two alarms, as officially
            return False
        if kind != ALARM:
            self._allow(now, self._limit + _GRACE_SECONDS)
            self._alarmed = False
            return True
        lap = self._meter.peek()
        if self._alarmed or lap.wall < _ALARM_SHARE * self._limit:
            return False
        self._alarmed = True
        # A functional submission may swallow the alarm and still return, as officially.
        self._allow(now, math.inf if self._functional else _GRACE_SECONDS, lap.own)
        return True

    def _allow(self, now: float, seconds: float, used: float = 0.0) -> None:
        """Give the child so many seconds more, `used` of its own being gone."""
        self._allowed = used + seconds
        self._due = min(self._end, now + seconds)

    def _is_due(self) -> None:
        """End the run, or, where only its own time counts, give back what others took of it."""
        now = time.monotonic()
        own = self._meter.peek().own
        if (
            not self._waits_for_cpu
            or self.turns.state == SETTING_UP
            or own >= min(self._allowed, self._own_limit())
        ):
            self.turns.end("time")
        elif now >= self._end:
            self.turns.end("bound")
        else:
            self._due = min(self._end, now + max(_LEAST_SECONDS, self._allowed - own))
            self._channel.write(b"W", self.number.to_bytes(4, "big"))

    def _own_limit(self) -> float:
        """Return the seconds of its own after which a run at its bound is over time."""
        if time.monotonic() < self._end:
            return math.inf
        return _FINAL_SHARE * self._limit * (2 if self.turns.state == LOADING else 1)

    def _stamped(self, batch: list[tuple[bytes, int, memoryview]]) -> Parts:
        """Return a batch as the host gets it, its time on the last test, else on "ready"."""
        timed = max((n for n, (kind, _, _) in enumerate(batch) if kind in _TIMED_KINDS), default=-1)
        parts: Parts = []
        for n, (kind, test, payload) in enumerate(batch):
            lap = self._meter.lap() if n == timed else _NO_LAP
            size = _STAMPED.size - HEADER.size + len(payload)
            stamps = (self.number, test, lap.wall, lap.cpu, lap.waited, lap.slept)
            parts += (_STAMPED.pack(b"T", size, *stamps, kind), payload)
        return parts


def _become_child(
    ground: Ground, descriptor: int, header: dict[str, Any], problem: child.Problem
) -> None:
    """Give up everything of the server's, take the code in and run it; never returns."""
    try:
        os.close(ground.channel.source)
        os.close(ground.channel.sink)
        os.dup2(descriptor, 3)
        os.closerange(4, 256)
        signal.set_wakeup_fd(-1)
        child.set_handler(signal.SIGCHLD, _SIG_DFL)
        child.set_handler(signal.SIGINT, signal.default_int_handler)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        become_submission(ground.user)
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


def _is_dead(pid: int) -> bool:
    """Return whether the child ended; it stays a zombie, for `sweep` to count."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
