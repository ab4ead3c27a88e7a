"""The Grader protocol, the rule that comes before every grader, and the table of graders.

Every implementation passes `tests/contract/test_grader.py`.
"""

import traceback
from pathlib import Path
from typing import Protocol

from g4eval.records import Completion, Grade, Outcome, Sample, Thought
from g4eval.registry import Registry


class Grader(Protocol):
    """Judges one completion: pure and synchronous, so that a worker process can run it."""

    name: str
    version: int  # raised whenever any grade can change

    def grade(self, sample: Sample, completion: Completion) -> Grade:
        """Return the grade; never raises for anything the model wrote."""
        ...

    def example(self, sample: Sample, repeat: int, *, right: bool) -> str | None:
        """Return a visible answer that this grader finds right, or wrong; None: it can't make one.

        Engine `fake` answers with these, and the contract suite grades them.
        """
        ...


GRADERS = Registry[Grader](
    "grader",
    {
        "code": "g4eval.graders.code:CodeGrader",
        "choice": "g4eval.graders.choice:ChoiceGrader",
        "integer": "g4eval.graders.integer:IntegerGrader",
        "stated_answer": "g4eval.graders.stated_answer:StatedAnswerGrader",
    },
)


class TimeUpError(BaseException):
    """A grader used up its seconds; no handler of its own catches this."""


class NamedGrader(Protocol):
    """What a grade says of its grader."""

    name: str
    version: int


def grade_completion(grader: Grader, sample: Sample, completion: Completion) -> Grade:
    """Grade one completion, a thought that never ended first: it has no answer.

    Whatever number such a thought mentions, the model had not settled on it. A grader that raises
    is our failure, so the completion is ungraded; one that exits or interrupts too. MemoryError and
    a worker's time-out pass through.
    """
    if completion.thought is Thought.OPEN:
        return no_answer(grader, completion)
    try:
        return grader.grade(sample, completion)
    except (MemoryError, TimeUpError):
        raise
    except BaseException as error:  # noqa: BLE001  any bug of a grader is ours, never the model's
        return ungraded(grader, completion, raised_reason(error))


def raised_reason(error: BaseException) -> str:
    """Return why there is no grade: the kind of error, and the line of a plugin that raised it."""
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    lines = [f"{p.parent.name}/{p.name}:{line}" for p, line in frames if p.name == "plugin.py"]
    at = f" at {lines[-1]}" if lines else ""
    return f"{type(error).__name__} in the grader{at}"


def no_answer(grader: NamedGrader, completion: Completion) -> Grade:
    """Return the grade of a completion whose thought never ended."""
    return Grade(
        key=completion.key,
        grader=grader.name,
        grader_version=grader.version,
        outcome=Outcome.NO_ANSWER,
        details={"reason": "the thought was not closed"},
    )


def ungraded(grader: NamedGrader, completion: Completion, reason: str) -> Grade:
    """Return the grade of a completion that we failed to grade."""
    return Grade(
        key=completion.key,
        grader=grader.name,
        grader_version=grader.version,
        outcome=Outcome.UNGRADED,
        details={"reason": reason},
    )
