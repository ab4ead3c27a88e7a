"""docs/tasks/reading.md against the graders: every form is decided there, and read so."""

import json
import re
from pathlib import Path

import pytest

from g4eval.config import SamplingParams
from g4eval.graders.base import Grader, grade_try
from g4eval.graders.choice import ChoiceGrader
from g4eval.graders.integer import IntegerGrader
from g4eval.records import Chat, Grade, Outcome, Request, Sample
from g4eval.responses import build_completion, parse_stop_reason
from tests.driving import try_of

PAGE = Path(__file__).parents[2] / "docs" / "tasks" / "reading.md"
REQUEST = Request(
    key="k", task_id="t", task_version=1, sample_id="s", repeat=0, prompt=Chat(()),
    sampling=SamplingParams(), seed=1,
)  # fmt: skip


@pytest.fixture
def forms(data_dir):
    folder = data_dir.parent / "cases" / "forms"
    if not folder.is_dir():
        pytest.skip(f"the cases aren't here: {folder}")
    return folder


def read(grader: Grader, target: object, text: str, stop: str = "stop") -> Grade:
    completion = build_completion(REQUEST, text, parse_stop_reason(stop), thinking=False)
    return grade_try(grader, try_of(Sample(sample_id="s", target=target), completion))


def decided(heading: str) -> dict[str, str]:
    """Return form -> the first word of what the page decides, of one table."""
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| ")][2:]
    return {row[0].strip(): re.split(r"[^\w]", row[-1].strip())[0] for row in rows}


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_form_of_an_integer_is_decided_and_read_so(forms) -> None:
    page, rows = decided("Integers: AIME"), rows_of(forms / "aime.jsonl")
    assert page.keys() == {row["form"] for row in rows}
    for row in rows:
        text = row["text"].replace("N,NNN", "4,117").replace("NNN", "117")
        right = read(IntegerGrader(), 117, text).outcome is Outcome.CORRECT
        assert right == (page[row["form"]] == "right"), row["form"]
        assert right == (row["careful_reader"] == "ok"), row["form"]


def test_every_form_of_a_letter_is_decided_and_read_so(forms) -> None:
    page, rows = decided("Letters: GPQA"), rows_of(forms / "gpqa.jsonl")
    assert page.keys() == {row["form"] for row in rows}
    for row in rows:
        letter = read(ChoiceGrader(), "B", row["text"]).extraction or "none"
        assert letter == page[row["form"]] == row["careful_reader"], row["form"]


def test_every_form_of_a_channel_is_decided_and_read_so(forms) -> None:
    page, rows = decided("Channels"), rows_of(forms / "channels.jsonl")
    assert page.keys() == {row["form"] for row in rows}
    for row in rows:
        text = row["text"].replace("{R}", "{117}").replace("{W}", "{5}")
        outcome = read(IntegerGrader(), 117, text, row["stop_reason"]).outcome
        assert outcome == page[row["form"]], row["form"]
        assert row["careful_reader"].rstrip("?") in ("", outcome), row["form"]


@pytest.mark.parametrize(
    "box",
    [
        r"\color{red}{117}", r"{\color{blue} 117}", r"\colorbox{yellow}{117}", r"\large 117",
        r"\mathtt{117}", r"{\rm 117}", r"\bfseries 117", r"5117 \equiv 117 \pmod{1000}",
        r"5117 \bmod 1000", r"117_{10}", r"(117)_{\text{ten}}", r"117 = m + n", r"117\,\text{m}^2",
        r"117 cm^2", r"117^{\text{th}}", r"{234 \over 2}", r"\sqrt{13689}",
        r"\lfloor 117.9 \rfloor",
        r"\{117\}", r"\begin{aligned}117\end{aligned}", "\uff11\uff11\uff17", "117\u200b",
        "\u201c117\u201d",
        r"\hspace{1cm}117", r"\bbox[yellow]{117}", r"117 \text{ (mod } 1000)", "<b>117</b>",
    ],
)  # fmt: skip
def test_what_only_changes_the_look_of_a_number_is_read_through(box) -> None:
    assert read(IntegerGrader(), 117, rf"So \boxed{{{box}}}.").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    "box",
    [
        "117, 118", r"117 \text{ or } 118", r"\{117, 118\}", "117x", r"117\pi", "117 pi", "log 117",
        r"\neq 117", "x != 117", r"\not= 117", r"\text{at least } 117", "not 117", r"\pm 117",
        "117 thousand", r"\cancel{118}117", "2(117)", r"\sqrt{2}", "none", "117!",
    ],
)  # fmt: skip
def test_an_unreadable_box_is_no_answer_whatever_numbers_it_holds(box) -> None:
    grade = read(IntegerGrader(), 117, rf"Of 117 cases, \boxed{{{box}}}.")
    assert (grade.outcome, grade.extraction) == (Outcome.NO_ANSWER, None)
    assert grade.details == {"reading": "unreadable box"}


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{117}, that is \boxed{...}", r"\boxed{117}. As asked: \boxed{\text{your answer}}",
        r"\boxed{117} in \boxed{ }", r"\boxed{117}. I used \boxed{final answer}",
    ],
)  # fmt: skip
def test_a_box_that_only_repeats_the_asked_form_hides_no_answer(text) -> None:
    assert read(IntegerGrader(), 117, text).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    "text",
    [
        "Answer → B", "Answer - B", "Answer:\n\n- B", "Answer: <b>B</b>", "Answer: Ⓑ",
        "Answer: \U0001d401",
        r"\boxed{B. text}", r"\boxed{\color{red}{B}}", r"\boxed{B}, as \boxed{x = 3}",
        "**Final Answer**\n\n(B)", "**B** is the correct answer.", "I'll go with option B.",
        "The answer is C\u2013H activation (option B)", "Long.\n\n**B**", "Answer: B, D is wrong",
        "the answer must be B", "Final Answer (B)", "<answer>\nB\n</answer>", "ANSWER: OPTION B",
        "Answer: A-type bonds. So the option B", "Answer: B and not A",
    ],
)  # fmt: skip
def test_a_letter_is_read_however_it_is_stated(text) -> None:
    assert read(ChoiceGrader(), "B", text).extraction == "B"


@pytest.mark.parametrize(
    "text",
    [
        "Answer: A, B and C", "Answer: **A** or **B**", "Answer: A & B", "Answer: D-glucose",
        "Answer: C=O", "Answer: $B_{12}$", "Answer: C₂", "The answer is C\u03b1", "Answer: A→B",
        "Answer: D'Alembert", r"\boxed{A, B}", r"\boxed{\Delta E}", "Option A is incorrect.",
        "if option A is correct then", "A) 1\nB) 2\nC) 3\nD) 4", "A\nB\nC\nD", "Answer: not A",
        "Vitamin C is true to its name.", "The answer is a mystery",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_letter_is_no_answer(text) -> None:
    grade = read(ChoiceGrader(), "A", text)
    assert (grade.outcome, grade.extraction) == (Outcome.NO_ANSWER, None)
