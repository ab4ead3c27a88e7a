"""The gate from the command line, on engine fake with planted accuracies."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from g4eval.fingerprint import sha256_json
from tests.conftest import Cli

RUN = ("run", "demo_math", "--engine", "fake", "--model", "m", "--repeats", "8")


def make(cli: Cli, run_id: str, seed: int, accuracy: float, *more: str) -> None:
    result = cli(
        *RUN, "--run-id", run_id, "--seed", str(seed), "--set", f"engine.accuracy={accuracy}", *more
    )
    # 5: requests that were to fail are unanswered, and the run is there all the same
    assert result.returncode == (5 if "engine.failed_share=0.1" in more else 0), result.stderr


def policy(tmp_path: Path, text: str = "margin_pt: 15\n") -> str:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return str(path)


def verdict(tmp_path: Path, run_id: str) -> Any:
    return json.loads((tmp_path / "runs" / run_id / "verdict.json").read_text())


def test_pass_fail_and_inconclusive_reach_their_exit_codes(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "same", 1, 0.7)
    make(quick_cli, "bad", 2, 0.3)
    make(quick_cli, "near", 3, 0.7)
    rules = policy(tmp_path)
    common = ("--uncalibrated", "--policy", rules)
    assert quick_cli("gate", "base", "same", *common).returncode == 0
    files = ("--junit", "junit.xml", "--summary", "summary.md")
    assert quick_cli("gate", "base", "bad", *common, *files).returncode == 1
    assert quick_cli("gate", "base", "near", "--uncalibrated").returncode == 3
    assert verdict(tmp_path, "same")["verdict"] == "PASS"
    assert verdict(tmp_path, "bad")["verdict"] == "FAIL"
    assert verdict(tmp_path, "near")["verdict"] == "INCONCLUSIVE"
    assert "<failure" in (tmp_path / "junit.xml").read_text()
    assert "FAIL" in (tmp_path / "summary.md").read_text()
    again = quick_cli("gate", "base", "bad", *common)
    assert again.returncode == 1
    assert "decided on" in again.stdout
    other = quick_cli("gate", "base", "same", "--uncalibrated")
    assert other.returncode == 2
    assert "margin_pt: 15.0 in the decision, 1.5 asked for" in other.stderr


def test_other_budgets_tasks_and_samples_are_invalid_with_both_values(
    quick_cli: Cli, tmp_path: Path
):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "budget", 1, 0.7, "--set", "demo_math.max_new_tokens=64")
    make(quick_cli, "part", 1, 0.7, "--limit", "4")
    found = quick_cli("gate", "base", "budget", "--uncalibrated")
    assert found.returncode == 4
    assert "demo_math.sampling.max_new_tokens: baseline 512, candidate 64" in found.stdout
    found = quick_cli("gate", "base", "part", "--uncalibrated", "--json")
    assert found.returncode == 4
    assert "samples" in json.loads(found.stdout)["reasons"][0]
    assert not (tmp_path / "runs" / "budget" / "verdict.json").exists()


def test_a_candidate_with_failed_requests_is_invalid(quick_cli: Cli):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "failing", 1, 0.7, "--set", "engine.failed_share=0.1")
    found = quick_cli("gate", "base", "failing", "--uncalibrated")
    assert found.returncode == 4
    assert "ungraded: baseline 0.00%" in found.stdout


def test_the_gate_is_armed_by_a_calibration(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "same", 7, 0.7)
    refused = quick_cli("gate", "base", "same")
    assert refused.returncode == 5
    assert "g4eval gate-calibrate base" in refused.stderr
    calibrated = quick_cli("gate-calibrate", "base")
    assert calibrated.returncode == 0, calibrated.stdout + calibrated.stderr
    assert "ok: the positive control fails" in calibrated.stdout
    armed = quick_cli("gate", "base", "same", "--policy", policy(tmp_path))
    assert armed.returncode == 0
    assert "calibration " in armed.stdout


def test_a_control_that_does_not_fail_leaves_the_gate_unarmed(quick_cli: Cli):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "again", 1, 0.7)
    make(quick_cli, "healthy", 2, 0.7)
    found = quick_cli("gate-calibrate", "base", "again", "--control", "healthy")
    assert found.returncode == 4
    assert "NOT MET: the positive control fails" in found.stdout
    assert quick_cli("gate", "base", "again").returncode == 4


def test_a_driven_candidate_stops_early_and_is_a_normal_run(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.9)
    driven = ("gate", "base", "--uncalibrated", "--policy", policy(tmp_path), "--engine", "fake")
    bad = ("--set", "engine.accuracy=0.1", "--run-id", "driven")
    found = quick_cli(*driven, *bad)
    assert found.returncode == 1, found.stderr
    record = verdict(tmp_path, "driven")
    assert record["pairs_used"] < record["pairs_planned"]
    shown = json.loads(quick_cli("show", "driven", "--json").stdout)
    assert shown["tasks"]["demo_math"]["estimate"]["n_repeats"] == 2
    assert shown["tasks"]["demo_math"]["estimate"]["n_graded"] == record["pairs_used"]
    manifest = json.loads((tmp_path / "runs" / "driven" / "manifest.json").read_text())
    assert manifest["identity"]["seed"] == 1
    again = quick_cli(*driven, *bad)
    assert again.returncode == 1
    assert "decided on" in again.stdout


def test_a_driven_candidate_and_a_finished_one_get_the_same_verdict(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.8)
    rules = policy(tmp_path, "margin_pt: 12\nallocation: equal\n")
    common = ("gate", "base", "--uncalibrated", "--policy", rules, "--json")
    driven = quick_cli(*common, "--engine", "fake", "--seed", "5", "--run-id", "driven")
    make(quick_cli, "whole", 5, 0.8)
    whole = quick_cli(*common, "whole")
    assert driven.returncode == whole.returncode
    left, right = json.loads(driven.stdout), json.loads(whole.stdout)
    for key in ("verdict", "looks", "primary", "tasks"):
        assert left[key] == right[key]


def test_a_driven_candidate_goes_on_where_it_was_cut_off(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.8)
    driven = (
        "gate", "base", "--uncalibrated", "--policy", policy(tmp_path, "margin_pt: 2\n"),
        "--engine", "fake", "--run-id", "driven", "--set", "engine.journal=journal.txt",
    )  # fmt: skip
    cut_off = quick_cli(*driven, "--set", "engine.stop_after=25")
    assert cut_off.returncode == 5
    assert not (tmp_path / "runs" / "driven" / "verdict.json").exists()
    whole = quick_cli(*driven)
    assert whole.returncode == 3, whole.stderr
    keys = (tmp_path / "journal.txt").read_text().split()
    assert len(keys) == len(set(keys)) == verdict(tmp_path, "driven")["pairs_used"]


@pytest.mark.parametrize("kept", [0, 20])
def test_a_driven_candidate_killed_before_its_grades_grades_them(
    quick_cli: Cli, tmp_path: Path, kept: int
):
    make(quick_cli, "base", 0, 0.7)
    driven = ("gate", "base", "--uncalibrated", "--engine", "fake", "--run-id", "driven")
    quick_cli(*driven, "--set", "engine.accuracy=0.1")
    path = tmp_path / "runs" / "driven"
    (path / "verdict.json").unlink()  # as a kill leaves it: all is stored, some of it is graded
    with closing(sqlite3.connect(path / "run.sqlite")) as db, db:
        db.execute("DELETE FROM grades WHERE id > ?", (kept,))
    again = quick_cli(*driven, "--set", "engine.accuracy=0.1")
    assert again.returncode == 1, again.stdout
    assert verdict(tmp_path, "driven")["verdict"] == "FAIL"


def test_driving_refuses_what_cannot_be_compared_before_it_generates(
    quick_cli: Cli, tmp_path: Path
):
    make(quick_cli, "base", 0, 0.8)
    found = quick_cli(
        "gate", "base", "--uncalibrated", "--engine", "fake", "--run-id", "driven",
        "--set", "engine.thinking=true",
    )  # fmt: skip
    assert found.returncode == 4
    assert "thinking: baseline 'off', candidate 'on'" in found.stdout
    shown = json.loads(quick_cli("show", "driven", "--json").stdout)
    assert shown["tasks"]["demo_math"]["estimate"]["n_graded"] == 0


def test_a_plan_that_the_baseline_cannot_pair_is_refused(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.8)
    rules = policy(tmp_path, "repeats: {demo_math: 16}\n")
    found = quick_cli("gate", "base", "--uncalibrated", "--policy", rules, "--engine", "fake")
    assert found.returncode == 5
    assert "the plan pairs 16 repeats, the baseline has 8" in found.stderr


def test_an_open_anytime_decision_is_extended_as_far_as_the_baseline_goes(
    quick_cli: Cli, tmp_path: Path
):
    make(quick_cli, "base", 0, 0.8)
    rules = policy(
        tmp_path,
        "design: anytime\non_inconclusive: extend\nmargin_pt: 2\nrepeats: {demo_math: 2}\n"
        "max_pairs: 96\n",
    )
    found = quick_cli(
        "gate", "base", "--uncalibrated", "--policy", rules, "--engine", "fake",
        "--run-id", "driven", "--json",
    )  # fmt: skip
    assert found.returncode == 3, found.stderr
    record = json.loads(found.stdout)
    assert record["pairs_used"] == 96  # 16 samples, 6 repeats
    assert [look["round"] for look in record["looks"]][-1] == len(record["rounds"])


def test_a_gate_file_stands_for_the_baseline(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "same", 1, 0.7)
    assert quick_cli("gate-calibrate", "base", "same").returncode == 0
    assert quick_cli("export", "base", "--to", "gate", "--out", "base.json").returncode == 0
    make(quick_cli, "new", 3, 0.7)
    rules = policy(tmp_path)
    from_file = quick_cli("gate", "base.json", "new", "--policy", rules, "--json")
    assert from_file.returncode == 0, from_file.stderr
    from_run = quick_cli("gate", "base", "new", "--policy", rules)
    assert "decided on" in from_run.stdout
    driven = quick_cli(
        "gate", "base.json", "--policy", rules, "--engine", "fake", "--run-id", "driven"
    )
    assert driven.returncode == 0, driven.stderr


def test_imported_completions_can_be_gated_and_their_unknown_facts_are_listed(
    quick_cli: Cli, tmp_path: Path
):
    rules = policy(tmp_path)
    for name, seed in (("base", 0), ("same", 1)):
        make(quick_cli, name, seed, 0.7)
        lines = str(tmp_path / f"{name}.jsonl")
        assert quick_cli("export", name, "--to", "jsonl", "--out", lines).returncode == 0
        imported = ("import", "demo_math", lines, "--model", "m", "--run-id", f"{name}-imported")
        assert quick_cli(*imported).returncode == 0
    common = ("--uncalibrated", "--policy", rules)
    found = quick_cli("gate", "base-imported", "same-imported", *common)
    assert found.returncode == 0
    assert "unknown in both: attention_backend" in found.stdout
    mixed = quick_cli("gate", "base", "same-imported", *common)
    assert mixed.returncode == 4
    assert "demo_math.is_generated: baseline True, candidate False" in mixed.stdout


def test_neither_a_candidate_nor_options_is_a_usage_error(quick_cli: Cli):
    make(quick_cli, "base", 0, 0.7)
    assert quick_cli("gate", "base", "--uncalibrated").returncode == 2
    both = quick_cli("gate", "base", "base", "--uncalibrated", "--engine", "fake")
    assert both.returncode == 2
    assert "--engine drives a new candidate" in both.stderr


def test_compare_says_where_nothing_is_graded_in_both(quick_cli: Cli):
    make(quick_cli, "base", 0, 0.7)
    unanswered = quick_cli(*RUN, "--run-id", "none", "--set", "engine.failed_share=1")
    assert unanswered.returncode == 5
    compared = quick_cli("compare", "base", "none")
    assert compared.returncode == 0, compared.stderr
    assert "demo_math: no sample is graded in both runs" in compared.stdout
    assert "macro (equal weight over tasks): no sample is graded in both runs" in compared.stdout


def test_compare_prints_flips_and_samples_and_json(quick_cli: Cli):
    make(quick_cli, "base", 0, 0.9)
    make(quick_cli, "bad", 1, 0.3)
    text = quick_cli("compare", "base", "bad").stdout
    assert text.startswith("bad minus base, percentage points\n")
    assert "differs: other.accuracy: baseline 0.9, candidate 0.3" in text
    assert "from sampling alone" in text
    found = json.loads(quick_cli("compare", "base", "bad", "--json").stdout)
    back = json.loads(quick_cli("compare", "bad", "base", "--json").stdout)
    assert found["macro"]["delta_pt"] == -back["macro"]["delta_pt"] < -20


@pytest.mark.parametrize("arguments", [(), ("base",)])
def test_gate_plan_tells_repeats_for_a_margin(quick_cli: Cli, arguments: tuple[str, ...]):
    make(quick_cli, "base", 0, 0.7)
    found = quick_cli("gate-plan", *arguments, "--tokens-per-second", "10")
    assert found.returncode == 0
    assert "to PASS an equal candidate 80% of the time:" in found.stdout
    assert ("hours" in found.stdout) == bool(arguments)  # lengths are known of a run only


def test_drift_orders_engines_and_stops_a_broken_one(quick_cli: Cli, tmp_path: Path):
    ids = ("--set", "engine.token_ids=true")
    make(quick_cli, "base", 0, 0.7, *ids)
    drifts = {"near": 0.02, "far": 0.5, "broken": 3.0}
    for seed, (name, drift) in enumerate(drifts.items(), 1):
        make(quick_cli, name, seed, 0.7, *ids, "--set", f"engine.drift={drift}")
    found = {
        name: json.loads(quick_cli("drift", "base", name, "--json").stdout)
        for name in ("base", *drifts)
    }
    levels = [found[name]["kl"]["mean"] for name in ("base", *drifts)]
    assert levels[0] == 0.0
    assert levels == sorted(levels)
    assert found["near"]["top1"]["mean"] > found["broken"]["top1"]["mean"]
    ladder = json.loads(quick_cli("drift", "base", *drifts, "--json").stdout)
    assert ladder["candidates"] == {name: found[name] for name in drifts}
    steps = [(step["from"], step["to"]) for step in ladder["steps"]]
    assert steps == [("near", "far"), ("far", "broken")]
    assert ladder["steps"][0]["kl"]["mean"] == pytest.approx(levels[2] - levels[1])
    assert "near to far: mean KL +" in quick_cli("drift", "base", *drifts).stdout
    gated = quick_cli("gate", "base", "broken", "--uncalibrated")
    assert gated.returncode == 1
    assert "L2 drift: FAIL" in gated.stdout
    assert "accuracies were not compared" in gated.stdout
    near = quick_cli("gate", "base", "near", "--uncalibrated")
    assert "L2 drift: ok" in near.stdout
    text = quick_cli("drift", "base", "near").stdout
    assert "top-1 agreement" in text


def test_drift_of_a_run_without_token_ids_is_refused(quick_cli: Cli):
    make(quick_cli, "base", 0, 0.7)
    found = quick_cli("drift", "base", "base")
    assert found.returncode == 4
    assert "recorded no token ids" in found.stderr


def test_unusual_drift_doubles_the_plan_and_the_printed_commands_finish_it(
    quick_cli: Cli, tmp_path: Path
):
    ids = ("--set", "engine.token_ids=true")
    make(quick_cli, "base", 0, 0.7, *ids)
    make(quick_cli, "same", 1, 0.7, *ids)
    assert quick_cli("gate-calibrate", "base", "same").returncode == 0  # its floor is 0
    make(quick_cli, "moved", 2, 0.7, *ids, "--set", "engine.drift=0.02")
    assert quick_cli("drift", "base", "moved").returncode == 0
    gate = ("gate", "base", "moved", "--policy", policy(tmp_path, "margin_pt: 10\n"))
    found = quick_cli(*gate)
    assert found.returncode == 3, found.stdout + found.stderr
    assert "L2 drift: escalate" in found.stdout
    record = verdict(tmp_path, "moved")
    assert record["rounds"][-1] == {"demo_math": [14, 16]}
    assert len(record["next"]) == 2
    for command in record["next"]:
        assert command in found.stdout
        assert quick_cli(*command.split()[1:]).returncode == 0
    finished = quick_cli(*gate)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert verdict(tmp_path, "moved")["pairs_used"] == 10 * 16  # the fifth look was enough
    assert "next:" not in finished.stdout


def test_a_driven_candidate_with_unusual_drift_goes_as_far_as_the_baseline(
    quick_cli: Cli, tmp_path: Path
):
    ids = ("--set", "engine.token_ids=true")
    make(quick_cli, "base", 0, 0.7, *ids)
    make(quick_cli, "same", 1, 0.7, *ids)
    assert quick_cli("gate-calibrate", "base", "same").returncode == 0
    driven = (
        "gate", "base", "--policy", policy(tmp_path, "margin_pt: 10\n"), "--engine", "fake",
        "--run-id", "driven", "--set", "engine.drift=0.02",
    )  # fmt: skip
    found = quick_cli(*driven)
    assert found.returncode == 3, found.stdout + found.stderr
    record = verdict(tmp_path, "driven")
    assert (record["pairs_used"], record["pairs_planned"]) == (8 * 16, 16 * 16)
    assert quick_cli(*record["next"][0].split()[1:]).returncode == 0
    assert quick_cli(*driven).returncode == 0
    assert verdict(tmp_path, "driven")["pairs_used"] == 10 * 16  # the fifth look was enough


def test_a_driven_candidate_that_drift_shows_to_be_broken_generates_no_round(
    quick_cli: Cli, tmp_path: Path
):
    ids = ("--set", "engine.token_ids=true")
    make(quick_cli, "base", 0, 0.7, *ids)
    assert quick_cli("drift", "base", "base").returncode == 0
    found = quick_cli(
        "gate", "base", "--uncalibrated", "--engine", "fake", "--run-id", "driven",
        "--set", "engine.drift=3", "--set", "engine.journal=journal.txt",
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    assert "L2 drift: FAIL" in found.stdout
    assert len((tmp_path / "journal.txt").read_text().split()) == 20  # the canary alone


def grades_of(run: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        return db.execute("SELECT key, outcome FROM grades ORDER BY id").fetchall()


def test_calibrating_grades_twice_and_varies_what_shares_a_batch(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    before = grades_of(tmp_path / "runs" / "base")
    found = quick_cli("gate-calibrate", "base")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "ok: graders repeat their grades: 128 graded twice, none judged" in found.stdout
    assert "batches: concurrency 64 in the baseline, concurrency 32 in the second" in found.stdout
    stored = json.loads((tmp_path / "runs" / "base" / "calibration.json").read_text())
    assert stored["load"] == {"baseline": {"concurrency": 64}, "again": {"concurrency": 32}}
    assert grades_of(tmp_path / "runs" / "base") == before
    with closing(sqlite3.connect(tmp_path / "runs" / "base-again" / "run.sqlite")) as db:
        order = [s for (s,) in db.execute("SELECT sample_id FROM completions ORDER BY id")]
    assert len(set(order[:8])) > 1  # the baseline went sample by sample
    given = quick_cli("gate-calibrate", "base", "base-again", "--no-control")
    assert "concurrency 32 in the second run" in given.stdout


def test_grades_that_do_not_repeat_leave_the_gate_unarmed_and_the_run_as_it_was(
    quick_cli: Cli, tmp_path: Path
):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "again", 1, 0.7)
    run = tmp_path / "runs" / "base"
    with closing(sqlite3.connect(run / "run.sqlite")) as db, db:  # as if a time limit had struck
        db.execute(
            "UPDATE grades SET outcome = 'incorrect', row_hash = NULL WHERE id = "
            "(SELECT MIN(id) FROM grades WHERE outcome = 'correct')"
        )
    before = grades_of(run)
    found = quick_cli("gate-calibrate", "base", "again", "--no-control")
    assert found.returncode == 4
    assert "NOT MET: graders repeat their grades: 1 of 128 judged otherwise: demo_math" in (
        found.stdout
    )
    assert "incorrect then correct" in found.stdout
    assert "concurrency 64 in both runs: what shares a batch was not varied" in found.stdout
    assert grades_of(run) == before


def test_a_run_is_not_gated_against_itself(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    assert quick_cli("export", "base", "--to", "gate", "--out", "base.json").returncode == 0
    for name in ("base", "base.json"):
        found = quick_cli("gate", name, "base", "--uncalibrated", "--policy", policy(tmp_path))
        assert found.returncode == 2
        assert "'base' is the baseline and the candidate" in found.stderr


def test_keys_of_a_policy_that_contradict_each_other_are_named(quick_cli: Cli, tmp_path: Path):
    rules = policy(tmp_path, "margin_pt: 1\nok_pt: -2\n")
    found = quick_cli("gate-plan", "--policy", rules)
    assert found.returncode == 2
    assert found.stderr.startswith("error: {'margin_pt': 1, 'ok_pt': -2} breaks its rule: ok_pt")


def test_power_tells_what_runs_can_exclude_and_spends_nothing(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "cand", 1, 0.7)
    found = quick_cli("gate", "base", "cand", "--uncalibrated", "--power")
    assert found.returncode == 0, found.stderr
    assert "these runs can exclude a loss of" in found.stdout
    assert "--set demo_math.repeats=" in found.stdout
    assert not (tmp_path / "runs" / "cand" / "verdict.json").exists()
    values = json.loads(
        quick_cli("gate", "base", "cand", "--uncalibrated", "--power", "--json").stdout
    )
    assert values["now"]["pairs"] == 16 * 8
    assert values["needed_at_power"]["80%"]["power_pct"] >= 80
    # Without a terminal the gate decides as before; the verdict names how to go on.
    decided = quick_cli("gate", "base", "cand", "--uncalibrated")
    assert decided.returncode == 3
    assert "g4eval gate " in decided.stdout


def test_a_driven_candidate_has_its_repeats_where_the_baseline_varies(
    quick_cli: Cli, tmp_path: Path
):
    make(quick_cli, "base", 0, 0.7)
    rules = policy(tmp_path, "margin_pt: 1\nalpha_fail: 0.0001\n")
    driven = ("gate", "base", "--uncalibrated", "--policy", rules, "--engine", "fake")
    found = quick_cli(*driven, "--run-id", "driven")
    assert found.returncode == 3, found.stdout + found.stderr
    record = verdict(tmp_path, "driven")
    counts = record["allocation"]["demo_math"]
    assert sum(counts) == record["pairs_used"] == record["pairs_planned"] == 16 * 8
    assert min(counts) >= 2
    assert len(set(counts)) > 1
    shown = json.loads(quick_cli("show", "driven", "--json").stdout)["tasks"]["demo_math"]
    assert shown["estimate"]["n_graded"] == 128
    assert shown["audit"]["n_missing"] == 0
    assert quick_cli(*driven, "--run-id", "driven").returncode == 3  # the stored verdict


def test_a_decision_of_before_keeps_its_looks_pairs_and_spending(quick_cli: Cli, tmp_path: Path):
    make(quick_cli, "base", 0, 0.7)
    make(quick_cli, "cand", 1, 0.7)
    older = "looks: 4\nspending: obf\nbaseline_repeats: paired\nallocation: equal\nmargin_pt: 2\n"
    rules = policy(tmp_path, older)
    gate = ("gate", "base", "cand", "--uncalibrated")
    assert quick_cli(*gate, "--policy", rules).returncode == 3
    path = tmp_path / "runs" / "cand" / "verdict.json"
    record = json.loads(path.read_text())
    later = ("spending", "baseline_repeats", "allocation", "max_copied_pct")
    record["policy"] = {k: v for k, v in record["policy"].items() if k not in later}
    record["policy_fingerprint"] = sha256_json(record["policy"])
    record["policy_defaults"] = [k for k in record["policy_defaults"] if k not in later]
    record.pop("sha256")
    record["version"] = 1
    path.write_text(json.dumps(record))
    (tmp_path / "gate.yaml").write_text("margin_pt: 2\nlooks: 4\n")
    again = quick_cli(*gate, "--policy", "gate.yaml")
    assert again.returncode == 3, again.stderr
    assert "decided on" in again.stdout
    (tmp_path / "gate.yaml").write_text("margin_pt: 2\nlooks: 4\nspending: hsd\n")
    refused = quick_cli(*gate, "--policy", "gate.yaml")
    assert refused.returncode == 2
    assert "spending: 'obf' in the decision, 'hsd' asked for" in refused.stderr
