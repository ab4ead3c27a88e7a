"""Grade answers that are one letter of a few options: GPQA and the like.

The scoring reading is the last "Answer: X" of the visible answer, and where none stands the last
box or "answer is X". The second reading is openai/simple-evals', which takes the first match of a
plainer pattern: a model that repeats the instruction before it answers is read wrongly by it.
"""

from g4eval.graders.letters import first_choice_letter, last_choice_letter
from g4eval.records import Grade, Outcome, Sample, Try
from g4eval.tasking.choices import LETTERS, right_letter


class ChoiceGrader:
    """Compares the letter a completion names with the one that its prompt gave the right option.

    The target is the text of the right option, one of the sample's `options`; for a sample without
    them it is the letter itself.
    """

    name = "choice"
    version = 2

    def grade(self, one_try: Try) -> Grade:
        """Return the grade; `lenient_*` holds simple-evals' reading."""
        text = one_try.completion.text
        right = one_try.completion.target or right_letter(one_try.sample, one_try.repeat)
        extraction = last_choice_letter(text)
        second = first_choice_letter(text)
        return Grade(
            key=one_try.key,
            grader=self.name,
            grader_version=self.version,
            outcome=_outcome(extraction, right),
            extraction=extraction,
            lenient_extraction=second,
            lenient_outcome=_outcome(second, right),
        )

    def example(self, sample: Sample, repeat: int, *, right: bool) -> str:
        """Return "Answer: X" with the right letter, or with the one after it."""
        n_choices = len(sample.fields.get("options", LETTERS))
        place = LETTERS.index(right_letter(sample, repeat))
        return f"Answer: {LETTERS[place if right else (place + 1) % n_choices]}"


def _outcome(extraction: str | None, right: str) -> Outcome:
    if extraction is None:
        return Outcome.NO_ANSWER
    return Outcome.CORRECT if extraction == right else Outcome.INCORRECT
