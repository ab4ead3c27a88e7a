"""What is on the screen while a run goes on: early, as time goes, with the table's own scores."""

import io
import re
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from g4eval.cli import progress
from g4eval.cli.progress import ProgressReporter, ScoresSoFar
from g4eval.records import Completion, Grade, Outcome, Sample, StopReason
from g4eval.stats.summary import summarise
from g4eval.store.reader import RunReader
from tests.conftest import cli_environment
from tests.driving import try_of


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_TO_THE_FIRST", 0.05)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.1)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_FRAMES", 0.02)


def wait_for(seen, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not re.search(pattern, seen()):
        assert time.monotonic() < deadline, seen()
        time.sleep(0.02)


@pytest.fixture
def stored(quick_cli, tmp_path):
    """A run of two tasks with two repeats."""
    done = quick_cli("run", "demo_math", "demo_choice", "--engine", "fake", "--model", "m",
                     "--run-id", "r", "--repeats", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs" / "r"


def test_something_is_said_while_an_engine_loads(quick) -> None:
    out = io.StringIO()
    reporter = ProgressReporter(Console(file=out))
    try:
        wait_for(out.getvalue, r"working, 0:00:0\d so far\nworking")
    finally:
        reporter.close()


def test_lines_come_before_the_first_answer_and_while_none_comes(quick, stored, capfd) -> None:
    reporter = ProgressReporter(Console(file=io.StringIO()))
    said = [""]

    def seen() -> str:
        said[0] += capfd.readouterr().err
        return said[0]

    try:
        with RunReader(stored) as run:
            reporter.start({"demo_math": 5}, {"demo_math": 0}, run)
            wait_for(seen, r"0/5, first requests sent 0:00:0\d ago.*\n0/5")
            reporter.stop()
    finally:
        reporter.close()


def test_scores_so_far_are_the_tables(stored) -> None:
    with RunReader(stored) as run:
        words = ScoresSoFar(run).words()
        for summary in summarise(run):
            estimate = summary.estimate
            assert estimate.interval is not None
            low, high = 100 * estimate.interval.low, 100 * estimate.interval.high
            assert (
                f"{summary.task_id} {100 * estimate.value:.1f} ({low:.1f} to {high:.1f})" in words
            )


def test_a_grade_counts_once_its_completion_is_known(stored) -> None:
    with RunReader(stored) as run:
        scores = ScoresSoFar(run)
        before = len(scores._rows["demo_math"])
        completion = Completion(
            key="k",
            task_id="demo_math",
            sample_id="new",
            repeat=0,
            text="",
            stop_reason=StopReason.STOP,
        )
        right = Grade(key="k", grader="integer", grader_version=2, outcome=Outcome.CORRECT)
        scores.take(right)
        scores.take(try_of(Sample(sample_id="new", target=1), completion))
        scores.take(right)
        scores.take(right)
        assert len(scores._rows["demo_math"]) == before + 1


def test_a_calibrations_run_shows_progress_and_keeps_what_it_made(tmp_path, quick_cli) -> None:
    """Interrupted by Ctrl-C, the same command goes on where it was."""
    base = ("run", "demo_math", "--engine", "fake", "--model", "m", "--run-id", "base",
            "--repeats", "2", "--set", "engine.concurrency=2")  # fmt: skip
    assert quick_cli(*base).returncode == 0
    environment = cli_environment()
    patched = tmp_path / "slow.py"
    patched.write_text(
        "import g4eval.engines.fake as fake\n"
        "fake.FakeOptions.model_fields['delay_seconds'].default = 0.6\n"
        "fake.FakeOptions.model_rebuild(force=True)\n"
        "from g4eval.cli.entry import main\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, patched, "gate-calibrate", "base", "--no-control"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if re.match(r"[1-9]\d*/\d+,|.*first requests sent", line):
            break
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130, said
    with RunReader(tmp_path / "runs" / "base-again") as run:
        kept = run.finished_tries("demo_math")
    assert kept
    assert quick_cli("gate-calibrate", "base", "--no-control").returncode in (0, 4)
    with RunReader(tmp_path / "runs" / "base-again") as run:
        assert kept < run.finished_tries("demo_math")
