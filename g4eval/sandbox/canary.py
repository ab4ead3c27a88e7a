"""A program known to be right and one known to be wrong: does a container still judge well?

Run after every suspicious end, after so many jobs, before a container rests or goes, and in one
that is to judge a single job. What it judged since the last time is said only once both get the
verdict they must have.
"""

from g4eval.sandbox.base import CodeJob, CodeTest, Verdict
from g4eval.sandbox.container import Container, describe_problem
from g4eval.sandbox.frames import StreamError

CANARY_EVERY = 200  # jobs
_TESTS = (CodeTest(input="1 2", output="3"), CodeTest(input="20 22", output="42"))
_RIGHT = CodeJob(job_id="right", code="print(sum(map(int, input().split())))", tests=_TESTS)
_WRONG = CodeJob(job_id="wrong", code="print(sum(map(int, input().split())) + 1)", tests=_TESTS)
_MUST = ((_RIGHT, Verdict.ACCEPTED), (_WRONG, Verdict.WRONG_ANSWER))
_PROBLEM = describe_problem("canary", _RIGHT)


def canary_fault(container: Container) -> str | None:
    """Return what is wrong with a container's judging; None if nothing is."""
    try:
        for job, verdict in _MUST:
            judged = container.judge(job, _PROBLEM, look=True)
            if judged.result.verdict is not verdict:
                return f"a program known to be {job.job_id} got {judged.result.verdict.value}"
            if judged.is_suspicious:
                return f"a program known to be {job.job_id} ended oddly: {judged.result.error}"
    except StreamError as error:
        return f"a program known to be right or wrong got no verdict: {error}"
    return None
