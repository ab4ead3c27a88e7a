"""LiveCodeBench's rule for taking the code out of an answer."""

import pytest

from g4eval.graders.extract import last_fenced_block
from g4eval.jsonlines import read_json_lines

CASES = [
    ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)"),
    ("```\nold\n```\nBetter:\n```python\n  new()\n```", "  new()"),
    ("```python\nsolve()\n```\nOutput:\n```\n42\n```", "42"),  # the last block wins, code or not
    ("no fence", None),
    ("one ```print(1)``` line", None),
    ("```python\nnever closed", None),
    ("```python\na\n```\nbetween\n```python\nb", "between"),  # an odd fence: the official rule
    ("  ```py\nx\n  ``` end", "x"),
    ("~~~\nx\n~~~", None),
    ("```\n```", ""),
    ("```\r\nx\r\n```", "x\r"),
    ("```\nx\u2028y\n```", "x\u2028y"),
    ("", None),
]


@pytest.mark.parametrize(("text", "code"), CASES)
def test_the_block_between_the_last_two_fences_is_taken(text, code):
    assert last_fenced_block(text) == code


def test_every_recorded_extraction_is_equal(data_dir):
    path = data_dir / "livecodebench" / "extraction_cases.jsonl.gz"
    rows = [row for _, row in read_json_lines(path)]
    assert len(rows) == 1500
    assert [r["id"] for r in rows if (last_fenced_block(r["output"]) or "") != r["code"]] == []
