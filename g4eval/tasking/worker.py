"""Run a third party's code once in a process of its own, before this one trusts it.

A family's plugin is the user's own choice, not an attacker; but it may hang, fill the memory,
print, fork or leave the process, and then this process must say so instead of ending without a
word. The worker is a fork: milliseconds, nothing imported again, and what comes back are plain
records.

Covers: exits of any kind, KeyboardInterrupt, endless work, memory without bound, output, forks and
processes left behind. Doesn't cover: code that means harm, which `--tasks-dir` runs as you.
"""

import contextlib
import os
import pickle
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from g4eval import errors
from g4eval.errors import G4EvalError, TaskError

T = TypeVar("T")
IDLE_SECONDS = 30.0  # without progress
GRACE_SECONDS = 5.0  # on top, before a worker that doesn't hear its alarm is killed
MEMORY_BYTES = 4 << 30  # above what this process has
_ALIVE_EVERY_SECONDS = 1.0


class IdleError(BaseException):
    """A third party's code made no progress for too long; no handler of its own catches this."""


class Progress:
    """Tells the parent, and the alarm, that work goes on."""

    def __init__(self, tell: Connection, seconds: float) -> None:
        self._tell = tell
        self._seconds = seconds
        self._told = 0.0

    def __call__(self) -> None:
        """Say that another step is done."""
        now = time.monotonic()
        if now - self._told > _ALIVE_EVERY_SECONDS:
            self._told = now
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            self._tell.send(None)


def in_worker(
    job: Callable[[Progress], T], *, blame: Callable[[BaseException], G4EvalError], where: object
) -> T:
    """Return what `job` returns, run in a forked process.

    Args:
        job: gets a Progress to call as it goes on; returns plain records.
        blame: turns whatever the job raises into the error that this raises; runs in the worker.
        where: the third party's file, for a process that ended without a word.

    Raises:
        G4EvalError: what the job raised, its exits too, or that it hung or ended.
    """
    ours, theirs = Pipe(duplex=False)
    with warnings.catch_warnings():
        # From Python 3.12: threads of this process don't go on in a fork. The worker needs none.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        ours.close()
        _work(job, blame, theirs)  # never returns
    theirs.close()
    try:
        answer = None
        while answer is None:
            if not ours.poll(IDLE_SECONDS + GRACE_SECONDS):
                raise _silent(f"did nothing for {IDLE_SECONDS:g} s", where)
            answer = pickle.loads(ours.recv_bytes())  # noqa: S301  what our own fork wrote
    except EOFError:
        raise _silent("ended the process that ran it", where) from None
    finally:
        ours.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what it started too
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    kind, value = answer
    if kind == "done":
        return value  # type: ignore[no-any-return]  # what `job` returned
    name, what, place, hint = value
    raise getattr(errors, name, TaskError)(what, where=place, hint=hint)


def _silent(what: str, where: object) -> TaskError:
    return TaskError(
        f"the plugin {what}",
        where=where,
        hint="this is the task family's own code: mend it there",
    )


def _work(
    job: Callable[[Progress], Any], blame: Callable[[BaseException], G4EvalError], tell: Connection
) -> None:
    """Run the job within limits, tell how it ended, and leave this process for good."""
    me = os.getpid()
    try:
        _limit()
        signal.setitimer(signal.ITIMER_REAL, IDLE_SECONDS)
        answer = ("done", job(Progress(tell, IDLE_SECONDS)))
        message = pickle.dumps(answer)
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent raises it
        signal.setitimer(signal.ITIMER_REAL, 0)
        told = error if isinstance(error, G4EvalError) else blame(error)
        facts = (type(told).__name__, str(told.what), told.where, told.hint)
        message = pickle.dumps(("raised", facts))
    if os.getpid() == me:  # not a process that the plugin forked
        with contextlib.suppress(OSError):
            tell.send_bytes(message)
    os._exit(0)


def _limit() -> None:
    """Set the worker apart: no terminal, an alarm, a memory limit, a group of its own."""
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, _idle)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = os.fdopen(nowhere, "w", encoding="utf-8")
    with contextlib.suppress(OSError, ValueError):  # macOS refuses, and has no /proc
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _idle(_signal: int, _frame: FrameType | None) -> None:
    raise IdleError(f"no progress for {IDLE_SECONDS:g} s")
