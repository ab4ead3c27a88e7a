"""The limit on requests in flight: down after a refusal, up again with answers."""

import asyncio

from g4eval.engines.pacing import AdaptiveLimit
from tests.driving import run


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_refusals_of_one_round_halve_the_limit_once() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, clock=clock)
    sent_at = clock.now
    clock.now += 1
    for _ in range(40):
        limit.slow_down(sent_at)
    assert limit.limit == 32
    clock.now += 1
    limit.slow_down(clock.now)
    assert limit.limit == 16


def test_the_limit_never_falls_below_one() -> None:
    clock = Clock()
    limit = AdaptiveLimit(2, clock=clock)
    for _ in range(5):
        clock.now += 1
        limit.slow_down(clock.now)
    assert limit.limit == 1


def test_a_round_of_answers_adds_five_percent_and_never_passes_the_bound() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, clock=clock)
    limit.slow_down(clock.now)
    for _ in range(40):
        limit.speed_up()
    assert limit.limit in (33, 34)  # 32 + 40 / 20, but for rounding
    for _ in range(10_000):
        limit.speed_up()
    assert limit.limit == 64


def test_no_more_than_the_limit_hold_a_place_at_once() -> None:
    async def main() -> int:
        limit = AdaptiveLimit(3)
        held = most = 0

        async def hold() -> None:
            nonlocal held, most
            async with limit.slot():
                held += 1
                most = max(most, held)
                await asyncio.sleep(0.001)
                held -= 1

        await asyncio.gather(*(hold() for _ in range(20)))
        return most

    assert run(main()) == 3


def test_a_place_given_to_a_cancelled_waiter_goes_to_the_next() -> None:
    async def main() -> bool:
        limit = AdaptiveLimit(1)
        reached = asyncio.Event()

        async def hold(event: asyncio.Event) -> None:
            async with limit.slot():
                event.set()
                await asyncio.sleep(0.01)

        first = asyncio.create_task(hold(asyncio.Event()))
        await asyncio.sleep(0)
        second = asyncio.create_task(hold(asyncio.Event()))
        third = asyncio.create_task(hold(reached))
        await asyncio.sleep(0)
        await first  # wakes the second, which is cancelled before it can take its place
        second.cancel()
        await asyncio.wait_for(reached.wait(), 1)
        await third
        return reached.is_set()

    assert run(main())


def test_nothing_goes_out_during_a_pause() -> None:
    async def main() -> float:
        limit = AdaptiveLimit(4)
        loop = asyncio.get_running_loop()
        async with limit.slot() as sent_at:
            limit.slow_down(sent_at, pause_seconds=0.1)
        started = loop.time()
        async with limit.slot():
            return loop.time() - started

    assert run(main()) >= 0.09


class Server:
    """A pretended server that makes so many pieces a second, whatever it is given."""

    def __init__(self, limit: AdaptiveLimit, clock: Clock, *, slots: int) -> None:
        self.limit, self.clock, self.slots = limit, clock, slots

    def work(self, seconds: int) -> None:
        """Every place has a request; the ones past the slots wait in the queue."""
        for _ in range(seconds):
            self.limit._in_use = self.limit.limit
            self.clock.now += 1
            for _ in range(min(self.limit.limit, self.slots)):
                for _ in range(4):  # events, of ten tokens each
                    self.limit.progress(10)


def test_the_limit_starts_low_and_doubles_while_throughput_grows() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, start=8, clock=clock)
    server = Server(limit, clock, slots=64)
    assert limit.limit == 8
    server.work(6)
    assert 16 <= limit.limit <= 32
    server.work(60)
    assert limit.limit == 64


def test_the_limit_stays_near_what_the_server_works_on() -> None:
    clock = Clock()
    limit = AdaptiveLimit(512, start=4, clock=clock)
    Server(limit, clock, slots=20).work(600)
    assert 16 <= limit.limit <= 40


def test_a_limit_whose_places_are_not_all_used_learns_nothing() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, start=8, clock=clock)
    for _ in range(100):
        clock.now += 1
        for _ in range(16):
            limit.progress(10)
    assert limit.limit == 8


def test_time_outs_halve_what_was_grown() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, start=8, clock=clock)
    Server(limit, clock, slots=64).work(66)
    limit.slow_down(clock.now)
    assert limit.limit == 32


def test_a_server_that_says_what_it_has_is_believed() -> None:
    limit = AdaptiveLimit(64)
    limit.bound(2)
    assert limit.limit == 2
