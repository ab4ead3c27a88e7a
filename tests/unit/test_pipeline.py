import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from g4eval.config import RunConfig
from g4eval.engines.fake import FakeEngine, FakeOptions
from g4eval.graders.pool import GraderPool
from g4eval.pipeline import (
    RunPlan,
    graded_tasks,
    limit_samples,
    render_requests,
    run_tasks,
    unanswered_requests,
)
from g4eval.planning import answers_of, plan_tasks, task_record
from g4eval.records import Attempt, Completion, Request, Sample
from g4eval.stats.summary import TaskSummary, summarise
from g4eval.store.reader import RunReader
from g4eval.store.run_store import RunStore

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
        def complete(
            self, requests: Iterable[Request]
        ) -> AsyncGenerator[Completion | Attempt, None]:
            asked.extend(requests)
            return super().complete([])

    assert run(make_plan(), tmp_path, Listening(FakeOptions())) == first
    assert asked == []


def test_more_repeats_generate_only_the_new_ones(tmp_path) -> None:
    run(make_plan(repeats=1), tmp_path)
    plan = make_plan(repeats=3)
    with RunStore(tmp_path) as store:
        new = list(unanswered_requests(plan, store))
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
