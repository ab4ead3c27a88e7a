"""Whole commands: `g4eval judge`, a run graded while it generates, an import, a second reading."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from g4eval.graders.code import CodeGrader
from g4eval.records import Outcome
from g4eval.sandbox.base import CodeJob, CodeTest, Reading, Verdict
from g4eval.sandbox.image import image_tag
from g4eval.store.run_store import RunStore
from g4eval.tasking.code_tests import read_tests
from g4eval.tasking.datasets import load_samples
from tests.integration.sandbox.conftest import program
from tests.integration.sandbox.test_attacks import ATTACKS, attack
from tests.tasks.conftest import bundled_task

pytestmark = pytest.mark.docker


def g4eval(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "g4eval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def jobs(tmp_path):
    test = {"input": "2\n", "output": "4", "testtype": "stdin"}
    value = {"input": "2", "output": "4", "testtype": "functional"}
    method = "class Solution:\n    def double(self, x):\n        return x * 2"
    rows = [
        {"id": "right", "code": "print(int(input()) * 2)", "tests": [test, test]},
        {"id": "wrong", "code": "print(5)", "tests": [test, test]},
        {"id": "slow", "code": "while True: pass", "tests": [test], "time_limit_seconds": 1},
        {"id": "function", "code": method, "tests": [value], "fn_name": "double"},
        {"id": "broken", "code": "print(", "tests": [test]},
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_judge_answers_in_the_order_of_its_lines(docker_client, jobs) -> None:
    done = g4eval("judge", jobs)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["id"], row["verdict"], row["results"]) for row in rows] == [
        ("right", "AC", ["AC", "AC"]),
        ("wrong", "WA", ["WA"]),
        ("slow", "TLE", ["TLE"]),
        ("function", "AC", ["AC"]),
        ("broken", "CE", []),
    ]
    assert list(rows[0]) == [
        "id",
        "verdict",
        "results",
        "error",
        "cpu_seconds",
        "wall_seconds",
        "memory_bytes",
    ]
    assert rows[2]["cpu_seconds"] > 0.1  # 1 s where the core is free


def test_details_hold_the_official_list(docker_client, jobs) -> None:
    rows = [json.loads(line) for line in g4eval("judge", jobs, "--details").stdout.splitlines()]
    assert [row["details"]["official_results"] for row in rows] == [
        [True, True],
        [-2],
        [-3],
        [True],
        [-4],
    ]


def test_a_wrong_answer_ends_the_run_before_the_next_test_does(judge) -> None:
    code = "import time\nx = input()\ntime.sleep(5 * int(x))\nprint(x)"
    (result,) = judge(program(code, ("0", "1"), ("1", "1")))
    assert result.verdict is Verdict.WRONG_ANSWER
    assert result.wall_seconds is not None
    assert result.wall_seconds < 2


def test_numpy_in_the_server_changes_nothing_but_speed(judge) -> None:
    guarded = program("import os\nprint(6 if os.getcwd is None else 0)")
    first, *rest = judge(program("import numpy\nprint(int(numpy.int64(6)))"), guarded, guarded)
    assert [result.verdict for result in (first, *rest)] == [Verdict.ACCEPTED] * 3
    (blocked,) = judge(program("import numpy, resource\nprint(6)"))
    assert blocked.details["official_results"] == [-4]


def test_the_reference_solutions_of_demo_code_are_right_officially(judge) -> None:
    samples = load_samples(bundled_task("demo/demo_code.yaml"), None).samples
    jobs = [
        CodeJob(
            job_id=sample.sample_id,
            code=sample.target["solution"],
            tests=tuple(CodeTest(**test) for test in read_tests(sample.fields["tests"])),
            fn_name=sample.target["fn_name"],
        )
        for sample in samples
    ]
    assert len(jobs) == 13
    assert [(r.job_id, r.verdict, r.error) for r in judge(*jobs)] == [
        (job.job_id, Verdict.ACCEPTED, None) for job in jobs
    ]


def test_a_run_is_graded_while_it_generates(docker_client, tmp_path) -> None:
    done = g4eval("run", "demo_code", "--engine", "fake", "--runs-dir", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.iterdir()
    exported = g4eval("export", run.name, "--to", "jsonl", "--runs-dir", tmp_path)
    rows = [json.loads(line) for line in exported.stdout.splitlines()]
    assert len(rows) == 26
    verdicts = {row["verdict"] for row in rows}
    assert "AC" in verdicts
    assert verdicts <= {"AC", "WA", "RTE"}
    for row in rows:
        assert (row["outcome"] == "correct") is (row["verdict"] == "AC")
    facts = json.loads((run / "manifest.json").read_text())["graders"]["code"]
    assert facts["version"] == CodeGrader.version
    assert facts["image"] == image_tag()
    assert facts["image_id"] == docker_client.images.get(image_tag()).id
    assert facts["python"].startswith("3.11.")
    assert facts["packages"]["numpy"]
    assert facts["limits"]["memory_bytes"] == 4 << 30


def test_imported_programs_are_judged(docker_client, tmp_path) -> None:
    lines = [
        {"sample_id": "demo_code-1", "text": "```\nprint(int(input()) + int(input()))\n```"},
        {"sample_id": "demo_code-2", "text": "```\nprint('no')\n```"},
        {"sample_id": "demo_code-3", "text": "I don't know."},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = tmp_path / "runs"
    done = g4eval("import", "demo_code", path, "--model", "m", "--runs-dir", runs, "--run-id", "r")
    assert done.returncode == 0, done.stderr
    exported = g4eval("export", "r", "--to", "jsonl", "--runs-dir", runs)
    rows = {row["sample_id"]: row for row in map(json.loads, exported.stdout.splitlines())}
    assert rows["demo_code-1"]["outcome"] == "correct"
    assert rows["demo_code-2"]["outcome"] == "incorrect"
    assert rows["demo_code-3"]["outcome"] == "no_answer"


def test_the_fair_reading_hands_out_one_input_at_a_time(judge) -> None:
    official = attack(ATTACKS / "next_input")
    finds, looks = judge(official, replace(official, reading=Reading.FAIR))
    assert finds.verdict is Verdict.ACCEPTED  # as officially: all inputs are in its process
    assert looks.verdict is Verdict.WRONG_ANSWER
    (honest,) = judge(replace(official, code="print(int(input()[1:]) + 1)", reading=Reading.FAIR))
    assert honest.results[:2] == (Verdict.ACCEPTED, Verdict.ACCEPTED)


EXITS = """
import os, time
class Solution:
    def isClosed(self, text):
        time.sleep(0.2)
        if text == "(":
            os._exit(0)
        return text == "([])"
