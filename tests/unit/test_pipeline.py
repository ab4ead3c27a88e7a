import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from g4eval.config import RunConfig
from g4eval.engines.fake import FakeEngine, FakeOptions
from g4eval.errors import EngineError
from g4eval.graders.pool import GraderPool
from g4eval.pipeline import run_tasks
from g4eval.plan import RunPlan, graded_tasks, unfinished_tries
from g4eval.planning import answers_of, limit_samples, plan_tasks, task_record
from g4eval.records import Attempt, Completion, Request, Sample, StopReason
from g4eval.stats.summary import TaskSummary, summarise
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore
from tests.driving import answers, make_request, render_requests
from tests.driving import run as run_within

FINGERPRINT = "f" * 64


def make_plan(seed: int = 0, fingerprint: str = FINGERPRINT, **keys: object) -> RunPlan:
    config = RunConfig(tasks=("demo_math",), seed=seed, **keys)  # type: ignore[arg-type]
    return RunPlan(tasks=plan_tasks(config, None), seed=seed, engine_fingerprint=fingerprint)


def run(plan: RunPlan, folder: Path, engine: object | None = None) -> TaskSummary:
    async def go() -> list[TaskSummary]:
        with RunStore(folder) as store:
            store.set_meta({"run_id": "r"})
            for task in plan.tasks:
                record = task_record(task, is_generated=True)
                store.set_task(task.task.spec.id, record, task.samples, gated=False)
            pool = GraderPool(graded_tasks(plan), workers=1)
            return await run_tasks(plan, engine or make_engine(plan), pool, store)  # type: ignore[arg-type]

    (summary,) = asyncio.run(go())
    return summary


def make_engine(plan: RunPlan, **options: object) -> FakeEngine:
    return FakeEngine(FakeOptions(**options), answers=answers_of(plan.tasks))  # type: ignore[arg-type]


def test_requests_have_distinct_keys_and_seeds() -> None:
    plan = make_plan(repeats=4)
    requests = list(render_requests(plan.tasks[0], plan))
    assert len(requests) == 64
    assert len({r.key for r in requests}) == len({r.seed for r in requests}) == 64


def test_request_is_the_same_in_a_subset() -> None:
    whole = {r.key for r in render_requests(make_plan().tasks[0], make_plan())}
    part = make_plan(limit=3)
    subset = {r.key for r in render_requests(part.tasks[0], part)}
    assert len(subset) == 6
    assert subset < whole


@pytest.mark.parametrize("change", [{"seed": 1}, {"fingerprint": "e" * 64}])
def test_another_seed_or_engine_shares_no_key(change) -> None:
    one, other = make_plan(), make_plan(**change)
    keys = {r.key for r in render_requests(one.tasks[0], one)}
    assert not keys & {r.key for r in render_requests(other.tasks[0], other)}


def test_another_sampling_shares_no_key() -> None:
    one, other = make_plan(), make_plan(set={"sampling.temperature": 0.5})
    keys = {r.key for r in render_requests(one.tasks[0], one)}
    assert not keys & {r.key for r in render_requests(other.tasks[0], other)}


def test_two_arms_with_different_quantization_never_share_a_key() -> None:
    arms = [make_engine(make_plan(), quantization=name).describe() for name in ("none", "fp8")]
    keys = []
    for facts in arms:
        plan = make_plan(fingerprint=facts.fingerprint)
        keys.append({r.key for r in render_requests(plan.tasks[0], plan)})
    assert not keys[0] & keys[1]


def test_run_scores_every_sample_and_stores_every_completion(tmp_path) -> None:
    summary = run(make_plan(), tmp_path)
    assert summary.estimate.n_samples == 16
    assert summary.estimate.n_graded == 32
    assert 0 < summary.estimate.value < 1
    assert summary.audit.n_missing == 0


def test_finished_run_asks_the_engine_for_nothing(tmp_path) -> None:
    first = run(make_plan(), tmp_path)

    asked: list[Request] = []

    class Listening(FakeEngine):
        async def answer(self, request: Request) -> Completion | Attempt:
            asked.append(request)
            return await super().answer(request)

    assert run(make_plan(), tmp_path, Listening(FakeOptions())) == first
    assert asked == []


