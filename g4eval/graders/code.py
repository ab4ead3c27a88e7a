"""Grade programs by running them in the Docker sandbox; the one asynchronous grader.

A program that fails is run once more before a fair judge (Reading.FAIR), whose verdict is the
second reading and never scores: it tells how often the official checker's quirks decide. A failure
of the sandbox is `ungraded`, never a wrong answer.
"""

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Any, Self, assert_never

from g4eval.graders.base import ungraded
from g4eval.graders.extract import last_fenced_block
from g4eval.records import Grade, Json, Outcome, Sample, Try
from g4eval.sandbox.base import CodeJob, CodeTest, JobResult, Reading, Sandbox, Verdict
from g4eval.tasking.code_tests import read_tests

_KEPT_PROBLEMS = 16  # their tests can be 10 MB each
_SHOWN_OF_A_TEST = 400  # characters of a failed test that a grade keeps
# Verdicts a fair judge may turn over; a time limit is one for any judge.
_DISPUTABLE = (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR, Verdict.COMPILE_ERROR)


class CodeGrader:
    """Runs the last fenced block of a completion on the sample's tests.

    Args:
        sandbox: where to run it; default: Docker containers, one core left to the rest.

    An async context manager: it owns the sandbox while it is entered, and may be entered for
    several tasks at once.
    """

    name = "code"
    version = 2

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox or _docker_sandbox()
        self._users = 0
        self._opening = asyncio.Lock()
        self._tests: OrderedDict[str, tuple[CodeTest, ...]] = OrderedDict()

    @property
    def concurrency(self) -> int:
        """How many completions to grade at once: enough that no slot waits for the next.

        A sandbox may keep some results back until it has proven itself (sandbox/canary.py).
        """
        return 128 * max(1, int(getattr(self._sandbox, "slots", 1)))

    def describe(self) -> dict[str, Json]:
        """Return what programs are judged with: image, Python, packages, limits."""
        describe = getattr(self._sandbox, "describe", None)
        return {"version": self.version, **(describe() if describe else {})}

    async def __aenter__(self) -> Self:
        async with self._opening:
            if self._users == 0:
                await self._sandbox.__aenter__()
            self._users += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async with self._opening:
            self._users -= 1
            if self._users == 0:
                await self._sandbox.__aexit__(exc_type, exc, traceback)

    async def grade(self, one_try: Try) -> Grade:
        """Return the grade; ungraded for a failure of ours; SandboxError if no more can be run."""
        sample = one_try.sample
        code = last_fenced_block(one_try.completion.text)
        if code is None:
            return self._grade(one_try, Outcome.NO_ANSWER, details={"reason": "no fenced block"})
        job = CodeJob(
            job_id=one_try.key,
            code=code,
            tests=self._tests_of(sample),
            fn_name=sample.target.get("fn_name"),
        )
        result = await self._sandbox.judge(job)
        outcome = outcome_of(result.verdict)
        if outcome is Outcome.UNGRADED:
            return ungraded(self, one_try, result.error or "the sandbox failed")
        second = await self._second_outcome(job, result)
        return self._grade(
            one_try,
            outcome,
            extraction=code,
            lenient_extraction=code,
            lenient_outcome=second,
            verdict=result.verdict.value,
            details=_details(result) | _failed_test(job, result),
        )

    def example(self, sample: Sample, repeat: int, *, right: bool) -> str | None:  # noqa: ARG002  Grader
        """Return the sample's own solution in a fenced block, or a program that prints nothing."""
        solution = sample.target.get("solution")
        if right and solution is None:
            return None
        return f"```python\n{solution if right else 'pass'}\n```"

    async def _second_outcome(self, job: CodeJob, result: JobResult) -> Outcome | None:
        """Return what a fair judge says; None if it failed itself."""
        if result.verdict not in _DISPUTABLE:
            return outcome_of(result.verdict)
        fair = CodeJob(
            job_id=job.job_id,
            code=job.code,
            tests=job.tests,
            fn_name=job.fn_name,
            time_limit_seconds=job.time_limit_seconds,
            reading=Reading.FAIR,
        )
        outcome = outcome_of((await self._sandbox.judge(fair)).verdict)
        return None if outcome is Outcome.UNGRADED else outcome

    def _tests_of(self, sample: Sample) -> tuple[CodeTest, ...]:
        """Return a sample's tests: one tuple for all its completions, so that it is sent once."""
        tests = self._tests.get(sample.sample_id)
        if tests is None:
            tests = tuple(CodeTest(**test) for test in read_tests(sample.fields["tests"]))
            self._tests[sample.sample_id] = tests
            if len(self._tests) > _KEPT_PROBLEMS:
                self._tests.popitem(last=False)
        return tests

    def _grade(self, one_try: Try, outcome: Outcome, **fields: Any) -> Grade:
        return Grade(
            key=one_try.key,
            grader=self.name,
            grader_version=self.version,
            outcome=outcome,
            **fields,
        )


def outcome_of(verdict: Verdict) -> Outcome:
    """Return what a verdict counts as."""
    match verdict:
        case Verdict.ACCEPTED:
            return Outcome.CORRECT
        case (
            Verdict.WRONG_ANSWER
            | Verdict.TIME_LIMIT
            | Verdict.MEMORY_LIMIT
            | Verdict.OUTPUT_LIMIT
            | Verdict.RUNTIME_ERROR
            | Verdict.COMPILE_ERROR
        ):
            return Outcome.INCORRECT
        case Verdict.INTERNAL_ERROR:
            return Outcome.UNGRADED
        case _:
            assert_never(verdict)


def _docker_sandbox() -> Sandbox:
    from g4eval.sandbox.docker_pool import DockerSandbox  # noqa: PLC0415  only if code is graded

    return DockerSandbox()


def _failed_test(job: CodeJob, result: JobResult) -> dict[str, Json]:
    """Return the test that failed, the last one that ran, shortened: for a reader of the run."""
    if result.verdict is Verdict.ACCEPTED or not result.results:
        return {}
    test = job.tests[len(result.results) - 1]
    return {"failed_test": {"input": _short(test.input), "expected": _short(test.output)}}


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_OF_A_TEST else text[:_SHOWN_OF_A_TEST] + " …"


def _details(result: JobResult) -> dict[str, Json]:
    kept = {name: value for name, value in result.details.items() if name not in ("tests", "clock")}
    return {
        "results": [verdict.value for verdict in result.results],
        "error": result.error,
        "cpu_seconds": result.cpu_seconds,
        "wall_seconds": result.wall_seconds,
        "memory_bytes": result.memory_bytes,
        **kept,
    }
