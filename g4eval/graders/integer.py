r"""Grade answers that are integers: AIME and the like.

The scoring reading is MathArena's rule in words: the last box of the visible answer; with no box,
the last number in it; a right value counts in any plain form (`073`, `73.0`, `146/2`, `m+n=73`,
`\text{73}`). Ours reads a few honest forms that MathArena's parser drops, such as text in the box.
The second, lenient reading looks for a stated answer ("the answer is 73") wherever it stands; it
never scores, and tells how often a right answer was there and not extracted.
"""

from fractions import Fraction

from g4eval.graders.arithmetic import parse_value
from g4eval.graders.extract import last_boxed, last_number, last_stated_number
from g4eval.records import Completion, Grade, Outcome, Sample


class IntegerGrader:
    """Compares the integer a completion gives with the sample's target, an int."""

    name = "integer"
    needs_only_targets = True  # so a run can be graded again without its data
    version = 1

    def grade(self, sample: Sample, completion: Completion) -> Grade:
        """Return the grade; `details["reading"]` says `box` or `last_number`."""
        text = completion.text
        boxed = last_boxed(text)
        extraction = boxed if boxed is not None else last_number(text)
        lenient = last_stated_number(text) or extraction
        outcome = _outcome(extraction, sample.target)
        return Grade(
            key=completion.key,
            grader=self.name,
            grader_version=self.version,
            outcome=outcome,
            extraction=extraction or None,
            lenient_extraction=lenient or None,
            lenient_outcome=outcome if lenient == extraction else _outcome(lenient, sample.target),
            details={"reading": "last_number" if boxed is None else "box"} if extraction else {},
        )

    def example(self, sample: Sample, repeat: int, *, right: bool) -> str:  # noqa: ARG002  Grader
        r"""Return `\boxed{target}`, or with `right` false the integer after it."""
        return f"The answer is \\boxed{{{int(sample.target) + (0 if right else 1)}}}."


def _outcome(extraction: str | None, target: int) -> Outcome:
    if extraction is None or not extraction.strip():
        return Outcome.NO_ANSWER
    return Outcome.CORRECT if parse_value(extraction) == Fraction(target) else Outcome.INCORRECT
