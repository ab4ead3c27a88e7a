"""What a slot does with what its container says: nothing is said before a canary vouched for it."""

from concurrent.futures import Future
from typing import Any, cast

from g4eval.sandbox import slot as slot_module
from g4eval.sandbox.base import CodeJob, CodeTest, JobResult, Verdict
from g4eval.sandbox.canary import canary_fault
from g4eval.sandbox.container import Judged, describe_problem
from g4eval.sandbox.frames import StreamError
from g4eval.sandbox.judging import SetupError
from g4eval.sandbox.schedule import Schedule, Task
from g4eval.sandbox.slot import Containers, Slot

TESTS = (CodeTest(input="", output="6"),)
SETUP, LOST = SetupError("it ended before the program began"), StreamError("the container ended")


def judged(verdict: str, *, suspect: bool = False, suspicious: bool = False) -> Judged:
    details = {"clock": "wall", "tests": []}
    result = JobResult(job_id="j", verdict=Verdict(verdict), results=(), details=details)
    return Judged(
        result=result, is_suspect=suspect, is_suspicious=suspicious, overhead_seconds=0.001
    )


RIGHT = judged("AC")


class FakeContainer:
    """Answers each job from its script; a canary is right unless the container is poisoned."""

    def __init__(self, world: "World", number: int) -> None:
        self.world, self.number = world, number
        self.loaded: dict[str, int] = {}
        self.is_spent = False
        self.poisoned = False

    def ran_out_of_memory(self) -> bool:
        return self.world.kills_for_memory

    def judge(
        self, job: CodeJob, problem: object, clock: str = "wall", *, look: bool = False
    ) -> Judged:
        if job.job_id in ("right", "wrong"):
            self.world.log.append(f"canary {self.number}")
            verdict = {"right": "AC", "wrong": "WA"}[job.job_id]
            return judged("RTE" if self.poisoned else verdict)
        self.world.log.append(f"{job.job_id} in {self.number} by {clock}")
        outcome = self.world.script[job.job_id].pop(0)
        if outcome == "poison":
            self.poisoned = True
            return RIGHT
        if isinstance(outcome, Exception):
            self.is_spent = True
            raise outcome
        if self.poisoned:
            return judged("RTE")
        assert isinstance(outcome, Judged)
        return outcome


class World:
    """A slot with fake containers, run until its queue is empty."""

    def __init__(self, **script: list[object]) -> None:
        self.script = script
        self.log: list[str] = []
        self.results: dict[str, JobResult] = {}
        self.made = 0
        self.kills_for_memory = False

    def make(self) -> FakeContainer:
        self.made += 1
        return FakeContainer(self, self.made)

    def make_ahead(self) -> "Future[FakeContainer]":
        made: Future[FakeContainer] = Future()
        made.set_result(self.make())
        return made

    def run(self, *, recycle_after: int = 200) -> None:
        schedule = Schedule()
        names = list(self.script)

        def resolve(name: str):
            def settle(result: JobResult) -> None:
                self.results[name] = result
                if len(self.results) == len(names):
                    schedule.close()

            return settle

        for name in names:
            job = CodeJob(job_id=name, code="", tests=TESTS)
            problem = describe_problem("p", job)
            schedule.add(Task(job=job, problem=problem, resolve=resolve(name)))
        containers = Containers(
            make=cast("Any", self.make),
            make_ahead=cast("Any", self.make_ahead),
            discard=lambda _: None,
            recycle_after=recycle_after,
        )
        Slot(schedule, containers, cast("Any", self.make()), lambda _: None).serve()

    @property
    def verdicts(self) -> dict[str, str]:
        return {name: result.verdict.value for name, result in self.results.items()}

    @property
    def runs(self) -> list[str]:
        return [line for line in self.log if not line.startswith("canary")]


def test_what_is_judged_is_said_after_one_canary_when_the_queue_is_empty() -> None:
    world = World(a=[RIGHT], b=[judged("WA")], c=[RIGHT])
    world.run()
    assert world.verdicts == {"a": "AC", "b": "WA", "c": "AC"}
    assert world.log == ["a in 1 by wall", "b in 1 by wall", "c in 1 by wall"] + ["canary 1"] * 2


def test_a_suspicious_end_calls_the_canary_at_once() -> None:
    world = World(a=[judged("RTE", suspicious=True)], b=[RIGHT])
    world.run()
    assert world.log[:3] == ["a in 1 by wall", "canary 1", "canary 1"]


