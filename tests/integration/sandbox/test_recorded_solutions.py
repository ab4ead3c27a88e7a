"""Recorded model solutions on the tests shipped with them: the official verdict, every one.

400 of the 4,476 by hash; all of them by hand with benchmarks/recorded_solutions.py, whose result is
in docs/verification.md.
"""

import os
from pathlib import Path

import pytest

from benchmarks.recorded_solutions import load_rows, make_job, pick_rows
from g4eval.sandbox.base import Verdict

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DATA = os.environ.get("G4EVAL_DATA_DIR")


@pytest.mark.skipif(not DATA, reason="G4EVAL_DATA_DIR is not set")
def test_recorded_solutions_get_the_official_verdict(make_judge) -> None:
    rows, problems = load_rows(Path(DATA or "") / "livecodebench")
    chosen = [row for row in pick_rows(rows, 400) if row["checker_on_shipped_tests"] is not None]
    assert len(chosen) > 350
    results = make_judge(slots=2)(*[make_job(row, problems) for row in chosen])
    wrong = [
        (row["question_id"], row["model"], row["checker_on_shipped_tests"], result.verdict.value)
        for row, result in zip(chosen, results, strict=True)
        if (result.verdict is Verdict.ACCEPTED) is not row["checker_on_shipped_tests"]
    ]
    assert wrong == []
    codes = [
        (row["question_id"], row["checker_error_code"], result.details["official_error_code"])
        for row, result in zip(chosen, results, strict=True)
        if row["checker_error_code"] is not None
        and row["checker_error_code"] != result.details["official_error_code"]
    ]
    assert codes == []
