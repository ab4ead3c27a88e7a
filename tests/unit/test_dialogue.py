"""Tries of several steps: replayed from the store, cancelled without a trace, failed as a whole."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from g4eval.config import RunConfig
from g4eval.engines.fake import FakeEngine, FakeOptions
from g4eval.errors import EngineError, TaskError
from g4eval.graders.pool import GraderPool
from g4eval.pipeline import run_tasks
from g4eval.plan import RunPlan, graded_tasks, unfinished_tries
from g4eval.planning import plan_tasks, task_record
from g4eval.records import Attempt, Completion, Request
from g4eval.stats.summary import TaskSummary
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore
from tests.talking import write_family

TRIES = 12


class Listening(FakeEngine):
    """Engine fake; it keeps what it was asked."""

    def __init__(self, options: FakeOptions | None = None) -> None:
        super().__init__(options or FakeOptions(), answers=lambda *_: "It is 4.")
        self.asked: list[Request] = []

    async def answer(self, request: Request) -> Completion | Attempt:
        self.asked.append(request)
        return await super().answer(request)


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    return make_plan(tmp_path)


def make_plan(root: Path, dialogue: str = "ThreeSteps") -> RunPlan:
    folder = write_family(root, dialogue=dialogue)
    config = RunConfig(tasks=("talk",), tasks_dir=folder)
    return RunPlan(tasks=plan_tasks(config, None), seed=0, engine_fingerprint="f" * 64)


def run(plan: RunPlan, folder: Path, engine: Any) -> TaskSummary:
    async def go() -> list[TaskSummary]:
        with RunStore(folder) as store:
            store.set_meta({"run_id": "r"})
            for task in plan.tasks:
                record = task_record(task, is_generated=True)
                store.set_task(task.task.spec.id, record, task.samples, gated=False)
            pool = GraderPool(graded_tasks(plan), workers=1)
            return await asyncio.wait_for(run_tasks(plan, engine, pool, store), 60)

    (summary,) = asyncio.run(go())
    return summary


def test_each_step_asks_about_the_answer_before_it_and_the_grader_sees_all(plan, tmp_path) -> None:
    engine = Listening()
    summary = run(plan, tmp_path / "r", engine)
    assert (summary.estimate.n_graded, summary.audit.n_missing) == (TRIES, 0)
    assert sorted(r.step for r in engine.asked) == [0] * TRIES + [1] * TRIES + [2] * TRIES
    assert len({r.key for r in engine.asked}) == len({r.seed for r in engine.asked}) == 3 * TRIES
    with RunReader(tmp_path / "r") as store:
        first, second, third = store.steps("talk", "s0", 1)
        asked = {(r.sample_id, r.repeat, r.step): r for r in engine.asked}
        assert asked["s0", 1, 2].messages[-2].content == second.text
        assert asked["s0", 1, 1].messages[-2].content == first.text
        assert [r.arguments for r in store.tool_results("talk", "s0", 1)] == [
            step.text for step in (first, second, third)
        ]
        (row,) = (r for r in store.rows("talk") if (r.sample_id, r.repeat) == ("s0", 1))
        assert row.key == third.key  # the last step stands for the try
        assert len(list(store.rows("talk"))) == TRIES


def test_a_try_goes_on_at_the_step_it_had_reached(plan, tmp_path) -> None:
    whole = run(plan, tmp_path / "whole", Listening())
    asked: list[str] = []
    for number in range(3 * TRIES // 5):
        engine = Listening(FakeOptions(stop_after=5))
        with pytest.raises(EngineError):
            run(plan, tmp_path / "r", engine)
        with RunReader(tmp_path / "r") as store:
            stored = {c.key for r in engine.asked for c in [store.completion(r.key)] if c}
        assert len(stored) == 5, number
        asked += stored
    assert len(asked) == len(set(asked))  # nothing that was stored was asked again
    engine = Listening()
    assert run(plan, tmp_path / "r", engine) == whole
    assert len(engine.asked) == 3 * TRIES - len(asked)
    assert not {r.key for r in engine.asked} & set(asked)


def test_a_try_that_was_broken_off_is_no_completion_yet(plan, tmp_path) -> None:
    with pytest.raises(EngineError):
        run(plan, tmp_path / "r", Listening(FakeOptions(stop_after=5)))
    with RunReader(tmp_path / "r") as store:
        finished, begun = store.finished_tries("talk"), store.begun_tries("talk")
        assert len(list(store.rows("talk"))) == len(finished)
        assert begun
        assert not begun & finished
        assert 3 * len(finished) + len(begun) <= 5 <= 3 * len(finished) + 2 * len(begun)
        assert {p.is_begun for p in unfinished_tries(plan, store)} == {True, False}


def test_another_question_under_a_stored_number_is_refused_by_name(tmp_path) -> None:
    plan = make_plan(tmp_path, "Fickle")
    with pytest.raises(EngineError):
        run(plan, tmp_path / "r", Listening(FakeOptions(stop_after=1)))
    with pytest.raises(TaskError, match="asks another question in step 0") as refused:
        run(plan, tmp_path / "r", Listening())
    assert "sample 's" in str(refused.value)
    assert "repeat" in str(refused.value)


def test_a_step_that_fails_for_good_leaves_its_try_ungraded_and_is_asked_again(
    plan, tmp_path
) -> None:
    class FailsAtStep1(Listening):
        async def answer(self, request: Request) -> Completion | Attempt:
            answer = await super().answer(request)
            if request.step == 1 and request.sample_id == "s2":
                return Attempt(key=request.key, task_id="talk", sample_id="s2",
                               repeat=request.repeat, step=1, error="no", at=1.0)  # fmt: skip
            return answer

    engine = FailsAtStep1()
    broken = run(plan, tmp_path / "r", engine)
    assert broken.audit.failed == broken.estimate.n_ungraded == 2
    assert not [r for r in engine.asked if r.sample_id == "s2" and r.step == 2]
    again = Listening()
    mended = run(plan, tmp_path / "r", again)
    assert (mended.audit.failed, mended.estimate.n_graded) == (0, TRIES)
    assert sorted((r.sample_id, r.step) for r in again.asked) == [("s2", 1)] * 2 + [("s2", 2)] * 2
    assert mended == run(plan, tmp_path / "whole", Listening())


def test_questions_left_behind_by_a_failure_are_cancelled(tmp_path) -> None:
    plan = make_plan(tmp_path, "Hasty")
    cancelled = 0

    class FailsFirst(Listening):
        async def answer(self, request: Request) -> Completion | Attempt:
            nonlocal cancelled
            if request.step:
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    cancelled += 1
                    raise
            answer = await super().answer(request)
            assert isinstance(answer, Completion)
            return Attempt(key=request.key, task_id="talk", sample_id=request.sample_id,
                           repeat=request.repeat, error="no", at=1.0)  # fmt: skip

    summary = run(plan, tmp_path / "r", FailsFirst())
    assert summary.audit.failed == TRIES
    assert cancelled == 3 * TRIES


def test_no_more_questions_are_in_flight_than_the_engine_is_worth(tmp_path) -> None:
    plan = make_plan(tmp_path, "Hasty")
    in_flight = most = 0

    class Counting(Listening):
        async def answer(self, request: Request) -> Completion | Attempt:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.001)
            in_flight -= 1
            return await super().answer(request)

    summary = run(plan, tmp_path / "r", Counting(FakeOptions(concurrency=5)))
    assert summary.estimate.n_graded == TRIES
    assert most == 6  # the capacity and a tenth more, over all tries together


def test_choices_are_scored_side_by_side(tmp_path) -> None:
    plan = make_plan(tmp_path, "Choices")
    summary = run(plan, tmp_path / "r", Listening())
    assert summary.estimate.n_graded == TRIES
    with RunReader(tmp_path / "r") as store:
        steps = store.steps("talk", "s1", 0)
        assert [c.text for c in steps] == [" A", " B", " C", " D"]
        scores = [c.logprobs or () for c in steps]
        assert all(len(row) == 2 and max(row) < 0 for row in scores)
        assert all(c.token_ids == list(c.text.encode()) for c in steps)
        assert {c.is_greedy for c in steps} == {False}
        again = dataclasses.replace(steps[0])
        assert store.completion(again.key) == steps[0]


def test_a_dialogue_of_several_steps_takes_no_recorded_answers(quick_cli, tmp_path) -> None:
    write_family(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"sample_id": "s0", "text": "1"}\n')
    result = quick_cli("import", "talk", "in.jsonl", "--model", "m", "--tasks-dir", "families")
    assert result.returncode == 2
    assert "asks several questions a try" in result.stderr