def test_the_canary_is_called_after_so_many_jobs(monkeypatch) -> None:
    monkeypatch.setattr(slot_module, "CANARY_EVERY", 2)
    world = World(a=[RIGHT], b=[RIGHT], c=[RIGHT])
    world.run()
    assert world.log.index("canary 1") == 2


def test_a_spoilt_container_moves_no_verdict_before_or_after_the_one_that_spoilt_it() -> None:
    world = World(a=[RIGHT] * 2, bad=["poison", judged("WA")], b=[RIGHT] * 2, c=[RIGHT] * 2)
    world.run()
    assert world.verdicts == {"a": "AC", "bad": "WA", "b": "AC", "c": "AC"}
    again = world.runs[4:]
    assert sorted(line.split()[0] for line in again) == ["a", "b", "bad", "c"]
    assert len({line.split()[2] for line in again}) == 4  # each in a container of its own
    assert "1" not in {line.split()[2] for line in again}


def test_one_that_spoils_every_container_gets_the_verdict_it_had_before_it_did() -> None:
    world = World(bad=["poison", "poison"], b=[RIGHT] * 2)
    world.run()
    assert world.verdicts == {"bad": "AC", "b": "AC"}


def test_a_container_lost_twice_is_our_failure_and_costs_no_other_verdict() -> None:
    world = World(a=[RIGHT] * 2, lost=[LOST, LOST], b=[RIGHT])
    world.run()
    assert world.verdicts == {"a": "AC", "lost": "IE", "b": "AC"}
    assert "failed twice: the container ended" in (world.results["lost"].error or "")


def test_who_has_the_kernel_take_the_server_for_memory_is_not_ungraded() -> None:
    world = World(greedy=[LOST, LOST], b=[RIGHT])
    world.kills_for_memory = True
    world.run()
    assert world.verdicts == {"greedy": "MLE", "b": "AC"}
    assert world.results["greedy"].details["official_error_code"] == -5


def test_a_failure_before_the_first_line_is_judged_again_in_a_fresh_container() -> None:
    world = World(a=[RIGHT], odd=[SETUP, RIGHT], b=[RIGHT])
    world.run()
    assert world.verdicts == {"a": "AC", "odd": "AC", "b": "AC"}
    first, second = (line.split()[2] for line in world.runs if line.startswith("odd"))
    assert first != second


def test_three_failures_before_the_first_line_where_others_run_are_the_programs_own() -> None:
    world = World(odd=[SETUP] * 4, b=[RIGHT])
    world.run()
    assert world.verdicts == {"odd": "RTE", "b": "AC"}
    assert world.results["odd"].details["blamed"] == 3
    assert world.results["odd"].details["official_error_code"] == -5
    assert len([line for line in world.runs if line.startswith("odd")]) == 4


def test_failures_before_the_first_line_where_nothing_runs_are_ours() -> None:
    class Spoilt(World):
        def make(self) -> FakeContainer:
            container = super().make()
            container.poisoned = True
            return container

    world = Spoilt(odd=[SETUP] * 4)
    world.run()
    assert world.verdicts == {"odd": "IE"}


def test_a_suspect_time_out_is_judged_once_more_by_its_own_time() -> None:
    world = World(slow=[judged("TLE", suspect=True), RIGHT], b=[RIGHT])
    world.run()
    assert world.verdicts == {"slow": "AC", "b": "AC"}
    assert [line for line in world.runs if line.startswith("slow")] == [
        "slow in 1 by wall",
        "slow in 1 by cpu",
    ]
    (earlier,) = world.results["slow"].details["suspect"]
    assert earlier["verdict"] == "TLE"


def test_a_time_out_is_judged_again_once_and_no_more() -> None:
    world = World(slow=[judged("TLE", suspect=True)] * 2)
    world.run()
    assert world.verdicts == {"slow": "TLE"}


def test_a_container_is_replaced_only_after_a_canary_spoke_for_its_jobs() -> None:
    world = World(a=[RIGHT], b=[RIGHT], c=[RIGHT])
    world.run(recycle_after=1)
    assert world.made >= 3
    assert world.log[:3] == ["a in 1 by wall", "canary 1", "canary 1"]


def test_a_canary_without_a_verdict_is_a_fault() -> None:
    class Gone:
        def judge(self, *_: object, look: bool) -> Judged:
            raise LOST

    assert "no verdict" in (canary_fault(Gone()) or "")  # type: ignore[arg-type]  # judge is all it needs
