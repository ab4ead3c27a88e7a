"""Keep a bounded number of requests in flight, and hand their results over as they finish.

The engines that answer one request at a time (openai, vllm) share this: they bring a coroutine
that answers one request, this brings laziness, concurrency and a clean end.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import islice

from g4eval.errors import EngineError
from g4eval.records import Attempt, Completion, Request

Answer = Callable[[Request], Awaitable[Completion | Attempt]]


async def complete_concurrently(
    requests: Iterable[Request], answer: Answer, *, concurrency: int
) -> AsyncGenerator[Completion | Attempt, None]:
    """Yield the answer to each request as it comes, in any order.

    A request is taken only when an earlier one has been handed over, so no more than `concurrency`
    are held however slow the consumer is. Closing the iterator cancels what is in flight. An
    EngineError from `answer` ends the iteration, after everything that had finished was yielded.
    """
    waiting = iter(requests)
    in_flight: set[asyncio.Task[Completion | Attempt]] = set()
    finished: asyncio.Queue[asyncio.Task[Completion | Attempt]] = asyncio.Queue()

    def start(count: int) -> None:
        for request in islice(waiting, count):
            task = asyncio.ensure_future(answer(request))
            in_flight.add(task)
            task.add_done_callback(finished.put_nowait)

    broken: EngineError | None = None
    try:
        start(concurrency)
        while in_flight and not (broken and finished.empty()):
            task = await finished.get()
            in_flight.discard(task)
            try:
                result = task.result()
            except EngineError as error:
                broken = broken or error
                continue
            yield result
            if broken is None:
                start(1)
        if broken:
            raise broken
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
