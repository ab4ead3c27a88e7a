"""The invented tasks: complete, of use to a base model, and right."""

import json
import subprocess
import sys

import pytest

from g4eval.config import RunConfig
from g4eval.errors import NotReadyError
from g4eval.graders.base import GRADERS, grade_try
from g4eval.planning import plan_tasks
from g4eval.records import Completion, Outcome, StopReason
from g4eval.tasking.code_tests import read_tests
from g4eval.tasking.datasets import load_samples
from tests.driving import try_of
from tests.tasks.conftest import bundled_task

NAMES = ["demo_choice", "demo_code", "demo_logic", "demo_math"]


def _load(name):
    task = bundled_task(f"demo/{name}.yaml")
    return task, load_samples(task, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_task_has_a_dozen_verified_samples_of_its_own(name):
    task, data = _load(name)
    assert len(data.samples) >= 12
    assert data.text == "verified"
    assert task.spec.invented


@pytest.mark.parametrize("name", NAMES)
def test_its_prompt_shows_a_base_model_how_an_answer_looks_and_when_to_stop(name):
    task, data = _load(name)
    (message,) = task.messages(data.samples[0], 0)
    (stop,) = task.spec.stop
    assert message.content.count(stop) >= 2  # the examples before the question
    assert not message.content.endswith(" ")  # a space there would split the next token


@pytest.mark.parametrize("name", ["demo_choice", "demo_logic", "demo_math"])
def test_the_right_answers_are_graded_right(name):
    task, data = _load(name)
    grader = GRADERS.load(task.spec.grader)()
    for sample in data.samples:
        for right, outcome in ((True, Outcome.CORRECT), (False, Outcome.INCORRECT)):
            completion = Completion(
                key="k",
                task_id=name,
                sample_id=sample.sample_id,
                repeat=1,
                text=grader.example(sample, 1, right=right) or "",
                stop_reason=StopReason.STOP,
            )
            assert grade_try(grader, try_of(sample, completion)).outcome is outcome


def _run(code, text):
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_solutions_of_demo_code_pass_their_tests():
    _, data = _load("demo_code")
    for sample in data.samples:
        solution, fn_name = sample.target["solution"], sample.target["fn_name"]
        for test in read_tests(sample.fields["tests"]):
            if fn_name is None:
                assert _run(solution, test["input"]).strip() == test["output"].strip()
            else:
                call = (
                    f"{solution}\nimport json, sys\n"
                    "given = [json.loads(line) for line in sys.stdin]\n"
                    f"print(json.dumps(Solution().{fn_name}(*given)))"
                )
                assert json.loads(_run(call, test["input"])) == json.loads(test["output"])


def test_a_code_task_is_refused_before_generation_where_nothing_can_judge_it(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    config = RunConfig(tasks=("demo_choice", "demo_code"), engine="fake")
    with pytest.raises(NotReadyError, match="demo_code: its answers are programs") as caught:
        plan_tasks(config, None)
    assert caught.value.exit_code == 5
    assert "--allow-ungraded" in (caught.value.hint or "")


def test_a_code_task_is_generated_unjudged_where_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    config = RunConfig(tasks=("demo_code",), engine="fake", allow_ungraded=True)
    (plan,) = plan_tasks(config, None)
    assert not plan.is_graded