def test_more_repeats_generate_only_the_new_ones(tmp_path) -> None:
    run(make_plan(repeats=1), tmp_path)
    plan = make_plan(repeats=3)
    with RunStore(tmp_path) as store:
        new = list(unfinished_tries(plan, store))
    assert {r.repeat for r in new} == {1, 2}
    assert len(new) == 32
    assert run(plan, tmp_path).estimate.n_repeats == 3


def test_request_that_failed_for_good_is_ungraded_and_sent_again(tmp_path) -> None:
    plan = make_plan()
    broken = run(plan, tmp_path, make_engine(plan, failed_share=0.3))
    assert broken.audit.failed == broken.estimate.n_ungraded > 0
    assert broken.estimate.n_graded == 32 - broken.audit.failed
    mended = run(plan, tmp_path)
    assert mended.audit.failed == mended.estimate.n_ungraded == 0
    assert mended.estimate.n_graded == 32


def test_one_request_that_fails_stops_no_other(tmp_path) -> None:
    plan = make_plan()
    summary = run(plan, tmp_path, make_engine(plan, failed_share=0.3))
    assert summary.estimate.n_graded > 10


def test_unfinished_thoughts_never_score_though_a_right_box_is_in_them(tmp_path) -> None:
    plan = make_plan()

    def decoy(task_id: str, sample_id: str, repeat: int, right: bool) -> str:
        target = next(s.target for s in plan.tasks[0].samples if s.sample_id == sample_id)
        return f"<|channel>thought\nSo it is \\boxed{{{target}}}"

    engine = FakeEngine(FakeOptions(accuracy=1, spread=0), answers=decoy)
    summary = run(plan, tmp_path, engine)
    assert summary.estimate.value == 0
    assert summary.estimate.n_no_answer == 32


def test_truncated_thoughts_are_counted_and_banded(tmp_path) -> None:
    plan = make_plan()
    engine = make_engine(plan, thinking=True, truncated_share=0.4, accuracy=1, spread=0)
    estimate = run(plan, tmp_path, engine).estimate
    assert estimate.n_truncated == estimate.n_no_answer > 0
    assert estimate.if_truncated_right == 1.0
    assert estimate.if_truncated_left_out == 1.0
    assert estimate.value == pytest.approx(1 - estimate.n_truncated / 32)


def test_engine_that_ignores_seeds_is_found_out(tmp_path) -> None:
    plan = make_plan(repeats=4)
    same = run(plan, tmp_path / "same", make_engine(plan, same_text=True, accuracy=1, spread=0))
    assert same.audit.n_duplicates == 48
    assert run(plan, tmp_path / "honest").audit.n_duplicates == 0


def test_grades_of_a_broken_off_run_are_made_up_for(tmp_path) -> None:
    plan = make_plan()
    with pytest.raises(Exception, match="engine fake stopped after 10 requests"):
        run(plan, tmp_path, make_engine(plan, stop_after=10))
    with RunReader(tmp_path) as reader:
        (summary,) = summarise(reader)
        assert summary.audit.n_missing == 22
    assert run(plan, tmp_path).estimate.n_graded == 32


# --- how requests reach an engine ---


class _Scripted:
    """What an engine is to the pipeline: a capacity and a coroutine a request."""

    def __init__(self, answer: Any, capacity: int) -> None:
        self.capacity = capacity
        self.numbers: list[int] = []  # of the requests taken up, in order
        self._answer = answer

    async def answer(self, request: Request) -> Completion:
        number = int(request.key, 16)
        self.numbers.append(number)
        await self._answer(number)
        return Completion(
            key=request.key,
            task_id=request.task_id,
            sample_id=request.sample_id,
            repeat=0,
            text="done",
            stop_reason=StopReason.STOP,
        )


def scripted(answer: Any, *, capacity: int = 5) -> Any:
    """An engine that only answers."""
    return _Scripted(answer, capacity)


def numbered(count: int | None = None) -> Iterator[Request]:
    numbers = itertools.count() if count is None else range(count)
    return (make_request(number=number) for number in numbers)


async def at_once(number: int) -> None:
    await asyncio.sleep(0)


