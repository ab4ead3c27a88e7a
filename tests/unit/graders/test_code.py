"""What a verdict counts as, and when the fair judge is asked; the sandbox is scripted."""

import asyncio
from types import TracebackType
from typing import Self

import pytest

from g4eval.graders.code import CodeGrader, outcome_of
from g4eval.records import Completion, Outcome, Sample, StopReason
from g4eval.sandbox.base import CodeJob, JobResult, Reading, Verdict
from tests.driving import try_of

SAMPLE = Sample(
    sample_id="s",
    target={"fn_name": None, "solution": "print(6)"},
    fields={"tests": [{"input": "1", "output": "6", "testtype": "stdin"}]},
)


class ScriptedSandbox:
    """Gives the verdict that a job's code names, official or fair."""

    slots = 3

    def __init__(self) -> None:
        self.jobs: list[CodeJob] = []
        self.open = 0

    async def __aenter__(self) -> Self:
        self.open += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.open -= 1

    async def judge(self, job: CodeJob) -> JobResult:
        self.jobs.append(job)
        official, fair = job.code.split()
        verdict = Verdict(official if job.reading is Reading.OFFICIAL else fair)
        return JobResult(
            job_id=job.job_id,
            verdict=verdict,
            results=(verdict,),
            error="why",
            details={"tests": [{}], "near_limit": 1},
        )


def grade(text: str):
    sandbox = ScriptedSandbox()
    grader = CodeGrader(sandbox)
    completion = Completion(
        key="k", task_id="t", sample_id="s", repeat=0, text=text, stop_reason=StopReason.STOP
    )
    return asyncio.run(grader.grade(try_of(SAMPLE, completion))), sandbox


@pytest.mark.parametrize(
    ("code", "outcome", "second", "asked"),
    [
        ("AC WA", "correct", "correct", 1),
        ("WA AC", "incorrect", "correct", 2),
        ("RTE WA", "incorrect", "incorrect", 2),
        ("CE CE", "incorrect", "incorrect", 2),
        ("TLE AC", "incorrect", "incorrect", 1),
        ("MLE AC", "incorrect", "incorrect", 1),
        ("OLE AC", "incorrect", "incorrect", 1),
        ("WA IE", "incorrect", None, 2),
    ],
)
def test_a_verdict_counts_and_a_disputable_one_is_put_before_the_fair_judge(
    code, outcome, second, asked
) -> None:
    got, sandbox = grade(f"```\n{code}\n```")
    assert got.outcome == outcome
    assert got.lenient_outcome == second
    assert len(sandbox.jobs) == asked
    assert got.verdict == code.split()[0]


def test_a_failure_of_the_sandbox_is_ungraded_and_no_verdict() -> None:
    got, _ = grade("```\nIE AC\n```")
    assert got.outcome is Outcome.UNGRADED
    assert got.verdict is None
    assert got.details["reason"] == "why"


def test_without_two_fences_there_is_no_answer_and_nothing_runs() -> None:
    got, sandbox = grade("print(6)")
    assert got.outcome is Outcome.NO_ANSWER
    assert sandbox.jobs == []


def test_the_last_fenced_block_runs_and_is_the_extraction() -> None:
    got, sandbox = grade("```python\nWA WA\n```\nbetter:\n```python\nAC AC\n```\n")
    assert got.extraction == "AC AC"
    assert sandbox.jobs[0].code == "AC AC"


def test_details_keep_what_a_reader_of_the_run_needs() -> None:
    got, _ = grade("```\nAC AC\n```")
    assert got.details["results"] == ["AC"]
    assert got.details["near_limit"] == 1
    assert "tests" not in got.details
    assert "failed_test" not in got.details


def test_the_test_that_failed_is_kept_with_its_texts() -> None:
    got, _ = grade("```\nWA WA\n```")
    assert got.details["failed_test"] == {"input": "1", "expected": "6"}


def test_two_tasks_share_one_sandbox_and_the_last_closes_it() -> None:
    sandbox = ScriptedSandbox()
    grader = CodeGrader(sandbox)

    async def run() -> list[int]:
        seen = []
        async with grader:
            async with grader:
                seen.append(sandbox.open)
            seen.append(sandbox.open)
        seen.append(sandbox.open)
        return seen

    assert asyncio.run(run()) == [1, 1, 0]


def test_completions_of_one_sample_share_their_tests() -> None:
    sandbox = ScriptedSandbox()
    grader = CodeGrader(sandbox)
    completion = Completion(
        key="k",
        task_id="t",
        sample_id="s",
        repeat=0,
        text="```\nAC AC\n```",
        stop_reason=StopReason.STOP,
    )

    async def run() -> None:
        await grader.grade(try_of(SAMPLE, completion))
        await grader.grade(try_of(SAMPLE, completion))

    asyncio.run(run())
    assert sandbox.jobs[0].tests is sandbox.jobs[1].tests


def test_every_verdict_has_an_outcome() -> None:
    outcomes = {verdict: outcome_of(verdict) for verdict in Verdict}
    assert outcomes[Verdict.INTERNAL_ERROR] is Outcome.UNGRADED
    assert [v for v, outcome in outcomes.items() if outcome is Outcome.CORRECT] == [
        Verdict.ACCEPTED
    ]


def test_examples_are_right_and_wrong_programs() -> None:
    grader = CodeGrader(ScriptedSandbox())
    assert grader.example(SAMPLE, 0, right=True) == "```python\nprint(6)\n```"
    assert grader.example(SAMPLE, 0, right=False) == "```python\npass\n```"
    bare = Sample(sample_id="s", target={"fn_name": None})
    assert grader.example(bare, 0, right=True) is None
