"""What host and container say to each other; the other side is sandboxes/python_judge/server.py."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from g4eval.sandbox.base import CodeJob
from g4eval.sandbox.frames import Frame, StreamError

MIN_OUTPUT_BYTES = 16 << 20
SMALL_FRAME_BYTES = 1 << 20
_STAMPS = struct.Struct(">IIdddd")
_UNKNOWN_END = "the container ended a run in a way this version doesn't know"
SETUP_SECONDS = 30.0  # that a child may take before the submission's first line
ENDS = frozenset({"done", "died", "killed", "time", "bound", "output", "protocol", "setup"})


@dataclass(frozen=True, slots=True)
class Lap:
    """What one test took, as the server measured it, in seconds."""

    wall: float
    cpu: float
    waited: float  # ready to run, but others on the machine had the core
    slept: float

    @property
    def own(self) -> float:
        """The seconds that nobody else had."""
        return self.wall - self.waited


@dataclass(frozen=True, slots=True)
class Report:
    """One of a child's frames with the server's stamps."""

    run: int
    test: int  # 0-based
    lap: Lap
    kind: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a run ended."""

    run: int
    why: str  # one of ENDS
    answered: int  # tests that have a frame of their own
    last: Lap  # since the last report
    status: int | None  # exit code; negative: a signal
    out_of_memory: bool
    clean: bool  # nothing was left in the container
    state: str  # what of the server's own an earlier run changed; "" if nothing
    processes: int  # that were in it, the child included
    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int


def output_limit(outputs: Sequence[str]) -> int:
    """Return how many bytes a test may print: far more than any right answer."""
    longest = max((len(text.encode("utf-8", "surrogatepass")) for text in outputs), default=0)
    return max(MIN_OUTPUT_BYTES, 4 * longest)


def frame_limit(output_bytes: int) -> int:
    """Return the longest frame that may come while a job with this output limit runs."""
    return output_bytes + SMALL_FRAME_BYTES


def load_message(key: str, fn_name: str | None, inputs: Sequence[str]) -> bytes:
    """Write a problem's inputs; its expected outputs are not among the arguments."""
    return json.dumps({"key": key, "fn_name": fn_name, "inputs": list(inputs)}).encode()


def unload_message(key: str) -> bytes:
    """Write that a problem's inputs are no longer needed."""
    return json.dumps({"key": key}).encode()


def run_message(
    run: int, key: str, job: CodeJob, clock: str, output_bytes: int, *, look: bool = False
) -> bytes:
    """Write one submission.

    `clock` is wall or cpu: what the time limit counts. `look`: have the server's state compared.
    """
    header = json.dumps(
        {
            "run": run,
            "key": key,
            "limit_seconds": job.time_limit_seconds,
            "clock": clock,
            "reading": job.reading.value,
            "output_bytes": output_bytes,
            "look": look,
        }
    ).encode()
    return struct.pack(">I", len(header)) + header + job.code.encode("utf-8", "surrogatepass")


def kill_message(run: int) -> bytes:
    """Write that a run's verdict is known."""
    return run.to_bytes(4, "big")


def read_json(frame: Frame) -> dict[str, Any]:
    """Read a frame of JSON; StreamError for anything else."""
    try:
        message = json.loads(frame.payload)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"a frame that is no JSON: {frame.payload[:80]!r}") from error
    if not isinstance(message, dict):
        raise StreamError(f"a frame that is no JSON object: {frame.payload[:80]!r}")
    return message


def read_report(frame: Frame) -> Report:
    """Read one of a child's frames; StreamError if it is malformed."""
    if frame.kind != b"T" or len(frame.payload) <= _STAMPS.size:
        raise StreamError(f"a {frame.kind!r} frame out of turn")
    run, test, wall, cpu, waited, slept = _STAMPS.unpack_from(frame.payload)
    body = frame.payload[_STAMPS.size :]
    return Report(run, test, Lap(wall, cpu, waited, slept), body[:1], body[1:])


def read_end(frame: Frame) -> End:
    """Read the end of a run; StreamError if it is malformed."""
    message = read_json(frame)
    try:
        end = End(
            run=int(message["run"]),
            why=str(message["why"]),
            answered=int(message["answered"]),
            last=Lap(**{name: float(value) for name, value in message["last"].items()}),
            status=message["status"],
            out_of_memory=bool(message["out_of_memory"]),
            clean=bool(message["clean"]),
            state=str(message["state"]),
            processes=int(message["processes"]),
            cpu_seconds=float(message["cpu_seconds"]),
            wall_seconds=float(message["wall_seconds"]),
            memory_bytes=int(message["memory_bytes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StreamError(f"{_UNKNOWN_END}: {error}") from error
    if end.why not in ENDS:
        raise StreamError(f"{_UNKNOWN_END}: {end.why!r}")
    return end
