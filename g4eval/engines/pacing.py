"""How many requests may be on the wire at once: fewer after a 429, more again as answers come.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989): the limit halves
at most once a round, and each answer adds a twentieth, so a full round of answers adds 5 %.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_GROWTH = 0.05


class AdaptiveLimit:
    """A bound on requests in flight that follows what the server can take.

    Args:
        most: the bound to start with, never exceeded.
        clock: seconds, monotonic.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._limit = float(most)
        self._in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock = clock
        self._lowered_at = float("-inf")
        self._resume_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many may be in flight now; at least 1."""
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a place and hold it; gives the time at which it was had."""
        await self._take()
        try:
            yield self._clock()
        finally:
            self._in_use -= 1
            self._wake()

    def slow_down(self, sent_at: float, pause_seconds: float = 0.0) -> None:
        """Halve the limit, once for all requests that were sent before the last halving.

        Args:
            sent_at: when the refused request got its place, as `slot` gave it.
            pause_seconds: nothing new goes out for this long.
        """
        now = self._clock()
        self._resume_at = max(self._resume_at, now + pause_seconds)
        if sent_at > self._lowered_at:
            self._limit = max(1.0, self._limit / 2)
            self._lowered_at = now

    def speed_up(self) -> None:
        """Count an answer."""
        self._limit = min(float(self._most), self._limit + _GROWTH)
        self._wake()

    async def _take(self) -> None:
        while True:
            pause = self._resume_at - self._clock()
            if pause > 0:
                await asyncio.sleep(pause)
            elif self._in_use < self.limit:
                self._in_use += 1
                return
            else:
                await self._queue_up()

    async def _queue_up(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._wake()  # it was our turn; let the next one have it
            raise

    def _wake(self) -> None:
        free = self.limit - self._in_use
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1
