"""Invented requests, and the few lines that drive an engine from a test that isn't async."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from g4eval.concurrency import most_in_flight, side_by_side
from g4eval.config import SamplingParams
from g4eval.engines.base import Engine
from g4eval.plan import RunPlan, TaskPlan, planned_tries
from g4eval.records import Attempt, Chat, Completion, Message, Request, Sample, Try
from g4eval.rendering import first_request

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], *, within_seconds: float = 30) -> T:
    """Run to the end, or fail the test after a while."""
    return asyncio.run(asyncio.wait_for(coroutine, within_seconds))


def make_request(
    prompt: str = "What is 2 + 2?", *, number: int = 0, seed: int = 7, **sampling: Any
) -> Request:
    """A request of an invented task; the number makes it another one."""
    return Request(
        key=f"{number:064x}",
        task_id="invented",
        task_version=1,
        sample_id=f"invented/{number}",
        repeat=0,
        prompt=Chat((Message(role="user", content=prompt),)),
        sampling=SamplingParams(**{"max_new_tokens": 16, **sampling}),
        seed=seed,
    )


def answers(
    requests: Iterable[Request], engine: Engine
) -> AsyncGenerator[Completion | Attempt, None]:
    """What an engine answers, asked as the pipeline asks."""
    return side_by_side((engine.answer(r) for r in requests), lambda: most_in_flight(engine))


def render_requests(task_plan: TaskPlan, plan: RunPlan) -> Iterator[Request]:
    """The first request of each try of a task, in order."""
    return map(first_request, planned_tries(task_plan, plan))


def try_of(sample: Sample, *completions: Completion) -> Try:
    """A try made of its completions."""
    last = completions[-1]
    return Try(
        task_id=last.task_id, sample=sample, repeat=last.repeat, completions=tuple(completions)
    )


async def complete_all(
    engine: Engine, requests: Iterable[Request]
) -> dict[int, Completion | Attempt]:
    """What the engine answers, by the request's number."""
    results: list[Completion | Attempt] = []
    await collect(engine, requests, into=results)
    return {int(result.key, 16): result for result in results}


async def collect(
    engine: Engine,
    requests: Iterable[Request],
    *,
    into: list[Completion | Attempt],
    after: int = 0,
    then: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Append what the engine answers; once there are `after` answers, also do `then`."""
    async with aclosing(answers(requests, engine)) as answered:
        async for result in answered:
            into.append(result)
            if then is not None and len(into) == after:
                await then()
