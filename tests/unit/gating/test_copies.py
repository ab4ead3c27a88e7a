import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from g4eval.gating.arm import Arm
from g4eval.gating.calibration import calibrate
from g4eval.gating.copies import clusters_of, find_copies
from g4eval.gating.gate_file import read_gate_file, write_gate_file
from g4eval.gating.policy import GatePolicy
from g4eval.gating.verdict import GateVerdict, judge
from tests.unit.gating.arms import arm, arm_task, drawn
from tests.unit.gating.test_decision import NOW

ALL = np.ones((198, 4), np.bool_)


def told_apart(whole: Arm, *, copied: float = 0.0, is_long: bool = True, seed: int = 0) -> Arm:
    """The arm with a text for each try; a share of samples repeats its first try, text and all."""
    task = whole.tasks["demo"]
    n, k = task.outcomes.shape
    texts = np.arange(1, n * k + 1, dtype=np.uint64).reshape(n, k)
    outcomes = task.outcomes.copy()
    rows = np.random.default_rng(seed).random(n) < copied
    texts[rows] = texts[rows, :1]
    outcomes[rows] = outcomes[rows, :1]
    long_texts = np.full((n, k), is_long)
    changed = replace(task, outcomes=outcomes, texts=texts, long_texts=long_texts)
    return replace(whole, tasks={"demo": changed})


def arms(**copies) -> tuple[Arm, Arm]:
    base = arm({"demo": drawn(0.8, n=198, seed=1)})
    candidate = arm({"demo": drawn(0.8, n=198, seed=2)}, seed=1, run_id="candidate")
    return told_apart(base, seed=3, **copies), told_apart(candidate, seed=4, **copies)


def test_tries_of_their_own_are_told_of_nowhere():
    found = judge(*arms(), GatePolicy(margin_pt=8))
    assert found.layers[1].says == "ok"
    assert found.verdict is GateVerdict.PASS


@pytest.mark.parametrize("copied", [0.25, 1.0])
def test_copies_are_invalid_with_what_to_do(copied):
    found = judge(*arms(copied=copied), GatePolicy(margin_pt=8))
    assert found.verdict is GateVerdict.INVALID
    assert "are copies of another one" in found.reasons[0]
    assert "`repeats: {demo: 1}`" in found.reasons[-1]


def test_question_by_question_is_the_answer_for_an_engine_that_repeats_itself():
    rules = GatePolicy(margin_pt=20, repeats={"demo": 1})
    found = judge(*arms(copied=1.0), rules)
    assert found.verdict is not GateVerdict.INVALID
    assert found.looks[-1].n_pairs <= 198


def test_short_equal_texts_count_as_one_try_and_are_never_invalid():
    policy = GatePolicy(margin_pt=8, design="fixed")
    alone = judge(*arms(), policy).looks[-1]
    found = judge(*arms(copied=1.0, is_long=False), policy)
    assert found.verdict is not GateVerdict.INVALID
    assert "perhaps by chance" in found.layers[1].findings[0]
    # 198 x 4 tries that are worth 198: twice the error.
    assert float(found.looks[-1].primary.se) == pytest.approx(2 * float(alone.primary.se), rel=0.15)


def test_a_few_long_copies_count_once_in_their_samples():
    found = judge(*arms(copied=0.02), GatePolicy(margin_pt=8, design="fixed"))
    assert found.verdict is not GateVerdict.INVALID
    assert "copies" in found.layers[1].findings[0]


def test_ten_up_and_ten_down_of_identical_repeats_is_no_certain_zero():
    base = ["CCCC"] * 10 + ["IIII"] * 10 + ["CCCC"] * 10
    moved = ["IIII"] * 10 + ["CCCC"] * 10 + ["CCCC"] * 10
    left = told_apart(arm({"demo": base}), copied=1.0, is_long=False)
    right = told_apart(arm({"demo": moved}, seed=1, run_id="c"), copied=1.0, is_long=False)
    found = judge(left, right, GatePolicy(margin_pt=5))
    assert found.verdict is GateVerdict.INCONCLUSIVE
    assert float(found.looks[-1].primary.se) == pytest.approx(20**0.5 / 30, rel=0.05)


def test_calibration_does_not_arm_a_baseline_of_copies():
    base, again = arms(copied=0.25)
    found = calibrate(base, again, None, GatePolicy(), now=NOW)
    assert not found.is_armed
    missed = [check.name for check in found.checks if not check.is_met]
    assert "repeats are tries of their own" in missed


def test_unknown_texts_are_said_to_be_unknown():
    base = arm({"demo": drawn(0.8, n=198, seed=1)})
    found = judge(base, arms()[1], GatePolicy(margin_pt=8))
    assert found.layers[1].says == "advisory"
    assert "whether the baseline repeats itself is unknown" in found.layers[1].findings[0]


def test_equal_texts_of_different_samples_are_no_copies():
    task = arms()[0].tasks["demo"]
    same = replace(task, texts=np.broadcast_to(task.texts[:1], task.texts.shape).copy())
    assert find_copies(same, ALL).n_long == 0


def test_samples_of_one_question_are_one_cluster_and_share_their_texts():
    task = arms()[0].tasks["demo"]
    questions = ("q",) * 2 + tuple(f"q{i}" for i in range(196))
    texts = task.texts.copy()
    texts[1] = texts[0]
    same = replace(task, questions=questions, texts=texts)
    assert clusters_of(same)[:3].tolist() == [0, 0, 2]
    assert find_copies(same, ALL).n_long == 4


def test_prompts_that_tell_no_question_apart_make_no_cluster():
    task = replace(arms()[0].tasks["demo"], questions=("p",) * 198)
    assert len(set(clusters_of(task).tolist())) == 198


def test_a_gate_file_keeps_what_tells_copies(tmp_path: Path):
    whole = arms(copied=0.5)[0]
    write_gate_file(whole, tmp_path / "arm.json")
    back = read_gate_file(tmp_path / "arm.json").tasks["demo"]
    assert (back.texts == whole.tasks["demo"].texts).all()
    assert find_copies(back, ALL).n_long == find_copies(whole.tasks["demo"], ALL).n_long > 0


def test_a_gate_file_of_version_1_is_read_and_its_copies_are_unknown(tmp_path: Path):
    path = tmp_path / "arm.json"
    write_gate_file(arms(copied=0.5)[0], path)
    values = json.loads(path.read_text())
    values["version"] = 1
    del values["sha256"]  # of a later version
    for key in ("text_hashes", "long_texts", "questions", "looping", "other_script"):
        del values["tasks"]["demo"][key]
    path.write_text(json.dumps(values))
    found = find_copies(read_gate_file(path).tasks["demo"], ALL)
    assert not found.is_known
    assert found.n_tries == 0


def test_a_task_without_samples_that_repeat_has_no_copies():
    found = find_copies(arm_task(["C", "I"]), np.ones((2, 1), np.bool_))
    assert (found.n_long, found.n_short) == (0, 0)
