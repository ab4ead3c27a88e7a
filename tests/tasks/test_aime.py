"""AIME on its real data, and the integer grader beside the verdicts of peers' graders."""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from g4eval.graders.base import grade_try
from g4eval.graders.integer import IntegerGrader
from g4eval.records import Completion, Outcome, Sample, StopReason
from g4eval.responses import split_reasoning
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import find_tasks
from tests.driving import try_of

DISAGREEMENTS = Path(__file__).with_name("aime_disagreements.csv")
CASE_FILES = {
    "grader_cases_constructed.jsonl": 288,
    "grader_cases_math500_integer_outputs.jsonl.gz": 1601,
}


def read_cases(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)


def judge(response: str, target: int) -> Outcome:
    split = split_reasoning(response)
    completion = Completion(
        key="", task_id="", sample_id="", repeat=0, text=split.text,
        stop_reason=StopReason.STOP, thought=split.thought,
    )  # fmt: skip
    sample = Sample(sample_id="", target=target)
    return grade_try(IntegerGrader(), try_of(sample, completion)).outcome


@pytest.mark.parametrize("name", CASE_FILES)
def test_every_disagreement_with_matharena_is_known_and_has_a_reason(name, data_dir) -> None:
    with DISAGREEMENTS.open(newline="") as stream:
        known = {row["case"]: row for row in csv.DictReader(stream)}
    cases = list(read_cases(data_dir / "aime" / name))
    assert len(cases) == CASE_FILES[name]
    for case in cases:
        ours = judge(case["response"], case["target"]) is Outcome.CORRECT
        row = known.pop(case["id"], None)
        if ours == case["matharena_correct"]:
            assert row is None, f"{case['id']} is no disagreement any more"
        else:
            assert row is not None, f"{case['id']} is a new disagreement"
            assert row["reason"]
            assert (row["ours"], row["theirs"]) == (str(ours), str(case["matharena_correct"]))
    assert not [case for case in known if case.startswith(cases[0]["id"].split("-")[0])]


def test_no_disagreement_is_ours_being_wrong(data_dir) -> None:
    """Where MathArena and we differ, the recorded judge or the target itself sides with us."""
    with DISAGREEMENTS.open(newline="") as stream:
        known = {row["case"]: row["ours"] == "True" for row in csv.DictReader(stream)}
    name = "grader_cases_math500_integer_outputs.jsonl.gz"
    for case in read_cases(data_dir / "aime" / name):
        if case["id"] in known:
            assert known[case["id"]] == case["recorded_correct"], case["id"]


@pytest.mark.parametrize("task_id", ["aime24", "aime25", "aime26"])
def test_all_thirty_problems_load_and_are_verified(task_id, data_dir) -> None:
    data = load_samples(find_tasks()[task_id], data_dir)
    assert len(data.samples) == 30
    assert data.text == "verified"
    assert all(0 <= s.target <= 999 for s in data.samples)
    assert {s.groups["exam"] for s in data.samples} == {"I", "II"}


def test_prompt_is_matharenas_two_lines_and_the_problem() -> None:
    task = find_tasks()["aime26"]
    sample = Sample(sample_id="s", target=1, fields={"problem": "What is $1$?"})
    (message,) = task.messages(sample, 0)
    assert message.role == "user"
    assert message.content == (
        "Put your final answer within \\boxed{}.\n"
        "The answer is an integer between 0 and 999 inclusive.\n"
        "\n"
        "What is $1$?"
    )


def test_rows_of_the_hub_get_the_ids_of_the_data_folder() -> None:
    hook = find_tasks()["aime26"].hook("to_sample")
    assert hook is not None
    row = {"problem_idx": 16, "problem": "p", "answer": 7, "_dataset": "MathArena/aime_2026"}
    assert hook(row, "hub").sample_id == "aime2026-II-1"
    row = {"ID": "2024-II-4", "Problem": "p", "Answer": "033", "_dataset": "x"}
    assert (hook(row, "hub").sample_id, hook(row, "hub").target) == ("aime2024-II-4", 33)
