"""Run a border's inputs in a process with a memory limit, watched by one with a clock."""

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from g4eval.errors import G4EvalError
from tests.fuzz.border import Border

SECONDS_PER_INPUT = 10.0  # of this process: a busy machine is no hang
WALL_PER_INPUT = 6  # times as many seconds by the clock, for one that waits
MEMORY_BYTES = 1 << 30  # above what the process has before its first input
FAILURES_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Fuzzed:
    """What came of a border."""

    border: str
    inputs: int
    refused: int  # with an error of ours; the rest were taken
    slowest_seconds: float
    peak_bytes: int  # above what the process had before its first input
    failures: tuple[str, ...]  # one text each: what happened, and to which input


class _TooSlowError(BaseException):
    """An input took longer than it may."""


def fuzz(border: Border, *, first_seed: int, examples: int, seconds: float) -> Fuzzed:
    """Run `examples` inputs a round, until `seconds` are over; at least one round.

    The rounds' seeds count up from `first_seed`, so the same numbers make the same inputs.
    """
    ends = time.monotonic() + seconds if seconds else 0.0  # 0: one whole round
    inputs = refused = peak = 0
    slowest = 0.0
    failures: list[str] = []
    number = first_seed
    while number == first_seed or (time.monotonic() < ends and len(failures) < FAILURES_SHOWN):
        for told in _watched(border, number, examples, ends):
            if isinstance(told, str):
                failures.append(told)
            else:
                inputs, refused = inputs + told[0], refused + told[1]
                slowest, peak = max(slowest, told[2]), max(peak, told[3])
                number = max(number, told[4])
        number += 1
    return Fuzzed(
        border=border.name,
        inputs=inputs,
        refused=refused,
        slowest_seconds=slowest,
        peak_bytes=peak,
        failures=tuple(dict.fromkeys(failures)),
    )


def _watched(border: Border, first: int, examples: int, ends: float) -> Iterator[Any]:
    """Fork a worker and yield what it tells; kill it where an input keeps it too long."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    folder = Path(tempfile.mkdtemp(prefix="g4eval-fuzz-"))
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _work(border, first, examples, ends, folder, theirs)  # never returns
    theirs.close()
    try:
        while ours.poll(WALL_PER_INPUT * SECONDS_PER_INPUT):
            told = ours.recv()
            if told is None:
                return
            if told != "alive":
                yield told
        yield f"{border.name}: hang: {_input_text(folder / 'input')}"
    except EOFError:
        yield f"{border.name}: the process ended: {_input_text(folder / 'input')}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()
        shutil.rmtree(folder, ignore_errors=True)


def _work(
    border: Border, first: int, examples: int, ends: float, folder: Path, tell: Connection
) -> None:
    """Run rounds until the time is over, within the limits; leave the process."""
    signal.signal(signal.SIGPROF, _too_slow)
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    before = _resident_bytes()
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY_BYTES, virtual + MEMORY_BYTES))
    number = first
    while number == first or time.monotonic() < ends:
        counts = [0, 0, 0.0]
        try:
            _round(border, number, examples, folder, counts, tell, ends=ends)
        except BaseException as error:  # noqa: BLE001  whatever it is, it is told
            lines = traceback.format_exception(error)
            shown = "".join(line[:700] for line in lines[-8:])[-2500:]
            tell.send(f"{border.name}, seed {number}: {type(error).__name__}: {shown}")
        tell.send((counts[0], counts[1], counts[2], _resident_bytes() - before, number))
        number += 1
    tell.send(None)
    os._exit(0)


def _round(
    border: Border,
    number: int,
    examples: int,
    folder: Path,
    counts: list[Any],
    tell: Connection,
    *,
    ends: float,
) -> None:
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(border.inputs)
    def one(value: Any) -> None:
        if ends and time.monotonic() > ends:
            return  # the rest of a long session's last round
        place = folder / "place"
        place.mkdir()
        begun = time.process_time()
        (folder / "input").write_text(repr(value)[:2000], encoding="utf-8", errors="replace")
        tell.send("alive")
        signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_INPUT)
        try:
            border.read(value, place)
        except G4EvalError:
            counts[1] += 1
        except BaseException as error:
            error.add_note(f"input: {repr(value)[:700]}")
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            counts[0] += 1
            counts[2] = max(counts[2], time.process_time() - begun)
            shutil.rmtree(place, ignore_errors=True)

    one()


def _too_slow(_signal: int, _frame: object) -> None:
    raise _TooSlowError(f"no answer within {SECONDS_PER_INPUT:g} s")


def _resident_bytes() -> int:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _input_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[:700] if path.exists() else "none"
