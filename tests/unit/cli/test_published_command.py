import json

import pytest
from click.testing import CliRunner

from g4eval.cli.main import cli
from g4eval.errors import UsageError


def run(*arguments):
    return CliRunner().invoke(cli, ["published", *arguments], catch_exceptions=False).stdout


def test_the_list_shows_score_and_source_of_each_row():
    out = run("--model", "google/gemma-4-31B-it", "--task", "gpqa_diamond")
    lines = [line.split() for line in out.splitlines()]
    assert [
        "google/gemma-4-31B-it",
        "gpqa_diamond",
        "84.3",
        "on",
        "g4-tech-report",
        "2026-07-24",
    ] in lines
    assert ["google/gemma-4-31B-it", "gpqa_diamond", "85.7", "?", "blog-table", "unknown"] in lines
    assert ["google/gemma-4-31B-it", "gpqa_diamond", "~53", "?", "tt-4331", "2026-06-23"] in lines


def test_protocols_show_the_counts_and_that_they_are_inferred():
    out = run("--protocols", "--task", "aime26", "--source", "g4-tech-report")
    assert out.startswith("aime26: 4 x 30, accuracy (inferred; g4-tech-report, g4-model-card-hf)\n")
    assert "89.2 = 107/120" in out
    assert "smallest number of answers that fits: 120" in out


def test_conflicts_put_the_primary_source_first():
    out = run("--conflicts", "--model", "gemma-4-26B", "--task", "bbeh")
    first, second, *_ = out.splitlines()
    assert first == "google/gemma-4-26B-A4B-it, bbeh"
    assert second.split()[:2] == ["64.8", "g4-tech-report"]
    assert any(line.split()[:2] == ["~70", "blog-table"] for line in out.splitlines())


def test_no_conflict_is_said():
    assert run("--conflicts", "--source", "g4-tech-report") == "No two sources disagree.\n"


def test_json_of_each_view_parses_and_carries_the_protocol():
    rows = json.loads(run("--json", "--task", "aime26", "--source", "g4-tech-report"))
    assert rows[0]["protocol"]["n_repeats"] == 4
    protocols = json.loads(run("--json", "--protocols", "--task", "gpqa_diamond"))
    assert protocols[0]["arithmetic"]["counts"]["84.3"] == 167
    assert json.loads(run("--json", "--conflicts", "--task", "bbeh"))[0]["scores"]


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("--task", "aime62"), "no published score has 'aime62'", "aime26"),
        (("--model", "gemma-9"), "no published score has 'gemma-9'", None),
        (("--model", "E2B", "--source", "bbeh-leaderboard"), "all of these", "filters"),
    ],
)
def test_a_filter_that_matches_nothing_is_an_error_with_advice(arguments, what, hint):
    with pytest.raises(UsageError, match=what) as caught:
        run(*arguments)
    assert hint is None or hint in str(caught.value)
