"""Which job a slot takes next."""

import threading

from g4eval.sandbox.base import CodeJob
from g4eval.sandbox.container import Problem
from g4eval.sandbox.schedule import Schedule, Task


def task(name: str, key: str = "p") -> Task:
    problem = Problem(key=key, fn_name=None, inputs=(), output_bytes=0, input_bytes=0, fault=None)
    return Task(
        job=CodeJob(job_id=name, code="", tests=()), problem=problem, resolve=lambda _: None
    )


def take(schedule: Schedule, *loaded: str) -> str:
    taken = schedule.take(loaded)
    assert taken is not None
    return taken.job.job_id


def test_jobs_come_in_the_order_they_were_added() -> None:
    schedule = Schedule()
    for name in ("a", "b", "c"):
        schedule.add(task(name))
    assert [take(schedule) for _ in range(3)] == ["a", "b", "c"]


def test_a_slot_prefers_the_problem_it_has_loaded() -> None:
    schedule = Schedule()
    schedule.add(task("a", "p"))
    schedule.add(task("b", "q"))
    assert take(schedule, "q") == "b"


def test_a_slot_without_one_prefers_a_problem_that_no_other_slot_works_on() -> None:
    schedule = Schedule()
    for name, key in (("a1", "p"), ("a2", "p"), ("b1", "q")):
        schedule.add(task(name, key))
    assert [take(schedule), take(schedule), take(schedule)] == ["a1", "b1", "a2"]


def test_a_job_judged_before_waits_like_any_other() -> None:
    schedule = Schedule()
    again = task("again")
    schedule.add(again)
    schedule.add(task("b"))
    assert take(schedule) == "again"
    schedule.add(again)
    assert [take(schedule), take(schedule)] == ["b", "again"]


def test_a_slot_that_does_not_wait_is_told_that_there_is_nothing() -> None:
    schedule = Schedule()
    assert schedule.take((), wait=False) is None
    got: list[Task | None] = []
    waiter = threading.Thread(target=lambda: got.append(schedule.take(())))
    waiter.start()
    waiter.join(0.1)
    assert got == []
    late = task("late")
    schedule.add(late)
    waiter.join(5)
    assert got == [late]


def test_a_problem_whose_job_is_held_is_free_for_others() -> None:
    schedule = Schedule()
    first = task("a1", "p")
    for one in (first, task("a2", "p"), task("b1", "q"), task("b2", "q")):
        schedule.add(one)
    assert take(schedule) == "a1"
    schedule.hold(first)
    assert take(schedule) == "a2"


def test_closing_gives_back_what_waits_and_runs_and_wakes_every_slot() -> None:
    schedule = Schedule()
    first, second, third = task("a"), task("b"), task("c")
    schedule.add(first)
    schedule.add(second)
    schedule.add(third)
    assert take(schedule) == "a"
    schedule.hold(first)
    assert {left.job.job_id for left in schedule.close()} == {"a", "b", "c"}
    assert schedule.take(()) is None
