"""The two clocks of an answer: in the server's queue, and between two bytes of data.

Before the first byte of data a request is in the server's queue: that may take hours, and ends
after `queue_timeout_seconds`, or at once where the server answers no health request for
`idle_timeout_seconds`. After it, `idle_timeout_seconds` without a byte of data is a broken
connection. Comments and keep-alives are no data. An answer that doesn't stream has its first byte
when it is made, so it has the first clock until then. All is on the event loop's monotonic clock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from g4eval.engines.retry import Failure, RequestFailedError

_LONGEST_PAUSE_SECONDS = 30.0  # between two health requests
_HEALTH_REQUESTS = 4  # in the time that one must be answered in


class AnswerTimedOutError(RequestFailedError):
    """A clock ran out."""

    def __init__(self, message: str) -> None:
        super().__init__(Failure.BROKEN, message)


class ServerPulse:
    """When the server last showed that it lives; asks for its health while answers are in a queue.

    Args:
        is_healthy: sends one health request; whether it was answered.
        idle_timeout_seconds: the server must answer one in this time.
    """

    def __init__(
        self, is_healthy: Callable[[], Awaitable[bool]], *, idle_timeout_seconds: float
    ) -> None:
        self._is_healthy = is_healthy
        self._pause = min(_LONGEST_PAUSE_SECONDS, idle_timeout_seconds / _HEALTH_REQUESTS)
        self._task: asyncio.Task[None] | None = None
        self.n_queued = 0  # answers whose first byte is awaited
        self.seen_at = float("-inf")

    def watch(self) -> None:
        """Ask for the server's health from now on, for as long as an answer is in its queue."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._ask())

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pause)
            if not self.n_queued:
                return
            if self.seen_at < loop.time() - self._pause and await self._is_healthy():
                self.seen_at = loop.time()


class AnswerClock:
    """Ends one answer whose time is up, with AnswerTimedOutError; an async context manager.

    Args:
        pulse: of the server.
        queue_timeout_seconds: before the first byte of data.
        idle_timeout_seconds: between two.
    """

    def __init__(
        self, pulse: ServerPulse, *, queue_timeout_seconds: float, idle_timeout_seconds: float
    ) -> None:
        self._pulse = pulse
        self._queue_seconds = queue_timeout_seconds
        self._idle_seconds = idle_timeout_seconds
        self._is_queued = True
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._begun = self._data_at = self._loop.time()
        self._pulse.n_queued += 1
        self._pulse.watch()
        self._timer = self._loop.call_at(self._deadline(), self._look)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._pulse.n_queued -= self._is_queued
        try:
            await self._timeout.__aexit__(exc_type, exc, traceback)
        except TimeoutError:
            raise AnswerTimedOutError(self._words()) from None

    def data(self) -> None:
        """Note that data came."""
        self._data_at = self._pulse.seen_at = self._loop.time()
        if self._is_queued:
            self._is_queued = False
            self._pulse.n_queued -= 1
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline(), self._look)

    def _deadline(self) -> float:
        if not self._is_queued:
            return self._data_at + self._idle_seconds
        alive_until = max(self._begun, self._pulse.seen_at) + self._idle_seconds
        return min(self._begun + self._queue_seconds, alive_until)

    def _look(self) -> None:
        deadline = self._deadline()
        if self._loop.time() < deadline:
            self._timer = self._loop.call_at(deadline, self._look)
        else:
            self._timeout.reschedule(self._loop.time())

    def _words(self) -> str:
        if not self._is_queued:
            return f"no byte for {self._idle_seconds:g} s"
        if self._loop.time() >= self._begun + self._queue_seconds:
            return f"no first byte for {self._queue_seconds:g} s"
        return f"no byte, and no answer to a health request, for {self._idle_seconds:g} s"
