"""`g4eval report` over runs that `g4eval run` made."""

import json
import threading

import pytest

RUN = ("run", "demo_math", "--engine", "fake", "--limit", "4")


@pytest.fixture
def two_runs(quick_cli, tmp_path):
    """Two finished runs of a demo task, which differ by their seed."""
    for seed in ("1", "2"):
        assert quick_cli(*RUN, "--seed", seed, "--run-id", f"run{seed}").returncode == 0
    return tmp_path


def test_a_report_of_two_runs_is_written_and_says_where(quick_cli, two_runs):
    done = quick_cli("report", "run1", "run2", "--out", "out")
    assert done.returncode == 0
    assert done.stdout.strip() == "out/index.html"
    names = {path.name for path in (two_runs / "out").glob("*.html")}
    assert names == {
        "index.html",
        "run-run1.html",
        "run-run2.html",
        "compare-run1--run2.html",
        "published.html",
        "methods.html",
    }


def test_an_unknown_run_and_a_folder_in_use_are_refused(quick_cli, two_runs):
    unknown = quick_cli("report", "run3", "--out", "out")
    assert unknown.returncode == 2
    assert "'run3' is not a run" in unknown.stderr
    in_use = quick_cli("report", "run1", "--out", "runs")
    assert in_use.returncode == 2
    assert "isn't a report" in in_use.stderr


def test_watching_a_finished_run_writes_once_and_ends(quick_cli, two_runs):
    done = quick_cli("report", "run1", "--out", "out", "--watch")
    assert done.returncode == 0
    assert done.stderr.count("written:") == 1
    assert "live.js" not in (two_runs / "out/index.html").read_text("utf-8")


@pytest.mark.slow
def test_watching_follows_a_run_until_it_ends(cli, quick_cli, tmp_path):
    slow = (*RUN, "--run-id", "slow", "--set", "engine.delay_seconds=3")
    runner = threading.Thread(target=cli, args=(*slow, "--set", "engine.concurrency=1"))
    runner.start()
    while not (tmp_path / "runs/slow/manifest.json").is_file():
        threading.Event().wait(0.2)
    done = quick_cli("report", "slow", "--out", "out", "--watch")
    runner.join()
    assert done.returncode == 0
    assert done.stderr.count("written:") >= 2
    state = (tmp_path / "out/data/live.js").read_text()
    assert json.loads(state.partition(",")[2].rpartition(")")[0]) | {"version": ""} == {
        "live": False,
        "done": 8,
        "planned": 8,
        "finished": True,
        "version": "",
    }


def test_the_table_of_a_run_tells_how_it_stands_to_the_published_score(
    quick_cli, data_dir, tmp_path
):
    done = quick_cli(
        "run",
        "aime26",
        "--engine",
        "fake",
        "--model",
        "google/gemma-4-31B-it",
        "--repeats",
        "1",
        "--strict",
        G4EVAL_DATA_DIR=str(data_dir),
    )
    assert done.returncode == 0
    assert "aime26: NOT COMPARABLE" in done.stdout
    assert "the answers are scripted by engine fake" in done.stdout
