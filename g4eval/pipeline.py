"""THE MAIN PATH: task -> prompts -> engine -> completions -> grader -> store -> estimates.

`run_tasks` is all of it. session.py builds what it needs: the plan (planning.py), an engine
(engines/), a pool of graders (graders/) and a store (store/). Reports and the gate read the store.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from g4eval.config import SamplingParams
from g4eval.engines.base import Engine
from g4eval.errors import EngineError
from g4eval.fingerprint import hash_order, prompt_hash, request_seed, sha256_json
from g4eval.graders.pool import GradedTask, GraderPool, GraderRef
from g4eval.records import Attempt, Completion, Grade, Request, Sample
from g4eval.stats.summary import TaskSummary, summarise
from g4eval.store.run_store import RunStore
from g4eval.task.datasets import TaskData
from g4eval.task.loader import Task
from g4eval.withholding import Withholding

SECONDS_A_LOOK = 1.0  # at the engine's capacity, while no answer ends

Watcher = Callable[[Completion | Attempt | Grade], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """What one run asks of one task."""

    task: Task
    data: TaskData
    samples: tuple[Sample, ...]  # what TASK.* settings and then `--limit` leave
    n_selected: int  # how many there were before `--limit`
    repeats: int  # of a sample, at most
    prompt: str  # the variant
    sampling: SamplingParams
    settings: Mapping[str, Any] = field(default_factory=dict)  # the task's own
    is_uneven: bool = False  # samples have fewer repeats each, as a gate laid them out
    is_graded: bool = True  # False: nothing here can judge it, and that was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What one run asks of one engine."""

    tasks: tuple[TaskPlan, ...]
    seed: int
    engine_fingerprint: str
    retry_refused: bool = False  # send again what was refused


async def run_tasks(
    plan: RunPlan,
    engine: Engine,
    graders: GraderPool,
    store: RunStore,
    watch: Watcher = lambda _: None,
    *,
    requests: Iterable[Request] | None = None,
) -> list[TaskSummary]:
    """Take tasks from samples to estimates, grading while the engine generates.

    Each completion is stored at once; what is stored is never asked for again. `watch` hears of
    each completion, failed attempt and grade. `requests` are those to send, where it isn't all of
    the plan's in its own order. Raises EngineError, SandboxError or StoreError where the engine,
    the sandbox or the disk gives up; what was finished is stored.
    """
    withholding = Withholding({p.task.spec.id: p.samples for p in plan.tasks if p.task.spec.gated})
    async with graders.saving_to(store, watch) as grading, withholding:
        asked = unanswered_requests(plan, store) if requests is None else requests
        async with aclosing(answers(asked, engine)) as answered:
            async for found in answered:
                answer = withholding.answer(found)
                if isinstance(answer, Attempt):
                    await store.add_attempt(answer)
                else:
                    await store.add_completion(answer)
                    grading.offer(answer)  # full queue: graded later from the store
                watch(answer)
    await store.flush()
    return summarise(store)


async def answers(
    requests: Iterable[Request], engine: Engine
) -> AsyncGenerator[Completion | Attempt, None]:
    """Yield the engine's answer to each request as it comes, in any order.

    As many are under way as `most_in_flight` says; a request is taken only when an earlier one has
    been handed over, so no more are held however slow the consumer is. Closing the iterator aborts
    what is in flight. An EngineError ends it, after everything that had finished was yielded.
    """
    waiting = iter(requests)
    in_flight: set[asyncio.Task[Completion | Attempt]] = set()
    finished: asyncio.Queue[asyncio.Task[Completion | Attempt] | None] = asyncio.Queue()
    timer = _Timer(SECONDS_A_LOOK, lambda: finished.put_nowait(None))  # None: nothing has finished

    def start() -> None:
        for request in islice(waiting, max(0, most_in_flight(engine) - len(in_flight))):
            task = asyncio.create_task(engine.answer(request))
            in_flight.add(task)
            task.add_done_callback(finished.put_nowait)

    broken: EngineError | None = None
    try:
        start()
        while in_flight and not (broken and finished.empty()):
            task = await finished.get()
            if task is not None:
                in_flight.discard(task)
                try:
                    answer = task.result()
                except EngineError as error:
                    broken = broken or error
                    continue
                yield answer
            if broken is None:
                start()
        if broken:
            raise broken
    finally:
        timer.stop()
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


