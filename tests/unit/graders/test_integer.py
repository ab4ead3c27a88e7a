import pytest

from g4eval.graders.base import grade_try
from g4eval.graders.integer import IntegerGrader
from g4eval.records import Completion, Grade, Outcome, Sample, StopReason, Thought
from tests.driving import try_of

GRADER = IntegerGrader()


def grade(text: str, target: int = 73, thought: Thought = Thought.NONE) -> Grade:
    completion = Completion(
        key="k", task_id="t", sample_id="s", repeat=0, text=text, stop_reason=StopReason.STOP,
        thought=thought,
    )  # fmt: skip
    return grade_try(GRADER, try_of(Sample(sample_id="s", target=target), completion))


# One invented case of every kind in which peers' graders are known to differ, and more.
CASES = {
    "box": (r"So it is \boxed{73}.", "correct"),
    "box with text": (r"**Final Answer** \boxed{\text{73}}", "correct"),
    "padded box": (r"\boxed{073}", "correct"),
    "decimal box": (r"\boxed{73.0}", "correct"),
    "fraction": (r"\boxed{\frac{146}{2}}", "correct"),
    "plain fraction": (r"\boxed{146/2}", "correct"),
    "sum": (r"\boxed{70+3}", "correct"),
    "equation": (r"\boxed{m+n=73}", "correct"),
    "unit": (r"\boxed{73\text{ units}}", "correct"),
    "degrees": (r"\boxed{73^\circ}", "correct"),
    "period inside": (r"\boxed{73.}", "correct"),
    "bold": (r"\boxed{\mathbf{73}}", "correct"),
    "nested": (r"\boxed{\boxed{73}}", "correct"),
    "fbox": (r"\fbox{73}", "correct"),
    "two boxes, last right": (r"\boxed{5}, no: \boxed{73}", "correct"),
    "two boxes, last wrong": (r"\boxed{73}, no: \boxed{5}", "incorrect"),
    "box, then numbers": (r"\boxed{73}; checking 12 + 30 = 42", "correct"),
    "unclosed box": (r"The answer is \boxed{73", "correct"),
    "no box": ("The answer is 73.", "correct"),
    "last number": ("After summing we get 73", "correct"),
    "last number wrong": ("73 is found, with 7 cases", "incorrect"),
    "negative": (r"\boxed{-73}", "incorrect"),
    "thousands": (r"\boxed{1,073}", "incorrect"),
    "two values": (r"\boxed{73, 74}", "no_answer"),
    "coefficient": (r"\boxed{73x}", "no_answer"),
    "empty box": (r"\boxed{}", "no_answer"),
    "no number": ("I could not finish.", "no_answer"),
    "empty": ("", "no_answer"),
    "lone surrogate": ("\ud800 \\boxed{73}", "correct"),
    "NUL": ("\0\\boxed{73}", "correct"),
}


@pytest.mark.parametrize("case", CASES)
def test_outcome_of(case: str) -> None:
    text, outcome = CASES[case]
    assert grade(text).outcome == outcome


def test_target_zero_is_an_answer_like_any_other() -> None:
    assert grade(r"\boxed{0}", target=0).outcome is Outcome.CORRECT


def test_unfinished_thought_has_no_answer_however_right_its_box() -> None:
    assert grade(r"\boxed{73}", thought=Thought.OPEN).outcome is Outcome.NO_ANSWER


def test_lenient_reading_finds_a_stated_answer_and_never_scores() -> None:
    judged = grade("The answer is 73. Checked with 5 more cases")
    assert judged.outcome is Outcome.INCORRECT
    assert judged.lenient_extraction == "73"
    assert judged.lenient_outcome is Outcome.CORRECT


def test_reading_without_a_box_is_noted() -> None:
    assert grade("It is 73").details == {"reading": "last_number"}
    assert grade(r"\boxed{73}").details == {"reading": "box"}
