import time

import pytest

from g4eval.graders.extract import last_boxed, last_number, last_stated_number


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{62}.", "62"),
        (r"\fbox{540}", "540"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\boxed{70}}", "70"),
        (r"\boxed{\fbox{7} + 1}", "7 + 1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {5}", "5"),
        (r"\boxed{9} and \boxed{10", "9"),  # the last one is never closed
        (r"{ \boxed{3} ", "3"),
        (r"} \boxed{3}", "3"),
        (r"\boxed{}", ""),
        ("no box, 5", None),
        ("a box of 5", None),
        (r"\boxed{7", None),
    ],
)
def test_content_of_the_last_closed_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3 then 46.", "46"),
        ("1,023 in all", "1,023"),
        ("it is 65.0", "65.0"),
        ("x = -12", "-12"),
        ("17-5", "5"),
        ("left over is 2x", None),
        ("it weighs 12kg", "12"),
        ("step 4: 2x", "4"),
        ("none", None),
    ],
)
def test_last_number_as_written(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 73. I checked 5 cases.", "73"),
        ("**Answer: 1,023**", "1,023"),
        ("The answer is 3. No, the final answer is 4!", "4"),
        ("the result of all this\nis 5", None),
        ("nothing", None),
    ],
)
def test_last_stated_number(text: str, number: str | None) -> None:
    assert last_stated_number(text) == number


@pytest.mark.parametrize(
    "hostile",
    [r"\boxed{" * 40_000, "{" * 200_000, "answer " * 40_000, " " * 200_000, "1," * 100_000],
    ids=["open boxes", "braces", "words", "blanks", "commas"],
)
def test_hostile_text_takes_no_time(hostile: str) -> None:
    begun = time.process_time()
    last_boxed(hostile)
    last_number(hostile)
    last_stated_number(hostile)
    assert time.process_time() - begun < 2
