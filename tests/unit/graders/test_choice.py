"""The letter a completion names, in both readings, and the order in which options are shown."""

import json
import os
import subprocess
import sys
import zipfile
from collections import Counter

import pytest

from g4eval.graders.choice import ChoiceGrader
from g4eval.graders.letters import first_choice_letter, last_choice_letter
from g4eval.records import Completion, Outcome, Sample, StopReason
from g4eval.tasking.choices import choice_order
from tests.driving import try_of

ORDER_0 = (2, 3, 1, 0)
ORDER_1 = (3, 2, 0, 1)

READINGS = [
    # text, our reading, simple-evals' reading
    ("Some thoughts.\nAnswer: B", "B", "B"),
    ("Answer: A\nOn second thought,\nAnswer: C", "C", "A"),
    ("The format is 'Answer: A/B/C/D'.\n\nAnswer: D", "D", "A"),
    ("**Answer: C**", "C", "C"),
    ("**Answer:** **C**", "C", None),
    ("Answer: $D$", "D", "D"),
    ("Answer: (b)", "B", None),
    ("ANSWER : d", "D", "D"),
    ("Answer: \\boxed{A}", "A", None),
    ("Answer: \\(\\text{C}\\)", "C", None),
    ("Answer: Option B", "B", None),
    ("Answer: B) 12 metres", "B", "B"),
    ("So it is \\boxed{\\text{D}}.", "D", None),
    ("Hence \\boxed{(C) }", "C", None),
    ("The correct answer is **B**.", "B", None),
    ("The final answer is:\n\n**D) 7**", "D", None),
    ("Final answer:\n\nC", "C", None),
    ("The answer is option A, as shown.", "A", None),
    ("Answer: About 12", None, "A"),
    ("Answer: a large value", None, "A"),
    ("Answer: A or B", None, "A"),
    ("Answer: A/B", None, "A"),
    ("I can't tell.", None, None),
    ("A, B and C are wrong.", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("text", "ours", "simple_evals"), READINGS)
def test_a_letter_is_read_both_ways(text, ours, simple_evals):
    assert last_choice_letter(text) == ours
    assert first_choice_letter(text) == simple_evals


def _completion(text, repeat=0):
    return Completion(
        key="k",
        task_id="t",
        sample_id="s",
        repeat=repeat,
        text=text,
        stop_reason=StopReason.STOP,
    )


def test_a_letter_as_target_is_the_letter_shown():
    grade = ChoiceGrader().grade(
        try_of(Sample(sample_id="s", target="C"), _completion("Answer: B\nAnswer: C"))
    )
    assert (grade.outcome, grade.extraction) == (Outcome.CORRECT, "C")
    assert (grade.lenient_outcome, grade.lenient_extraction) == (Outcome.INCORRECT, "B")


def _with_options(sample_id="s", options=("red", "green", "blue", "grey")):
    return Sample(sample_id=sample_id, target=options[0], fields={"options": list(options)})


def test_the_text_of_an_option_as_target_follows_the_order_of_the_repeat():
    sample = _with_options()
    for repeat in range(8):
        letter = "ABCD"[choice_order("s", repeat).index(0)]
        grade = ChoiceGrader().grade(try_of(sample, _completion(f"Answer: {letter}", repeat)))
        assert grade.outcome is Outcome.CORRECT


def test_no_letter_is_no_answer_and_a_wrong_letter_is_incorrect():
    sample = Sample(sample_id="s", target="A")
    assert ChoiceGrader().grade(try_of(sample, _completion("Hm."))).outcome is Outcome.NO_ANSWER
    assert (
        ChoiceGrader().grade(try_of(sample, _completion("Answer: B"))).outcome is Outcome.INCORRECT
    )


def test_examples_are_graded_as_they_say():
    grader = ChoiceGrader()
    samples = [Sample(sample_id="s", target="A"), Sample(sample_id="s", target="D")]
    for sample in [*samples, _with_options(), _with_options(options=("yes", "no"))]:
        for repeat in range(4):
            right = _completion(grader.example(sample, repeat, right=True), repeat)
            wrong = _completion(grader.example(sample, repeat, right=False), repeat)
            assert grader.grade(try_of(sample, right)).outcome is Outcome.CORRECT
            assert grader.grade(try_of(sample, wrong)).outcome is Outcome.INCORRECT


def test_the_order_of_options_is_the_same_everywhere():
    # Worked out once with sha256sum over "rec1:0:0" to "rec1:0:3" and "rec1:1:0" to "rec1:1:3".
    assert choice_order("rec1", 0) == ORDER_0
    assert choice_order("rec1", 1) == ORDER_1
    code = "from g4eval.tasking.choices import choice_order as c; print(c('rec1', 0), c('rec1', 1))"
    for seed in ("0", "1"):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        assert printed == f"{ORDER_0} {ORDER_1}\n"


def test_each_letter_is_right_about_a_quarter_of_the_time():
    letters = Counter(
        "ABCD"[choice_order(f"rec{sample}", repeat).index(0)]
        for sample in range(198)
        for repeat in range(8)
    )
    # 1,584 draws: a quarter is 396, four standard errors of it are 69.
    assert all(327 <= letters[letter] <= 465 for letter in "ABCD")


@pytest.fixture
def recorded_outputs(data_dir):
    """The recorded GPQA outputs, read from their zip and kept in memory alone."""
    with zipfile.ZipFile(data_dir / "gpqa" / "recorded_outputs.zip") as archive:
        lines = archive.read(
            "gpqa_diamond_recorded_outputs.jsonl", pwd=b"deserted-untie-orchid"
        ).decode()
    return [json.loads(line) for line in lines.split("\n") if line]


def test_simple_evals_reading_equals_its_verdict_on_every_recorded_output(recorded_outputs):
    grader = ChoiceGrader()
    differ = []
    ours_right = theirs_right = lost = 0
    for row in recorded_outputs:
        sample = Sample(sample_id=row["record_id"], target=row["target"])
        grade = grader.grade(try_of(sample, _completion(row["response"])))
        theirs = grade.lenient_outcome is Outcome.CORRECT
        ours = grade.outcome is Outcome.CORRECT
        if theirs != row["simple_evals_correct"]:
            differ.append(row["id"])  # an id holds no text of the question
        ours_right += ours
        theirs_right += theirs
        lost += theirs and not ours
    assert len(recorded_outputs) == 1974
    assert differ == []
    # Ours finds the answers that simple-evals' pattern or its first match misses.
    assert (theirs_right, ours_right, lost) == (747, 783, 1)
