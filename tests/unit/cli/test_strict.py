"""`g4eval run --strict` ends with 1 where a score is below the published one."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from g4eval.cli.main import cli
from g4eval.records import Outcome
from g4eval.session import FinishedRun
from g4eval.stats.summary import summarise
from g4eval.store.reader import RunReader
from tests.unit.report.test_from_store import PLAN, SAMPLES, completion, grade, make_run


def finished(folder, outcome):
    """A finished run of thirty answers of the 31B on AIME 2026, all with one outcome."""
    samples = [replace(SAMPLES[0], sample_id=f"s{i}") for i in range(30)]
    rows = [(completion(sample.sample_id, 0), grade(outcome)) for sample in samples]
    plan = {**PLAN, "repeats": 1, "rows_stated": 30, "n_selected": 30}
    make_run(folder, rows=rows, plan=plan, samples=samples)
    with RunReader(folder) as run:
        return FinishedRun(folder=folder, summaries=summarise(run))


@pytest.mark.parametrize(
    ("outcome", "flags", "code"),
    [
        (Outcome.INCORRECT, ["--strict"], 1),
        (Outcome.INCORRECT, [], 0),
        (Outcome.CORRECT, ["--strict"], 0),
    ],
)
def test_strict_decides_the_exit_code(tmp_path, monkeypatch, outcome, flags, code):
    run = finished(tmp_path / "r", outcome)
    monkeypatch.setattr("g4eval.cli.run.run_blocking", lambda config, reporter: run)
    result = CliRunner().invoke(cli, ["run", "aime26", "--model", "google/gemma-4-31B-it", *flags])
    assert result.exit_code == code
    assert ("not reproduced: aime26" in result.stderr) == (code == 1)
    assert ("aime26: BELOW" in result.stdout) == (outcome is Outcome.INCORRECT)