def test_an_engine_that_breaks_first_hands_over_what_had_finished() -> None:
    cancelled, handed_over = [], []

    async def answer(number: int) -> None:
        if number == 4:
            await asyncio.sleep(0.02)
            raise EngineError("the server is gone")
        if number > 4:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.append(number)

    async def main() -> None:
        async for result in answers(numbered(100), scripted(answer)):
            await asyncio.sleep(0.01)  # a slow consumer: results pile up behind it
            handed_over.append(int(result.key, 16))

    with pytest.raises(EngineError, match="the server is gone"):
        run_within(main())
    assert sorted(handed_over) == [0, 1, 2, 3]
    assert cancelled
    assert min(cancelled) > 4


def test_a_bug_in_an_engine_is_not_swallowed() -> None:
    async def answer(number: int) -> None:
        raise KeyError("bug")

    async def main() -> None:
        async for _ in answers(numbered(1), scripted(answer)):
            pass

    with pytest.raises(KeyError):
        run_within(main())


def test_requests_are_rendered_in_order_and_no_faster_than_answers_are_handed_over() -> None:
    taken, handed_over, most_ahead = [], 0, 0

    def requests() -> Iterator[Request]:
        for request in numbered(200):
            taken.append(int(request.key, 16))
            yield request

    async def consume_slowly() -> None:
        nonlocal handed_over, most_ahead
        async for _ in answers(requests(), engine):
            most_ahead = max(most_ahead, len(taken) - handed_over)
            handed_over += 1
            await asyncio.sleep(0.001 if handed_over % 7 == 0 else 0)

    engine = scripted(at_once, capacity=10)
    run_within(consume_slowly())
    assert taken == engine.numbers == list(range(200))
    assert handed_over == 200
    assert most_ahead == 11  # the capacity and a tenth more


def test_a_capacity_that_changes_is_followed() -> None:
    async def main() -> list[int]:
        in_flight, seen = 0, []

        async def answer(number: int) -> None:
            nonlocal in_flight
            in_flight += 1
            seen.append(in_flight)
            await asyncio.sleep(0.001)
            in_flight -= 1

        engine = scripted(answer, capacity=20)
        handed_over = 0
        async for _ in answers(numbered(300), engine):
            handed_over += 1
            engine.capacity = 2 if 100 <= handed_over < 200 else 20
        return seen

    seen = run_within(main())
    assert max(seen[:100]) == max(seen[240:]) == 22
    assert max(seen[130:190]) == 3


def test_a_capacity_that_grows_while_no_answer_ends_is_seen(monkeypatch) -> None:
    monkeypatch.setattr("g4eval.concurrency.SECONDS_A_LOOK", 0.01)

    async def main() -> int:
        async def answer(number: int) -> None:
            while len(engine.numbers) < 22:
                await asyncio.sleep(0.001)

        engine = scripted(answer, capacity=1)
        asyncio.get_running_loop().call_later(0.05, lambda: setattr(engine, "capacity", 20))
        return len([r async for r in answers(numbered(30), engine)])

    assert run_within(main()) == 30


def test_closing_early_cancels_what_is_in_flight_and_takes_nothing_more() -> None:
    async def main() -> tuple[int, int]:
        cancelled = 0

        async def answer(number: int) -> None:
            nonlocal cancelled
            if number:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled += 1
                    raise

        engine = scripted(answer)
        answered = answers(numbered(), engine)
        await anext(answered)
        await answered.aclose()
        return cancelled, len(engine.numbers)

    assert run_within(main()) == (5, 6)


def samples(*values: str) -> list[Sample]:
    return [
        Sample(sample_id=f"{v}-{i}", target=1, groups={"part": v}) for i, v in enumerate(values)
    ]


def test_larger_limit_keeps_what_a_smaller_one_took() -> None:
    everything = samples(*"aaaaaaaaaaaa")
    taken = [{s.sample_id for s in limit_samples(everything, n, None)} for n in range(1, 12)]
    assert all(small < large for small, large in itertools.pairwise(taken))
    assert [len(t) for t in taken] == list(range(1, 12))


def test_limit_takes_the_values_of_a_group_in_turn() -> None:
    everything = samples(*"aaaaaaabbbbbcc")
    parts = [s.groups["part"] for s in limit_samples(everything, 6, "part")]
    assert sorted(parts) == ["a", "a", "b", "b", "c", "c"]


def test_limit_keeps_the_order_of_the_task() -> None:
    everything = samples(*"abcdefgh")
    limited = limit_samples(everything, 5, None)
    assert limited == [s for s in everything if s in limited]
