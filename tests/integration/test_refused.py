"""Requests that can never succeed: stored once, not sent again, and counted where it matters."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli

# Of the 64 tries at demo_math, 16 samples x 4.
FEW, MANY = "0.05", "0.4"


def run_demo(cli: Cli, share: str, *arguments: str, run_id: str = "some", code: int = 0) -> str:
    result = cli(
        *("run", "demo_math", "--engine", "fake", "--repeats", "4", "--run-id", run_id),
        *("--set", f"engine.refused_share={share}", *arguments),
    )
    assert result.returncode == code, result.stderr + result.stdout
    return result.stdout + result.stderr


def numbers(cli: Cli, run_id: str = "some") -> dict[str, Any]:
    table: dict[str, Any] = json.loads(cli("show", run_id, "--json").stdout)["tasks"]["demo_math"]
    return table


def test_a_few_refused_requests_leave_a_partial_row_with_its_band(quick_cli: Cli) -> None:
    said = run_demo(quick_cli, FEW)
    assert "demo_math: refused for good:" in said
    assert "never comparable with a published score" in said
    table = numbers(quick_cli)
    refused = table["audit"]["n_refused"]
    assert 1 <= refused <= 4
    assert table["is_partial"]
    assert table["estimate"]["n_ungraded"] == refused
    assert table["audit"]["n_missing"] == 0
    low, high = table["refused_band"]
    assert low <= table["estimate"]["value"] <= high
    assert low < high
    assert f"refused for good, left out; the score is {100 * low:.1f}" in said


def test_the_same_command_sends_a_refused_request_again_only_where_asked(
    quick_cli: Cli, tmp_path: Path
) -> None:
    journal = ("--set", f"engine.journal={tmp_path / 'journal'}")
    run_demo(quick_cli, FEW, *journal)
    sent = (tmp_path / "journal").read_text().splitlines()
    run_demo(quick_cli, FEW, *journal)
    assert (tmp_path / "journal").read_text().splitlines() == sent
    refused = numbers(quick_cli)["audit"]["n_refused"]
    run_demo(quick_cli, "0", "--retry-refused", *journal)
    again = (tmp_path / "journal").read_text().splitlines()
    assert len(again) == len(sent) + refused
    table = numbers(quick_cli)
    assert "n_refused" not in table["audit"]
    assert not table["is_partial"]


def test_more_than_a_tenth_refused_is_no_result(quick_cli: Cli) -> None:
    said = run_demo(quick_cli, MANY, code=5)
    assert "were refused for good, more than 10 %" in said
    assert "--retry-refused" in said


def test_what_never_succeeds_may_count_as_wrong_and_the_manifest_says_so(
    quick_cli: Cli, tmp_path: Path
) -> None:
    run_demo(quick_cli, FEW)
    plain = numbers(quick_cli)
    said = run_demo(quick_cli, FEW, "--never-as", "wrong", run_id="wrong")
    assert "counted as wrong, as asked" in said
    table = numbers(quick_cli, "wrong")
    assert table["estimate"]["value"] == pytest.approx(plain["refused_band"][0])
    assert table["estimate"]["n_ungraded"] == 0
    manifest = json.loads((tmp_path / "runs" / "wrong" / "manifest.json").read_text())
    assert manifest["config"]["never_as"] == "wrong"


def test_an_export_has_a_row_for_what_was_refused(quick_cli: Cli) -> None:
    run_demo(quick_cli, FEW)
    rows = [
        json.loads(line)
        for line in quick_cli("export", "some", "--to", "jsonl").stdout.splitlines()
    ]
    assert len(rows) == 64
    refused = [row for row in rows if row["stop_reason"] == "refused"]
    assert len(refused) == numbers(quick_cli)["audit"]["n_refused"]
    assert {(row["outcome"], row["text"]) for row in refused} == {("ungraded", None)}


def decide(cli: Cli, base: str, candidate: str) -> tuple[int, dict[str, Any]]:
    result = cli("gate", base, candidate, "--uncalibrated", "--json")
    return result.returncode, json.loads(result.stdout)


def right(cli: Cli, run_id: str) -> float:
    return float(numbers(cli, run_id)["estimate"]["value"])


def test_a_gate_counts_refusals_against_the_candidate(quick_cli: Cli, tmp_path: Path) -> None:
    whole = ("--set", "engine.accuracy=1", "--set", "engine.spread=0")
    run_demo(quick_cli, FEW, *whole, run_id="base")
    run_demo(quick_cli, FEW, *whole, "--seed", "1", run_id="cand")
    run_demo(quick_cli, FEW, *whole, "--seed", "1", "--never-as", "wrong", run_id="odd")
    counts = [numbers(quick_cli, run)["audit"]["n_refused"] for run in ("base", "cand")]
    assert min(counts) > 0
    _, verdict = decide(quick_cli, "base", "cand")
    task = verdict["tasks"]["demo_math"]
    assert task["baseline_pct"] == 100  # its refused ones count as right
    assert task["candidate_pct"] == pytest.approx(100 * (1 - counts[1] / 64))
    assert task["ungraded"] == counts
    said = json.dumps(verdict["layers"])
    assert f"refused for good: baseline {counts[0]}, candidate {counts[1]}" in said

    code, verdict = decide(quick_cli, "base", "odd")
    assert (code, verdict["verdict"]) == (4, "INVALID")
    assert "never_as" in json.dumps(verdict["reasons"])

    file = tmp_path / "base.gate"
    assert quick_cli("export", "base", "--to", "gate", "--out", str(file)).returncode == 0
    _, again = decide(quick_cli, str(file), "cand")
    assert again["tasks"]["demo_math"]["baseline_pct"] == 100


def test_refusals_that_both_runs_count_as_wrong_are_wrong_in_the_gate(quick_cli: Cli) -> None:
    whole = ("--set", "engine.accuracy=1", "--set", "engine.spread=0", "--never-as", "wrong")
    run_demo(quick_cli, FEW, *whole, run_id="base")
    run_demo(quick_cli, FEW, *whole, "--seed", "1", run_id="cand")
    _, verdict = decide(quick_cli, "base", "cand")
    task = verdict["tasks"]["demo_math"]
    for name, run_id in (("baseline_pct", "base"), ("candidate_pct", "cand")):
        assert task[name] == pytest.approx(100 * right(quick_cli, run_id))
        assert task[name] < 100
