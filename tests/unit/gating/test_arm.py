import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g4eval.errors import NotComparableError, UsageError
from g4eval.gating.arm import (
    ABSENT,
    CORRECT,
    TryRecord,
    build_task,
    common_tasks,
)
from g4eval.gating.gate_file import read_gate_file, write_gate_file
from g4eval.records import Outcome
from tests.unit.gating.arms import arm, arm_task, pair


def test_tries_in_any_order_give_the_same_arrays():
    tries = [
        TryRecord(sample_id=s, repeat=r, outcome=Outcome.CORRECT, tokens=10 * r, prompt_hash=s)
        for s in "ba"
        for r in (1, 0)
    ]
    samples = {"a": "", "b": ""}
    there, back = build_task({}, samples, tries), build_task({}, samples, tries[::-1])
    assert there.sample_ids == ("a", "b")
    np.testing.assert_array_equal(there.tokens, [[0, 10], [0, 10]])
    np.testing.assert_array_equal(there.outcomes, back.outcomes)
    np.testing.assert_array_equal(there.prompt_hashes, [["a", "a"], ["b", "b"]])


def test_a_try_nobody_made_is_absent():
    task = build_task(
        {}, {"a": "", "b": ""}, [TryRecord(sample_id="a", repeat=1, outcome=Outcome.CORRECT)]
    )
    assert task.outcomes.tolist() == [[ABSENT, CORRECT], [ABSENT, ABSENT]]
    assert task.n_repeats == 0


def test_only_repeats_that_every_sample_has_count():
    assert arm_task(["CCC", "CU."]).n_repeats == 2
    assert arm_task(["CCC", "C.C"]).n_repeats == 1


def test_scores_count_no_answer_as_wrong_and_leave_out_the_ungraded():
    np.testing.assert_array_equal(arm_task(["CINU."]).scores, [[1.0, 0.0, 0.0, np.nan, np.nan]])


FLAGS = ("truncated", "open_thoughts", "looping", "other_script")


def test_a_gate_file_gives_back_the_arm(tmp_path: Path):
    task = replace(
        arm_task(["CI", "NU", "C."], groups=("x", "x", "y")),
        truncated=np.array([[0, 1], [0, 0], [1, 0]], np.bool_),
        open_thoughts=np.array([[0, 1], [0, 0], [0, 0]], np.bool_),
        looping=np.array([[0, 0], [1, 0], [0, 0]], np.bool_),
        other_script=np.array([[1, 1], [0, 0], [0, 0]], np.bool_),
        tokens=np.array([[5, 6], [7, np.nan], [9, np.nan]]),
        prompt_hashes=np.array([["h1", "h1"], ["h2", "h3"], ["h4", ""]], "U64"),
    )
    before = arm({"demo": task})
    path = tmp_path / "base.json"
    write_gate_file(before, path)
    after = read_gate_file(path)
    assert (after.run_id, after.seed, after.facts) == (before.run_id, 0, before.facts)
    assert after.fingerprint == before.fingerprint
    for name in (*FLAGS, "outcomes", "tokens", "prompt_hashes"):
        np.testing.assert_array_equal(getattr(after.tasks["demo"], name), getattr(task, name))
    assert after.tasks["demo"].groups == ("x", "x", "y")
    assert after.digest({"demo": (0, 2)}) == before.digest({"demo": (0, 2)})


def test_a_gate_file_holds_no_folder_of_its_machine(tmp_path: Path):
    before = replace(arm({"demo": ["C"]}), config={"data_dir": "/secret/place", "engine": "vllm"})
    write_gate_file(before, tmp_path / "base.json")
    assert "secret" not in (tmp_path / "base.json").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "is not a gate file"),
        ("{}", "is not a gate file"),
        ('{"format": "other"}', "'other' is not 'g4eval-gate'"),
        ('{"format": "g4eval-gate", "version": 9}', "version 9 is not one of 1 to 2"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "base.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_gate_file(path)


def test_a_gate_file_is_json_without_nan(tmp_path: Path):
    path = tmp_path / "base.json"
    write_gate_file(arm({"demo": arm_task(["C"], tokens=np.array([[np.nan]]))}), path)
    assert json.loads(path.read_text())["tasks"]["demo"]["tokens"] == [[None]]


def test_the_digest_sees_outcomes_of_the_repeats_it_covers_only():
    one, two = arm({"demo": ["CC", "CI"]}), arm({"demo": ["CC", "CC"]})
    assert one.digest({"demo": (0, 1)}) == two.digest({"demo": (0, 1)})
    assert one.digest({"demo": (0, 2)}) != two.digest({"demo": (0, 2)})


def test_different_tasks_are_named_with_both_values():
    with pytest.raises(NotComparableError, match=r"baseline \['a', 'b'\], candidate \['a'\]"):
        common_tasks(arm({"a": ["C"], "b": ["C"]}), arm({"a": ["C"]}), None)


def test_the_policy_may_name_the_tasks_that_count():
    both, one = arm({"a": ["C"], "b": ["C"]}), arm({"a": ["C"]})
    assert common_tasks(both, one, ("a",)) == ("a",)
    with pytest.raises(NotComparableError, match="b of the policy's tasks is not in 'base'"):
        common_tasks(both, one, ("a", "b"))


def written(folder: Path) -> tuple[Path, dict[str, Any]]:
    base, _ = pair(0.8, 0.8)
    path = folder / "base.json"
    write_gate_file(base, path)
    return path, json.loads(path.read_text())


@pytest.mark.parametrize("name", ["run_id", "seed", "facts", "tasks", "config", "declared"])
def test_an_edited_gate_file_is_refused(tmp_path: Path, name: str) -> None:
    path, values = written(tmp_path)
    changed = {"run_id": "x", "seed": 5, "facts": {}, "tasks": {}, "config": {"a": 1}}
    path.write_text(json.dumps({**values, name: changed.get(name, ["dtype"])}))
    with pytest.raises(UsageError, match="its hash is another"):
        read_gate_file(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcomes": ["C"]},
        {"outcomes": 3},
        {"tokens": [[1e300]]},
        {"tokens": "many"},
        {"truncated": ["2"]},
        {"sample_ids": ["a", "a"]},
        {"prompt_hashes": [None]},
        {"groups": {}},
        {"protocol": []},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_gate_file_with_a_table_that_is_none_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path, values = written(tmp_path)
    values["tasks"]["demo"].update(changes)
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "sha256"}))
    with pytest.raises(UsageError, match=r"is not a gate file: tasks\.demo"):
        read_gate_file(path)


@pytest.mark.parametrize(
    "changes", [{"config": {"set": ["a"]}}, {"facts": {"dtype": 3}}, {"seed": "x"}, {"tasks": []}]
)
def test_a_gate_file_with_a_field_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path, values = written(tmp_path)
    path.write_text(json.dumps({**values, **changes, "sha256": None}))
    with pytest.raises(UsageError, match="is not a gate file: "):
        read_gate_file(path)


def test_repeats_with_huge_numbers_make_no_huge_table() -> None:
    tries = [TryRecord(sample_id="a", repeat=n, outcome=Outcome.CORRECT) for n in (0, 999_999)]
    with pytest.raises(NotComparableError, match="nearly empty"):
        build_task({}, {"a": "", "b": ""}, tries)
