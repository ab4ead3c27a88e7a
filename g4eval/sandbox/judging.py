"""From the frames of one run to its result: the official checker's rules, without any container.

`Judging` is fed each report as it comes and says when the verdict is known; `finish` gives the
result. Each report counts once, in its turn (turns.py). Beside our verdicts it keeps the list the
official checker would have returned, so that the two can be compared value for value.
"""

import json
import signal
from typing import Any

import numpy as np

from g4eval.records import Json
from g4eval.sandbox.base import CodeJob, JobResult, Reading, Verdict
from g4eval.sandbox.compare import (
    ComparisonError,
    output_difference_fair,
    output_difference_official,
    values_equal_fair,
    values_equal_official,
)
from g4eval.sandbox.frames import StreamError
from g4eval.sandbox.protocol import End, Lap, Report
from g4eval.sandbox.turns import Turns
from g4eval.sandbox.values import (
    ValueTreeError,
    is_opaque,
    read_expected,
    rebuild_value,
    too_large_to_compare,
)

# Official codes: per test True, False or -2 wrong, -3 time limit, -4 error; -5 the child died.
WRONG, TIME, ERROR, DIED = -2, -3, -4, -5
UNEQUAL = False  # a function's wrong value is listed so, and reported as WRONG
_NEAR_LIMIT = 0.75
_SUSPECT_CPU = 0.9
_SUSPECT_WAIT = 0.1
_LATE_SECONDS = 0.5
_ENCODED_BYTES_PER_SECOND = 1e6
_ERROR_CHARACTERS = 500


class SetupError(StreamError):
    """A child ended before its submission's first line: nothing is known of the submission."""


