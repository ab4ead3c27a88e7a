"""BBEH's official rules, rule by rule, and the kinder second reading."""

import pytest

from g4eval.graders.stated_answer import (
    StatedAnswerGrader,
    fuzzy_match,
    official_match,
    official_prediction,
)
from g4eval.jsonlines import read_json_lines
from g4eval.records import Completion, Outcome, Sample, StopReason
from tests.driving import try_of

VERDICTS = [
    # response, target, right by the official rules
    ("The answer is: 42", "42", True),
    ("  The answer is: 42.\n", "42", True),
    ("The answer is: no\nWait.\nThe answer is: yes", "yes", True),
    ("The answer is: yes\nThe answer is: no", "yes", False),
    ("The final answer is: blue", "blue", True),
    ("The final answer is blue", "blue", True),
    ("The answer is blue", "blue", True),
    ("blue", "blue", True),  # no prefix: the whole response
    ("the answer is: blue", "blue", False),  # the prefix is case-sensitive
    ("Answer: blue", "blue", False),
    ("The answer is: BLUE", "blue", True),
    ("The answer is: $7$", "7", True),
    ("The answer is: \\boxed{7}", "7", True),
    ("The answer is: \\boxed{7}.", "7", True),
    ("The answer is: $\\boxed{\\text{yes}}$", "yes", True),
    ("The answer is: \\texttt{yes}", "yes", True),
    ("The answer is: **7**", "7", True),
    ("The answer is: **\\boxed{7}**", "7", False),  # it doesn't end in a brace
    ("The answer is: 7\nbecause of the rest", "7", True),
    ("The answer is: 7 because of the rest", "7", False),
    ("The answer is: a, b, c", "a,b,c", True),
    ("The answer is: a,b,c", "a, b, c", True),
    ("The answer is: (b)", "b", True),
    ("The answer is: b", "(b)", True),
    ("The answer is: (b)", "(c)", False),
    ("The answer is: (bc)", "bc", False),
    ("The answer is: 7.0", "7", True),
    ("The answer is: 1e3", "1000", True),
    ("The answer is: 1_000", "1000", True),
    ("The answer is: nan", "nan", True),  # equal as text
    ("The answer is: +nan", "nan", False),
    ("The answer is: 'yes'", "yes", True),
    ('The answer is: "yes"', "yes", False),
    ("The answer is: [3]", "3", True),
    ("The answer is: 3", "[3]", True),
    ("The answer is: yes?", "yes", True),
    ("The answer is: yes??", "yes", False),
    ("", "yes", False),
    ("The answer is:", "yes", False),
]


@pytest.mark.parametrize(("response", "target", "right"), VERDICTS)
def test_the_verdict_follows_the_official_rules(response, target, right):
    assert official_match(response, target) is right


def _grade(text, target):
    completion = Completion(
        key="k",
        task_id="t",
        sample_id="s",
        repeat=0,
        text=text,
        stop_reason=StopReason.STOP,
    )
    return StatedAnswerGrader().grade(try_of(Sample(sample_id="s", target=target), completion))


def test_a_lettered_prediction_decides_alone():
    assert fuzzy_match("(7)", "7")
    assert not fuzzy_match("(7)", "(7")


@pytest.mark.parametrize(
    ("text", "outcome", "extraction", "lenient"),
    [
        ("The answer is: no", Outcome.INCORRECT, "no", Outcome.INCORRECT),
        ("Yes.", Outcome.CORRECT, "yes", Outcome.CORRECT),
        ("I would say yes, all in all.", Outcome.NO_ANSWER, None, Outcome.NO_ANSWER),
        ("**Answer:** Yes", Outcome.NO_ANSWER, None, Outcome.CORRECT),
        ("So the answer is **yes**.", Outcome.NO_ANSWER, None, Outcome.CORRECT),
        ("Hence $\\boxed{\\text{yes}}$", Outcome.NO_ANSWER, None, Outcome.CORRECT),
        ("Hence $\\boxed{yes}$ it is.", Outcome.NO_ANSWER, None, Outcome.CORRECT),
        ("The answer is: yes, it is", Outcome.INCORRECT, "yes,it is", Outcome.INCORRECT),
        ("", Outcome.NO_ANSWER, None, Outcome.NO_ANSWER),
    ],
)
def test_an_answer_that_was_not_asked_for_in_this_form_is_no_answer(
    text, outcome, extraction, lenient
):
    grade = _grade(text, "yes")
    assert (grade.outcome, grade.extraction, grade.lenient_outcome) == (
        outcome,
        extraction,
        lenient,
    )


def test_examples_are_graded_as_they_say():
    grader = StatedAnswerGrader()
    for target in ("yes", "(a)", "12.5", "a, b", "True", "[1, 2]", "( ) ]", "not"):
        sample = Sample(sample_id="s", target=target)
        for right, outcome in ((True, Outcome.CORRECT), (False, Outcome.INCORRECT)):
            assert _grade(grader.example(sample, 0, right=right), target).outcome is outcome


@pytest.mark.parametrize(("name", "count"), [("constructed", 1610), ("bbh_outputs", 2794)])
def test_every_labelled_case_gets_its_official_verdict(data_dir, name, count):
    path = data_dir / "bbeh" / f"grader_cases_{name}.jsonl.gz"
    rows = [row for _, row in read_json_lines(path)]
    assert len(rows) == count
    differ = [
        row["id"]
        for row in rows
        if (_grade(row["response"], row["target"]).outcome is Outcome.CORRECT)
        != row["official_correct"]
        or official_prediction(row["response"]) != row["official_prediction"]
    ]
    assert differ == []
