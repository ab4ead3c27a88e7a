r"""Grade answers that are integers: AIME and the like.

The scoring reading is MathArena's rule in words: the last box of the visible answer; with no box,
the last number in it; a right value counts in any plain form (`073`, `73.0`, `146/2`, `m+n=73`,
`\text{73}`). Ours reads a few honest forms that MathArena's parser drops, such as text or colour in
the box; a box that can't be read is no answer, whatever numbers stand around it.
The second, lenient reading looks for a stated answer ("the answer is 73") wherever it stands; it
never scores, and tells how often a right answer was there and not extracted. docs/tasks/reading.md
decides each form.
"""

from dataclasses import dataclass
from fractions import Fraction

from g4eval.graders.arithmetic import parse_value
from g4eval.graders.extract import last_answer_box, last_number, last_stated_number
from g4eval.records import Grade, Outcome, Sample, Try


class IntegerGrader:
    """Compares the integer a completion gives with the sample's target, an int."""

    name = "integer"
    needs_only_targets = True  # so a run can be graded again without its data
    version = 2

    def grade(self, one_try: Try) -> Grade:
        """Return the grade; `details["reading"]` says `box` or `last_number`."""
        text, target = one_try.completion.text, one_try.sample.target
        boxed = last_answer_box(text)
        scoring = _read(boxed if boxed is not None else last_number(text), target)
        stated = last_stated_number(text)
        second = _read(stated, target) if stated else scoring
        reading = "last_number" if boxed is None else "box"
        if boxed and scoring.extraction is None:
            reading = "unreadable box"
        return Grade(
            key=one_try.key,
            grader=self.name,
            grader_version=self.version,
            outcome=scoring.outcome,
            extraction=scoring.extraction,
            lenient_extraction=second.extraction,
            lenient_outcome=second.outcome,
            details={"reading": reading} if boxed or scoring.extraction else {},
        )

    def example(self, sample: Sample, repeat: int, *, right: bool) -> str:  # noqa: ARG002  Grader
        r"""Return `\boxed{target}`, or with `right` false the integer after it."""
        return f"The answer is \\boxed{{{int(sample.target) + (0 if right else 1)}}}."


@dataclass(frozen=True, slots=True)
class _Reading:
    extraction: str | None  # as written
    outcome: Outcome


def _read(written: str | None, target: int) -> _Reading:
    """Read a number; what can't be read is no answer, never a wrong one."""
    value = parse_value(written) if written else None
    if value is None:
        return _Reading(None, Outcome.NO_ANSWER)
    right = value == Fraction(target)
    return _Reading(written, Outcome.CORRECT if right else Outcome.INCORRECT)
