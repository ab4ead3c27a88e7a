"""Step the scheduler for as long as anybody waits for a generation's end.

Each generation has one caller that awaits it. One task admits what waits, runs a step at a time in
the engine's worker thread, and wakes the callers whose generations it ended. Nothing touches the
scheduler while a step runs: a caller that is cancelled only says so, and its generation is dropped
before the next step.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

import torch

from g4eval.engines.gemma.scheduler import Generation, Scheduler
from g4eval.errors import EngineError

# From the end of one request to the start of the one that takes its place, with room to spare: so
# a step runs with a full batch, and prompts that come together are computed together.
TURNS_TO_REFILL = 8

Step = Callable[[], list[Generation]]


class Stepper:
    """Runs generations to their ends on one scheduler.

    Args:
        scheduler: nobody else's.
        in_worker: runs a step outside the event loop.
    """

    def __init__(
        self, scheduler: Scheduler, in_worker: Callable[[Step], Awaitable[list[Generation]]]
    ) -> None:
        self._scheduler = scheduler
        self._in_worker = in_worker
        self._waiting: deque[Generation] = deque()  # for a slot or for memory, in order
        self._ends: dict[int, asyncio.Future[None]] = {}  # by the generation's id()
        self._given_up: list[Generation] = []
        self._running: asyncio.Task[None] | None = None

    async def finish(self, generation: Generation) -> None:
        """Return when a generation has ended; cancelling gives it up.

        Raises EngineError where a forward pass fails, or the engine is closed first.
        """
        end = asyncio.get_running_loop().create_future()
        self._ends[id(generation)] = end
        self._waiting.append(generation)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        try:
            await end
        except asyncio.CancelledError:
            self._given_up.append(generation)
            raise
        finally:
            del self._ends[id(generation)]

    async def close(self) -> None:
        """Stop stepping; whoever still waits gets an EngineError."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        # The scheduler goes with the engine; a step may still be running in the worker.
        self._wake(EngineError("the engine was closed before the request was done"))

    async def _run(self) -> None:
        try:
            while self._fill():
                ended = await self._in_worker(self._scheduler.step)
                for generation in ended:
                    end = self._ends.get(id(generation))
                    if end is not None and not end.done():
                        end.set_result(None)
                for _ in range(TURNS_TO_REFILL if ended else 0):
                    await asyncio.sleep(0)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            self._scheduler.abort()
            self._wake(EngineError(f"a forward pass failed: {error}"))
        except Exception as error:  # noqa: BLE001  a bug of ours, for the callers to raise
            self._wake(error)

    def _fill(self) -> bool:
        """Drop what was given up, admit what fits; return whether there is anything to step."""
        for generation in self._given_up:
            self._scheduler.drop(generation)
            with contextlib.suppress(ValueError):
                self._waiting.remove(generation)
        self._given_up.clear()
        while self._waiting and self._scheduler.admit(self._waiting[0]):
            self._waiting.popleft()
        return not self._scheduler.is_idle

    def _wake(self, error: Exception) -> None:
        """Have every caller raise `error`."""
        self._waiting.clear()
        for end in self._ends.values():
            if not end.done():
                end.set_exception(error)
