from dataclasses import replace

import pytest

from g4eval.report.leaderboard import build_leaderboard, chart_data, score_table, short_model
from tests.unit.report.cases import aime, estimate, known, livecodebench
from tests.unit.report.synthetic import run_view


def run_with(name, measurement, **changes):
    """A run of AIME 2026 with this very score."""
    run = run_view(name, shares={"aime26": 0.5}, limit=2, **changes)
    return replace(run, tasks=(replace(run.tasks[0], measurement=measurement),))


def scored(name, value, low, high, **changes):
    return run_with(name, aime(estimate=estimate(value, low, high), **changes))


def front(*runs):
    return {row.run.run_id for row in build_leaderboard(runs).rows if row.in_front}


def test_scores_that_cannot_be_told_apart_are_all_in_front():
    runs = [
        scored("a", 0.89, 0.84, 0.93),
        scored("b", 0.86, 0.81, 0.91),
        scored("c", 0.5, 0.4, 0.6),
    ]
    assert front(*runs) == {"a", "b"}


def test_nothing_is_in_front_alone_in_its_column():
    assert front(scored("a", 0.89, 0.84, 0.93)) == set()


def test_a_partial_run_is_never_in_front():
    partial = scored("p", 0.99, 0.9, 1.0, is_partial=True)
    assert front(partial, scored("a", 0.89, 0.84, 0.93), scored("b", 0.5, 0.4, 0.6)) == {"a"}


@pytest.mark.parametrize(
    ("runs", "headline"),
    [
        (
            [scored("a", 0.89, 0.84, 0.93)],
            "1 of 1 comparable score is consistent with the published one",
        ),
        (
            [scored("a", 0.89, 0.84, 0.93), scored("b", 0.5, 0.4, 0.6)],
            "1 of 2 comparable scores is consistent with the published ones",
        ),
        (
            [scored("a", 0.5, 0.4, 0.6, engine="fake")],
            "1 score, none comparable with a published one",
        ),
    ],
)
def test_the_headline_counts_what_is_consistent(runs, headline):
    assert build_leaderboard(runs).headline == headline


def test_gemma_3_stands_beside_every_score_as_reference():
    board = build_leaderboard([scored("a", 0.89, 0.84, 0.93)])
    assert known(board.columns[0].reference).printed == "20.8"
    assert board.rows[0].over_reference == pytest.approx(0.89 - 0.208)


def test_the_table_carries_errors_counts_and_the_published_score():
    row = score_table(build_leaderboard([scored("a", 0.89, 0.84, 0.93)])).iloc[0]
    assert (row["score"], row["low_95"], row["high_95"]) == (0.89, 0.84, 0.93)
    assert (row["n_samples"], row["n_repeats"], row["n_ungraded"]) == (30, 4, 0)
    assert (row["published"], row["published_source"]) == (0.892, "g4-tech-report")
    assert (row["published_protocol"], row["verdict"]) == ("inferred", "consistent")
    assert row["difference"] == pytest.approx(-0.002)


def test_runs_of_one_model_are_told_apart_in_the_charts():
    a, b = scored("run-a", 0.89, 0.84, 0.93), scored("run-b", 0.8, 0.7, 0.9)
    other = scored("run-c", 0.4, 0.3, 0.5)
    other = replace(other, model="google/gemma-4-E4B-it")
    panel = chart_data(build_leaderboard([a, b, other]))["panels"][0]
    assert [row["label"] for row in panel["rows"]] == ["run-a", "run-b", "gemma-4-E4B-it"]
    assert panel["reference"] == {"label": "Gemma 3 27B", "value": pytest.approx(20.8)}
    assert (panel["rows"][0]["value"], panel["rows"][0]["published"]) == (89.0, 89.2)


def test_a_score_of_nothing_is_drawn_nowhere():
    empty = run_with("e", aime(estimate=estimate(float("nan"), interval=None, n_graded=0)))
    (row,) = chart_data(build_leaderboard([empty]))["panels"][0]["rows"]
    assert row["value"] is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("google/gemma-4-31B-it", "gemma-4-31B-it"),
        ("/models/x/", "x"),
        ("plain", "plain"),
        ("/", "/"),
    ],
)
def test_short_names_of_models(model, name):
    assert short_model(model) == name


def test_a_part_of_a_task_is_marked_wherever_its_number_stands():
    partial = scored("p", 0.45, 0.2, 0.7, is_partial=True)
    measured = partial.tasks[0].measurement
    few = replace(measured, estimate=replace(measured.estimate, n_samples=5))
    run = run_with("p", few)
    board = build_leaderboard([run])
    (row,) = board.rows
    assert row.part == "5 of 30"
    assert board.columns[0].subtitle.endswith("5 of 30 questions")
    assert "partial: 5 of 30" in chart_data(board)["panels"][0]["rows"][0]["label"]
    assert score_table(board)["caveats"][0] == "partial: 5 of 30"
    assert row.over_reference is None


def test_no_difference_is_printed_between_different_question_sets():
    run = run_view("l", shares={"livecodebench_v6": 0.5}, limit=2)
    other = livecodebench(n_samples=791, release="all windows (791 samples)")
    run = replace(run, tasks=(replace(run.tasks[0], measurement=other),))
    board = build_leaderboard([run])
    (row,) = board.rows
    assert row.is_other_set
    assert row.over_reference is None
    panel = chart_data(board)["panels"][0]
    assert panel["reference"] is None
    assert panel["rows"][0]["published"] is None
    assert "another question set" in panel["rows"][0]["label"]
    assert score_table(board)["gemma_3_27b_published"][0] is None


def test_runs_on_different_question_sets_share_a_column_and_no_front():
    runs = []
    for name, n, release in (("a", 175, "v6 increment"), ("b", 791, "all windows")):
        run = run_view(name, shares={"livecodebench_v6": 0.5}, limit=2)
        measured = livecodebench(n_samples=n, release=release)
        runs.append(replace(run, tasks=(replace(run.tasks[0], measurement=measured),)))
    board = build_leaderboard(runs)
    assert board.columns[0].subtitle.endswith("different question sets")
    assert not any(row.in_front for row in board.rows)


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1+1", "@SUM(1)", "\t=1"])
def test_no_cell_of_the_csv_is_a_formula(name):
    table = score_table(build_leaderboard([scored(name, 0.5, 0.4, 0.6)]))
    assert table["run_id"][0] == f"'{name}"
    assert table["difference"][0] < 0  # a number, its sign kept
