"""How many requests may be on the wire at once: grown while throughput grows, cut when it hurts.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989). Where nobody knows
what the server has, the limit starts low and doubles as long as a longer queue brings more pieces a
second (slow start); where it brings no more, the limit goes back and tries again later. A refusal
(429) or a time-out halves it, at most once a round; after that each answer adds a twentieth, so a
full round of answers adds 5 %.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

START = 16  # where neither the server nor the user says a number
_GROWTH = 0.05
_WINDOW_SECONDS = 2.0  # of throughput, at least
_ENOUGH_GAIN = 0.25  # of what a limit would bring whose every place counts as much as the others
_SECONDS_BEFORE_ANOTHER_STEP = 120.0
_FIRST_STEP, _LATER_STEP = 2.0, 1.25


class AdaptiveLimit:
    """A bound on requests in flight that follows what the server can take.

    Args:
        most: never exceeded.
        start: the bound to start with; None: `most`, and nothing is tried out.
        clock: seconds, monotonic.
    """

    def __init__(
        self, most: int, *, start: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._limit = float(most if start is None else min(start, most))
        self._ceiling = float(most)  # where throughput stopped growing
        self._in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock = clock
        self._lowered_at = float("-inf")
        self._resume_at = float("-inf")
        self._throughput = _Throughput(self._limit < most, clock())

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

    def bound(self, most: int, *, start: int | None = None) -> None:
        """Take another bound, as the server says what it has; before the first request.

        Args:
            most: never exceeded from now on.
            start: the bound to start with; None: `most`.
        """
        self._most, self._ceiling = most, float(most)
        self._limit = float(most if start is None else min(start, most))
        self._throughput = _Throughput(self._limit < most, self._clock())

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
            self._throughput.stop(now)

    def speed_up(self) -> None:
        """Count an answer."""
        if not self._throughput.is_growing:
            self._limit = max(self._limit, min(self._ceiling, self._limit + _GROWTH))
        self._wake()

    def progress(self, pieces: int) -> None:
        """Count what came of an answer, tokens as a rule; grow where more places brought more."""
        throughput = self._throughput
        throughput.pieces += pieces
        throughput.reports += 1
        if throughput.reports < self._limit:
            return
        now = self._clock()
        if now - throughput.begun < _WINDOW_SECONDS:
            return
        grown = throughput.judge(self._limit, now, is_full=self._in_use >= self.limit)
        if grown is None:
            return
        if grown < self._limit:
            self._ceiling = grown
        elif grown > self._ceiling:
            self._ceiling = min(float(self._most), grown)
        self._limit = min(float(self._most), grown)
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


class _Throughput:
    """Pieces a second in windows of time, and whether a larger limit brought more of them."""

    def __init__(self, is_growing: bool, now: float) -> None:  # noqa: FBT001  private
        self.is_growing = is_growing
        self.pieces = 0
        self.reports = 0
        self.begun = now
        self._is_settling = True  # what has just been let in hasn't answered yet
        self._step = _FIRST_STEP
        self._before: tuple[float, float] | None = None  # limit, pieces a second
        self._again_at = float("inf") if is_growing else now + _SECONDS_BEFORE_ANOTHER_STEP

    def stop(self, now: float) -> None:
        """Grow no further for a while: the server has said that it is too much."""
        self.is_growing = False
        self._before = None
        self._step = _LATER_STEP
        self._again_at = now + _SECONDS_BEFORE_ANOTHER_STEP
        self._begin(now)

    def judge(self, limit: float, now: float, *, is_full: bool) -> float | None:
        """Close a window; return the limit to go on with, None for the same."""
        rate = self.pieces / max(1e-9, now - self.begun)
        was_settling, self._is_settling = self._is_settling, False
        self._begin(now)
        if was_settling or not is_full:
            return None
        if not self.is_growing:
            if now < self._again_at:
                return None
            self.is_growing, self._before = True, None
        if self._before is not None:
            limit_before, rate_before = self._before
            enough = 1 + _ENOUGH_GAIN * (limit / limit_before - 1)
            if rate < rate_before * enough:
                self.stop(now)
                return limit_before
        self._before = (limit, rate)
        self._is_settling = True
        return max(limit + 1, limit * self._step)

    def _begin(self, now: float) -> None:
        self.begun, self.pieces, self.reports = now, 0, 0