class Judging:
    """The state of one run's verdict."""

    def __init__(self, job: CodeJob, clock: str = "wall") -> None:
        self._job = job
        self._clock = clock
        self._results: list[Verdict] = []
        self._official: list[bool | int] = []
        self._code: int | None = None
        self._verdict: Verdict | None = None
        self._error: str | None = None
        self._alarmed = False
        self._turns = Turns(len(job.tests), functional=job.fn_name is not None)
        self._untimed = 0  # frames that came with a later one, which has the time of all
        self._shared_lap = False  # whether the last time is that of several frames
        self._laps: list[Lap] = []
        self._flags: dict[str, Json] = {}

    @property
    def decided(self) -> bool:
        """Whether the verdict is known, so that the run can be killed."""
        return self._verdict is not None

    @property
    def must_kill(self) -> bool:
        """Whether the verdict is known and the server doesn't end the run by itself."""
        return self.decided and not self._turns.over

    def report(self, report: Report) -> None:
        """Take in one of the child's frames; StreamError for one the server can't have sent."""
        self._turns.take(report)
        if self.decided:
            return
        match report.kind:
            case b"A":
                self._alarmed = True
            case b"C":
                self._alarmed = False
                self._note_lap(report.lap)
            case b"F":
                self._failed(_fields(report))
            case b"B":
                self._died(Verdict.RUNTIME_ERROR, _fields(report).get("error"))
            case _:
                self._test(report)

    def finish(self, end: End) -> JobResult:
        """Return the result, given how the run ended.

        Raises SetupError where the submission never began, StreamError for an end that can't be.
        """
        self._turns.end(end, killed=self.must_kill)
        if not self.decided:
            self._laps.append(end.last)
            self._ended(end)
        assert self._verdict is not None
        return JobResult(
            job_id=self._job.job_id,
            verdict=self._verdict,
            results=tuple(self._results),
            error=self._error,
            cpu_seconds=end.cpu_seconds,
            wall_seconds=end.wall_seconds,
            memory_bytes=end.memory_bytes,
            details=self._details(),
        )

    @property
    def is_suspect(self) -> bool:
        """Whether a time-out may be ours: others on the machine kept it from its core.

        Or the server was kept from its own, and can't tell which of several tests took the time.
        """
        if self._verdict is not Verdict.TIME_LIMIT or self._clock == "cpu" or not self._laps:
            return False
        if "alarm_disarmed" in self._flags:
            return False
        lap, limit = self._laps[-1], self._job.time_limit_seconds
        return self._shared_lap or (
            lap.cpu < _SUSPECT_CPU * limit and lap.waited >= _SUSPECT_WAIT * limit
        )

    def _note_lap(self, lap: Lap) -> None:
        self._shared_lap = self._untimed > 0
        self._untimed = 0 if lap.wall else self._untimed + 1

    def _test(self, report: Report) -> None:
        self._laps.append(report.lap)
        self._note_lap(report.lap)
        if report.kind == b"S":
            self._decide(Verdict.OUTPUT_LIMIT, WRONG, "more output than any right answer has")
        elif report.kind == b"X":
            self._exception(_fields(report))
        elif self._is_late(report):
            self._late()
        elif report.kind == b"O":
            self._output(report.payload)
        else:
            self._value(report.payload)
        self._alarmed = False

    def _is_late(self, report: Report) -> bool:
        """Whether an answer came after its time: of its own where that is what the clock counts."""
        used = report.lap.own if self._clock == "cpu" else report.lap.wall
        allowed = _LATE_SECONDS + len(report.payload) / _ENCODED_BYTES_PER_SECOND
        if used <= self._job.time_limit_seconds + allowed:
            return False
        if not self._alarmed:
            return True
        # Officially, one who swallows the alarm may still return; a program has its line printed.
        try:
            return self._job.fn_name is None and self._difference(report.payload) is None
        except Exception:  # noqa: BLE001  no answer, late or not
            return False

    def _late(self) -> None:
        if self._shared_lap:
            return self._decide(Verdict.TIME_LIMIT, TIME, "over the time limit, with those before")
        self._flags["alarm_disarmed"] = True
        error = "over the time limit, and the alarm was disarmed"
        return self._decide(Verdict.TIME_LIMIT, TIME, error)

    def _difference(self, payload: bytes) -> str | None:
        """Return how an output differs; raises ComparisonError, UnicodeDecodeError."""
        expected = self._job.tests[len(self._results)].output
        output = payload.decode("utf-8", "surrogatepass")
        if self._job.reading is Reading.FAIR:
            return output_difference_fair(output, expected)
        return output_difference_official(output, expected)

    def _output(self, payload: bytes) -> None:
        try:
            difference = self._difference(payload)
        except Exception as error:  # noqa: BLE001  whatever comparing these two raises
            return self._failed({"stage": "comparison", "error": str(error)})
        if difference is None:
            return self._passed(official=True)
        return self._decide(Verdict.WRONG_ANSWER, WRONG, difference)

    def _value(self, payload: bytes) -> None:
        expected = read_expected(self._job.tests[len(self._results)].output)
        try:
            value = rebuild_value(payload)
        except ValueTreeError as error:
            return self._decide(Verdict.WRONG_ANSWER, UNEQUAL, f"no value came back: {error}")
        if is_opaque(value):
            self._flags["opaque_value"] = True
        try:
            equal = self._equal(value, expected)
        except Exception as error:  # noqa: BLE001  whatever comparing these two raises
            return self._decide(Verdict.RUNTIME_ERROR, ERROR, str(error))
        if equal:
            return self._passed(official=equal)
        return self._decide(
            Verdict.WRONG_ANSWER, UNEQUAL, f"{_shown(value)} where {_shown(expected)} is expected"
        )

    def _equal(self, value: Any, expected: Any) -> bool:
        if too_large_to_compare(value, expected):
            raise ComparisonError("an array that makes more of the expected value than fits here")
        if self._job.reading is Reading.FAIR:
            return values_equal_fair(value, expected)
        return self._equal_official(value, expected)

    def _equal_official(self, value: Any, expected: Any) -> bool:
        result = values_equal_official(value, expected)
        try:
            return bool(result)
        except ValueError as error:  # an array of several: officially listed before it is refused
            if isinstance(result, np.ndarray) and result.size:
                self._official.append(bool(result.item(0)))
            raise ComparisonError(f"{type(error).__name__}: {error}") from error

    def _exception(self, fields: dict[str, Json]) -> None:
        if fields.get("timeout"):
            self._decide(Verdict.TIME_LIMIT, TIME, f"over {self._job.time_limit_seconds:g} s")
        else:
            self._decide(Verdict.RUNTIME_ERROR, ERROR, fields.get("error"))

    def _failed(self, fields: dict[str, Json]) -> None:
        """Note a failure that officially replaces the whole list by [-4]."""
        stage = fields.get("stage")
        verdict = Verdict.COMPILE_ERROR if stage == "compile" else Verdict.RUNTIME_ERROR
        if stage not in ("compile", "import", "lookup", "inputs"):
            self._results.append(verdict)
        self._verdict, self._code = verdict, ERROR
        self._error = f"{stage}: {fields.get('error')}"[:_ERROR_CHARACTERS]
        self._official = [ERROR]

    def _died(self, verdict: Verdict, error: Json) -> None:
        """Note the end of the child, which officially replaces the whole list by [-2], code -5."""
        self._results.append(verdict)
        self._verdict, self._code = verdict, DIED
        self._error = str(error)[:_ERROR_CHARACTERS]
        self._official = [WRONG]

    def _decide(self, verdict: Verdict, official: int, error: Json) -> None:
        self._results.append(verdict)
        self._official.append(official)
        self._verdict, self._error = verdict, str(error)[:_ERROR_CHARACTERS]
        self._code = WRONG if official is UNEQUAL else official

    def _passed(self, *, official: bool) -> None:
        self._results.append(Verdict.ACCEPTED)
        self._official.append(official)
        if len(self._results) == len(self._job.tests):
            self._verdict = Verdict.ACCEPTED

    def _ended(self, end: End) -> None:
        if end.why == "setup":
            raise SetupError(f"the child ended before the program began: {_status(end.status)}")
        if end.why == "time":
            self._decide(Verdict.TIME_LIMIT, TIME, "over the time limit, and no alarm could end it")
        elif end.why == "bound":
            self._undecided(end)
        elif end.why == "output":
            self._decide(Verdict.OUTPUT_LIMIT, WRONG, "more output than any right answer has")
        elif end.out_of_memory:
            self._died(Verdict.MEMORY_LIMIT, "out of memory")
        elif end.why == "protocol":
            self._flags["out_of_turn"] = True
            self._died(Verdict.RUNTIME_ERROR, "it spoke out of turn")
        else:
            self._died(Verdict.RUNTIME_ERROR, f"the process ended: {_status(end.status)}")

    def _undecided(self, end: End) -> None:
        """Note that others left the program too little of its core to say anything of it."""
        self._verdict = Verdict.INTERNAL_ERROR
        self._results, self._official = [], []
        self._error = (
            f"others had the core: {end.last.own:.1f} s of {self._job.time_limit_seconds:g} s for "
            f"a test in {end.wall_seconds:.0f} s; judge it again on a quieter machine"
        )

    def _details(self) -> dict[str, Json]:
        limit = self._job.time_limit_seconds
        near = [
            lap
            for lap, verdict in zip(self._laps, self._results, strict=False)
            if verdict is Verdict.ACCEPTED and lap.wall >= _NEAR_LIMIT * limit
        ]
        return {
            "official_results": list(self._official),
            "official_error_code": self._code,
            "clock": self._clock,
            "tests": [
                {name: round(getattr(lap, name), 6) for name in ("wall", "cpu", "waited", "slept")}
                for lap in self._laps
            ],
            **({"near_limit": len(near)} if near else {}),
            **self._flags,
        }


def _fields(report: Report) -> dict[str, Json]:
    """Read a frame a child wrote: it may hold anything."""
    try:
        fields = json.loads(report.payload)
    except (ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) else {"error": "unreadable"}


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  long integers, deep lists
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= 150 else text[:150] + "..."


def _status(status: int | None) -> str:
    if status is None:
        return "unknown"
    if status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit code {status}"
