"""Run coroutines side by side, as many as an engine is worth, and hand over what they return.

The pipeline's laziness, order, back-pressure and abort are here, and nowhere else.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, TypeVar

from g4eval.errors import EngineError

T = TypeVar("T")

SECONDS_A_LOOK = 1.0  # at how many are worth running, while none ends


class HasCapacity(Protocol):
    """What an engine is, to those who keep it busy."""

    @property
    def capacity(self) -> int:
        """How many requests are worth having in flight now."""
        ...


def most_in_flight(engine: HasCapacity) -> int:
    """Return how many requests an engine is given at once: its capacity and a tenth more.

    The tenth waits inside the engine, so that a place that gets free is taken at once.
    """
    capacity = engine.capacity
    return capacity - -capacity // 10  # the tenth rounded up


async def side_by_side(
    work: Iterable[Coroutine[Any, Any, T]], most: Callable[[], int]
) -> AsyncGenerator[T, None]:
    """Yield what each coroutine returns as it comes, in any order; they start in theirs.

    As many are under way as `most` says at the time; one is taken from `work` only when an earlier
    result has been handed over, so no more are held however slow the consumer is. Closing the
    iterator cancels what is under way. An EngineError ends it, after everything that had finished
    was yielded; any other error at once.
    """
    waiting = iter(work)
    under_way: set[asyncio.Task[T]] = set()
    finished: asyncio.Queue[asyncio.Task[T] | None] = asyncio.Queue()
    timer = _Timer(SECONDS_A_LOOK, lambda: finished.put_nowait(None))  # None: nothing has finished

    def start() -> None:
        for coroutine in islice(waiting, max(0, most() - len(under_way))):
            task = asyncio.create_task(coroutine)
            under_way.add(task)
            task.add_done_callback(finished.put_nowait)

    broken: EngineError | None = None
    try:
        start()
        while under_way and not (broken and finished.empty()):
            task = await finished.get()
            if task is not None:
                under_way.discard(task)
                try:
                    result = task.result()
                except EngineError as error:
                    broken = broken or error
                    continue
                yield result
            if broken is None:
                start()
        if broken:
            raise broken
    finally:
        timer.stop()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


class Places:
    """Bounds the requests that many tries have in flight together: `async with places:`."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while self._taken >= self._most():
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._wake()  # it was our turn; let the next one have it
                raise
        self._taken += 1

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        if not self._waiting:
            return
        free = self._most() - self._taken
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1


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
