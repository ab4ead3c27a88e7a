"""What happens around one coroutine a request."""

import asyncio

import pytest

from g4eval.engines.in_flight import complete_concurrently
from g4eval.errors import EngineError
from g4eval.records import Completion, Request, StopReason
from tests.driving import make_request, run


def completion_of(request: Request) -> Completion:
    return Completion(
        key=request.key,
        task_id=request.task_id,
        sample_id=request.sample_id,
        repeat=0,
        text="done",
        stop_reason=StopReason.STOP,
    )


def test_an_engine_that_breaks_first_hands_over_what_had_finished() -> None:
    cancelled = []

    async def answer(request: Request) -> Completion:
        number = int(request.key, 16)
        if number == 4:
            await asyncio.sleep(0.02)
            raise EngineError("the server is gone")
        if number > 4:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.append(number)
        return completion_of(request)

    async def main() -> None:
        requests = (make_request(number=i) for i in range(100))
        async for result in complete_concurrently(requests, answer, concurrency=6):
            await asyncio.sleep(0.01)  # a slow consumer: results pile up behind it
            handed_over.append(int(result.key, 16))

    handed_over: list[int] = []
    with pytest.raises(EngineError, match="the server is gone"):
        run(main())
    assert sorted(handed_over) == [0, 1, 2, 3]
    assert cancelled
    assert min(cancelled) > 4


def test_a_bug_in_an_engine_is_not_swallowed() -> None:
    async def answer(request: Request) -> Completion:
        raise KeyError("bug")

    async def main() -> None:
        async for _ in complete_concurrently([make_request()], answer, concurrency=2):
            pass

    with pytest.raises(KeyError):
        run(main())