"""


def test_a_grade_by_the_judge_before_is_shown_and_refused_until_it_is_made_again(
    docker_client, tmp_path
) -> None:
    path, runs = tmp_path / "answers.jsonl", tmp_path / "runs"
    line = {"sample_id": "demo_code-12", "text": f"```python{EXITS}```"}
    path.write_text(json.dumps(line) + "\n")
    for name in ("base", "cand"):
        command = ("import", "demo_code", path, "--model", name, "--runs-dir", runs)
        done = g4eval(*command, "--run-id", name)
        assert done.returncode == 0, done.stderr
        asyncio.run(grade_as_before(runs / name))
    done = g4eval("grade", "base", "--runs-dir", runs, "--diff")
    assert "demo_code-12/0: correct (AC, version 1) -> incorrect (RTE, version 2)" in done.stdout
    done = g4eval("gate", "base", "cand", "--runs-dir", runs, "--uncalibrated")
    assert done.returncode == 4, done.stderr
    assert "baseline ['code 2'], candidate ['code 1']" in done.stdout
    assert f"g4eval grade {runs / 'cand'}" in done.stdout


async def grade_as_before(folder: Path) -> None:
    """Add the grade that version 1 gave this program, whose last answer counted twice."""
    with RunStore(folder) as store:
        ((_, stored),) = store.page("demo_code", after=0, limit=2)
        grade = store.grade(stored.completions[-1].key)
        assert grade is not None
        assert grade.verdict == "RTE"
        before = replace(grade, grader_version=1, verdict="AC", outcome=Outcome.CORRECT)
        await store.add_grade(before)
        await store.flush()
