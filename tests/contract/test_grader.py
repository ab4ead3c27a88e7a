"""What every grader promises, run on every grader that a bundled task names."""

import inspect
import pickle

import pytest

from g4eval.errors import DataError
from g4eval.graders.base import GRADERS, Grader, grade_try
from g4eval.graders.pool import GraderRef
from g4eval.records import Completion, Outcome, Sample, StopReason, Thought
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import Task, find_tasks
from tests.driving import try_of

HOSTILE = [
    "",
    " \n\t",
    "\0",
    "\ud800",
    "\u202e\u2066",
    "\\boxed{" * 5000,
    "{" * 20_000,
    "(" * 20_000 + "9" * 20_000,
    "```\n" * 5000,
    "Answer: " * 5000,
    "The answer is: " * 5000,
    "9^9^9^9^9",
    "<script>alert(1)</script>",
    "__import__('os').system('true')",
]
# Those whose grader is here: programs are refused where there is no sandbox.
TASKS = {
    task_id: task
    for task_id, task in find_tasks().items()
    if ":" in task.spec.grader or task.spec.grader in GRADERS
}


def is_pure(task: Task) -> bool:
    return not inspect.iscoroutinefunction(GraderRef.of(task).load().grade)


PURE = sorted(task_id for task_id, task in TASKS.items() if is_pure(task))


def subject(task_id: str, request: pytest.FixtureRequest) -> tuple[Grader, list[Sample]]:
    """The grader of a task and its first samples; skipped where the data isn't here."""
    task = TASKS[task_id]
    grader = GraderRef.of(task).load()
    try:
        samples = load_samples(task, None, allow_partial=True).samples
    except DataError:
        folder = request.getfixturevalue("data_dir")
        samples = load_samples(task, folder, allow_partial=True).samples
    return grader, samples[:20]


def completion(
    text: str, sample: Sample, repeat: int = 0, thought: Thought = Thought.NONE
) -> Completion:
    return Completion(
        key="k", task_id="t", sample_id=sample.sample_id, repeat=repeat, text=text,
        stop_reason=StopReason.STOP, thought=thought,
    )  # fmt: skip


@pytest.mark.parametrize("task_id", PURE)
def test_own_example_of_a_right_answer_is_right_and_of_a_wrong_one_wrong(task_id, request) -> None:
    grader, samples = subject(task_id, request)
    for sample in samples:
        for repeat in range(4):
            for right in (True, False):
                text = grader.example(sample, repeat, right=right)
                assert text is not None
                grade = grader.grade(try_of(sample, completion(text, sample, repeat)))
                wanted = Outcome.CORRECT if right else Outcome.INCORRECT
                assert grade.outcome is wanted, (sample.sample_id, repeat, text)


@pytest.mark.parametrize("task_id", PURE)
def test_nothing_a_model_writes_raises_or_is_right_by_accident(task_id, request) -> None:
    grader, samples = subject(task_id, request)
    for text in HOSTILE:
        grade = grader.grade(try_of(samples[0], completion(text, samples[0])))
        assert grade.outcome in (Outcome.INCORRECT, Outcome.NO_ANSWER)


@pytest.mark.parametrize("task_id", PURE)
def test_grade_names_completion_grader_and_version_and_can_be_stored(task_id, request) -> None:
    grader, samples = subject(task_id, request)
    grade = grader.grade(try_of(samples[0], completion("5", samples[0])))
    assert (grade.key, grade.grader, grade.grader_version) == ("k", grader.name, grader.version)
    assert pickle.loads(pickle.dumps(grade)) == grade


@pytest.mark.parametrize("task_id", PURE)
def test_same_completion_gets_the_same_grade(task_id, request) -> None:
    grader, samples = subject(task_id, request)
    text = grader.example(samples[0], 1, right=True) or ""
    grades = [grader.grade(try_of(samples[0], completion(text, samples[0], 1))) for _ in range(3)]
    assert grades[0] == grades[1] == grades[2]


@pytest.mark.parametrize("task_id", PURE)
def test_unfinished_thought_has_no_answer(task_id, request) -> None:
    grader, samples = subject(task_id, request)
    text = grader.example(samples[0], 0, right=True) or ""
    grade = grade_try(
        grader, try_of(samples[0], completion(text, samples[0], thought=Thought.OPEN))
    )
    assert grade.outcome is Outcome.NO_ANSWER


def test_every_task_has_a_grader_of_the_contract() -> None:
    assert PURE
    for task in TASKS.values():
        grader = GraderRef.of(task).load()
        assert grader.name
        assert grader.version >= 1
