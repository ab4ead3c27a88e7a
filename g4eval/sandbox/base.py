"""The Sandbox protocol and the records of one judged job.

Every implementation passes `tests/contract/test_sandbox.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from g4eval.records import Json


class Verdict(StrEnum):
    """What the judge says of one job."""

    ACCEPTED = "AC"
    WRONG_ANSWER = "WA"
    TIME_LIMIT = "TLE"
    MEMORY_LIMIT = "MLE"
    OUTPUT_LIMIT = "OLE"
    RUNTIME_ERROR = "RTE"
    COMPILE_ERROR = "CE"
    INTERNAL_ERROR = "IE"  # ours: retried, then ungraded


class Reading(StrEnum):
    """Which judge a job is put before."""

    OFFICIAL = "official"  # the official checker's rules, quirk for quirk; the only one that scores
    FAIR = "fair"  # a fresh process a test, real streams, numbers within 1e-6; for information


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTest:
    """One test of a job."""

    input: str
    output: str  # expected; stays on this side of the sandbox
    testtype: str = "stdin"  # stdin or functional


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeJob:
    """One program to run on a list of tests."""

    job_id: str
    code: str
    tests: Sequence[CodeTest]
    fn_name: str | None = None  # None: a program that reads stdin
    time_limit_seconds: float = 6.0  # wall time a test
    reading: Reading = Reading.OFFICIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What became of one job. Judging stops at the first test that fails."""

    job_id: str
    verdict: Verdict
    results: tuple[Verdict, ...]  # one a test that ran
    error: str | None = None  # what the program or the sandbox said, shortened
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    memory_bytes: int | None = None  # peak
    details: Mapping[str, Json] = field(default_factory=dict)  # a sandbox's own: docs/judging.md


class Sandbox(Protocol):
    """Runs jobs; an async context manager that starts and removes what it needs."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def judge(self, job: CodeJob) -> JobResult:
        """Return the verdict; IE for a failure of ours; raises SandboxError if it can't go on."""
        ...
