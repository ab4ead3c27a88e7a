"""The Grader protocol, the rule that comes before every grader, and the table of graders.

Every implementation passes `tests/contract/test_grader.py`.
"""

import traceback
from pathlib import Path
from typing import Protocol

from g4eval.records import Grade, Outcome, Sample, Thought, Try
from g4eval.registry import Registry


class Grader(Protocol):
    """Judges one try: pure and synchronous, so that a worker process can run it."""

    name: str
    version: int  # raised whenever any grade can change

    def grade(self, one_try: Try) -> Grade:
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


def grade_try(grader: Grader, one_try: Try) -> Grade:
    """Grade one try, a last thought that never ended first: it has no answer.

    Whatever number such a thought mentions, the model had not settled on it. A grader that raises
    is our failure, so the try is ungraded; one that exits or interrupts too. MemoryError and
    a worker's time-out pass through.
    """
    if one_try.completion.thought is Thought.OPEN:
        return no_answer(grader, one_try)
    try:
        return grader.grade(one_try)
    except (MemoryError, TimeUpError):
        raise
    except BaseException as error:  # noqa: BLE001  any bug of a grader is ours, never the model's
        return ungraded(grader, one_try, raised_reason(error))


def raised_reason(error: BaseException) -> str:
    """Return why there is no grade: the kind of error, and the line of a plugin that raised it."""
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    lines = [f"{p.parent.name}/{p.name}:{line}" for p, line in frames if p.name == "plugin.py"]
    at = f" at {lines[-1]}" if lines else ""
    return f"{type(error).__name__} in the grader{at}"


def no_answer(grader: NamedGrader, one_try: Try) -> Grade:
    """Return the grade of a try whose last thought never ended."""
    return Grade(
        key=one_try.key,
        grader=grader.name,
        grader_version=grader.version,
        outcome=Outcome.NO_ANSWER,
        details={"reason": "the thought was not closed"},
    )


def ungraded(grader: NamedGrader, one_try: Try, reason: str) -> Grade:
    """Return the grade of a try that we failed to grade."""
    return Grade(
        key=one_try.key,
        grader=grader.name,
        grader_version=grader.version,
        outcome=Outcome.UNGRADED,
        details={"reason": reason},
    )
