"""THE MAIN PATH: task -> dialogue -> engine -> completions -> grader -> store -> estimates.

`run_tasks` is all of it. session.py builds what it needs: the plan (planning.py), an engine
(engines/), a pool of graders (graders/) and a store (store/). Reports and the gate read the store.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from g4eval.asking import Asking, Clean
from g4eval.concurrency import Places, most_in_flight, side_by_side
from g4eval.engines.base import Engine
from g4eval.errors import StepFailedError
from g4eval.graders.pool import GraderPool
from g4eval.plan import PlannedTry, RunPlan, unfinished_tries, withholding_of
from g4eval.records import Attempt, Grade, Try
from g4eval.stats.summary import TaskSummary, summarise
from g4eval.store.run_store import RunStore

Watcher = Callable[[Try | Attempt | Grade], None]


async def run_tasks(
    plan: RunPlan,
    engine: Engine,
    graders: GraderPool,
    store: RunStore,
    watch: Watcher = lambda _: None,
    *,
    tries: Iterable[PlannedTry] | None = None,
) -> list[TaskSummary]:
    """Take tasks from samples to estimates, grading while the engine answers.

    `watch` hears of each try that ends, by an Attempt where it failed, and of each grade. `tries`
    are those to run, where it isn't all of the plan's that are left, sample by sample. Raises
    EngineError, SandboxError or StoreError where the engine, the sandbox or the disk gives up; what
    was finished is stored.
    """
    async with graders.saving_to(store, watch) as grading, withholding_of(plan) as withholding:
        todo = unfinished_tries(plan, store) if tries is None else tries
        async with aclosing(run_tries(todo, engine, store, withholding.answer)) as ended:
            async for one_try in ended:  # each step was stored as it came
                if isinstance(one_try, Try):
                    grading.offer(one_try)  # full queue: graded later from the store
                watch(one_try)
    await store.flush()
    return summarise(store)


def run_tries(
    tries: Iterable[PlannedTry], engine: Engine, store: RunStore, clean: Clean
) -> AsyncGenerator[Try | Attempt, None]:
    """Run tries in their order, as many at once as the engine is worth; yield each as it ends."""
    places = Places(lambda: most_in_flight(engine))
    return side_by_side(
        (run_try(Asking(p, engine, store, places, clean), p, store) for p in tries),
        most=lambda: most_in_flight(engine),
    )


async def run_try(ask: Asking, planned: PlannedTry, store: RunStore) -> Try | Attempt:
    """Run one try's dialogue to its end; what is stored of it is replayed, not asked again."""
    try:
        await planned.dialogue.run(planned.sample, planned.repeat, ask)
    except StepFailedError:
        if ask.failure is None:
            raise
    finally:
        if ask.is_busy:
            await ask.stop()
    if ask.failure is not None:
        await store.end_try(ask.failure)
        return ask.failure
    one_try = ask.result()
    await store.end_try(one_try)
    return one_try