class _Timer:
    """Calls something at every interval until it is stopped."""

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._seconds = seconds
        self._call = call
        self._wait()

    def _wait(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def _tick(self) -> None:
        self._call()
        self._wait()

    def stop(self) -> None:
        """Call no more."""
        self._handle.cancel()


def most_in_flight(engine: Engine) -> int:
    """Return how many requests an engine is given at once: its capacity and a tenth more.

    The tenth waits inside the engine, so that a place that gets free is taken at once.
    """
    return engine.capacity + math.ceil(engine.capacity / 10)


def unanswered_requests(plan: RunPlan, store: RunStore) -> Iterator[Request]:
    """Render, lazily, the requests that the store has no completion for and that may succeed."""
    answered = store.keys()
    if not plan.retry_refused:
        answered |= store.refused_keys()
    for task_plan in plan.tasks:
        for request in render_requests(task_plan, plan):
            if request.key not in answered:
                store.expect(request, gated=task_plan.task.spec.gated)
                yield request


def render_requests(task_plan: TaskPlan, plan: RunPlan) -> Iterator[Request]:
    """Render a task's requests sample by sample, so that an engine can share their prefixes."""
    for sample in task_plan.samples:
        for repeat in range(task_plan.repeats):
            yield render_request(task_plan, plan, sample, repeat)


def render_request(task_plan: TaskPlan, plan: RunPlan, sample: Sample, repeat: int) -> Request:
    """Render one request; the same one in every subset, order and process."""
    spec = task_plan.task.spec
    messages = task_plan.task.messages(sample, repeat, variant=task_plan.prompt)
    seed = request_seed(spec.id, spec.version, sample.sample_id, repeat, plan.seed)
    key = sha256_json(
        {
            "task": [spec.id, spec.version],
            "sample_id": sample.sample_id,
            "repeat": repeat,
            "prompt": prompt_hash(messages),
            "sampling": _sampling_hash(task_plan.sampling),
            "seed": seed,
            "engine": plan.engine_fingerprint,
        }
    )
    return Request(
        key=key,
        task_id=spec.id,
        task_version=spec.version,
        sample_id=sample.sample_id,
        repeat=repeat,
        messages=messages,
        sampling=task_plan.sampling,
        seed=seed,
    )


def limit_samples(samples: Iterable[Sample], limit: int | None, group: str | None) -> list[Sample]:
    """Return the first `limit` samples in hash order, the values of `group` in turn; in task order.

    The hash order is the same everywhere, and a larger limit keeps what a smaller one took.
    """
    in_order = list(samples)
    if limit is None or limit >= len(in_order):
        return in_order
    taken_of: dict[str, int] = {}  # group value -> how many stand before
    places: list[tuple[int, str]] = []
    by_hash = sorted(in_order, key=lambda s: hash_order("limit", s.sample_id))
    for sample in by_hash:
        value = sample.groups.get(group, "") if group else sample.sample_id
        places.append((taken_of.get(value, 0), sample.sample_id))
        taken_of[value] = taken_of.get(value, 0) + 1
    first = sorted(range(len(places)), key=lambda i: places[i][0])[:limit]  # stable: hash order
    taken = {places[i][1] for i in first}
    return [sample for sample in in_order if sample.sample_id in taken]


def graded_tasks(plan: RunPlan) -> list[GradedTask]:
    """Return what the pool of graders must know of the plan's tasks: all samples it may meet."""
    return [
        GradedTask(p.task.spec.id, GraderRef.of(p.task), {s.sample_id: s for s in p.data.samples})
        for p in plan.tasks
        if p.is_graded
    ]


@lru_cache(maxsize=64)
def _sampling_hash(sampling: SamplingParams) -> str:
    return sha256_json(sampling.model_dump(mode="json"))
