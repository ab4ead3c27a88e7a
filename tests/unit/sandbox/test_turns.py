"""The states of a run: every edge of the table in the judge's README, on both sides."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4eval.bundled import bundled_dir
from g4eval.sandbox.base import CodeJob, CodeTest, Verdict
from g4eval.sandbox.frames import StreamError
from g4eval.sandbox.judging import Judging, SetupError
from g4eval.sandbox.protocol import ENDS, End, Lap, Report
from sandboxes.python_judge.turns import FRAME, LOADING, OVER, SETTING_UP, TESTING, Turns

QUICK = Lap(0.01, 0.01, 0.0, 0.0)
STATES = {"setting up": SETTING_UP, "loading": LOADING, "testing": TESTING}
# The first words of a row of the table -> the frames or ends that it speaks of.
EVENTS: dict[str, list[Any]] = {
    "`G`": [(b"G", 0)],
    "`C`": [(b"C", 0)],
    "the next test's answer (": [(b"O", 0)],
    "the next test's answer, the last": [(b"O", 0)],
    "the other mode's answer": [(b"V", 0), (b"D", 0), (b"?", 0)],
    "a frame about another test": [(b"O", 1), (b"X", 1), (b"A", 7), (b"F", 2), (b"C", 1)],
    "`X`": [(b"X", 0), (b"S", 0)],
    "`F`": [(b"F", 0), (b"B", 0)],
    "`A`": [(b"A", 0)],
    "a frame in turn, but longer": ["output"],
    "the process ends": ["died"],
    "its time is over": ["time"],
    "twice the official budget": ["bound"],
    "the host kills it": ["killed"],
}


def edges() -> list[Any]:
    """Return (row, state, what happens, expected cell) for every cell of the table."""
    text = (bundled_dir("sandboxes") / "python_judge" / "README.md").read_text()
    table = text.split("## The states of a run")[1].split("\n\n")[2].splitlines()
    header = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert header[1:] == list(STATES)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert len(rows) == len(EVENTS) + 1
    found = []
    for row in rows[:-1]:  # the host gone: tests/integration/sandbox/test_faults.py
        (name,) = [name for name in EVENTS if row[0].startswith(name)]
        for state, cell in zip(STATES, row[1:], strict=True):
            for event in EVENTS[name]:
                case_id = f"{row[0][:30]}-{state}-{event}"
                found.append(pytest.param(name, state, event, cell, id=case_id))
    return found


@pytest.mark.parametrize(("name", "state", "event", "cell"), edges())
def test_an_edge_of_the_table_is_as_written(name, state, event, cell) -> None:
    turns = Turns(1 if "last" in name else 2, functional=False)
    if state != "setting up":
        turns.take(b"G", 0)
    if state == "testing":
        turns.take(b"C", 0)
    if isinstance(event, str):
        turns.end(event)
    else:
        turns.take(*event)
    if cell.startswith("**"):
        assert (turns.state, turns.why) == (OVER, cell.strip("*"))
    else:
        assert (turns.state, turns.why) == (STATES[cell], None)


def test_every_reason_of_the_table_is_known_to_the_host() -> None:
    reasons = {cell.strip("*") for *_, cell in (e.values for e in edges()) if cell.startswith("*")}
    assert reasons == ENDS


@pytest.mark.parametrize("functional", [False, True])
def test_each_test_is_answered_by_one_frame(functional) -> None:
    answer = b"V" if functional else b"O"
    turns = Turns(3, functional=functional)
    for kind, test in ((b"G", 0), (b"C", 0), (answer, 0), (b"A", 1), (answer, 1)):
        turns.take(kind, test)
    assert (turns.state, turns.answered) == (TESTING, 2)
    turns.take(answer, 1)
    assert (turns.state, turns.why, turns.answered) == (OVER, "protocol", 2)


def test_nothing_moves_a_run_that_is_over() -> None:
    turns = Turns(1, functional=False)
    for kind in (b"G", b"C", b"O"):
        turns.take(kind, 0)
    turns.take(b"O", 1)
    turns.end("died")
    assert (turns.why, turns.answered) == ("done", 1)


def job(n_tests: int, *, functional: bool = False) -> CodeJob:
    tests = tuple(CodeTest(input="1", output="6") for _ in range(n_tests))
    return CodeJob(job_id="j", code="", tests=tests, fn_name="f" if functional else None)


def end(why: str, answered: int, **changes) -> End:
    fields = {
        "run": 1,
        "why": why,
        "answered": answered,
        "last": QUICK,
        "status": 0,
        "out_of_memory": False,
        "clean": True,
        "state": "",
        "processes": 1,
        "cpu_seconds": 0.01,
        "wall_seconds": 0.02,
        "memory_bytes": 1000,
    }
    return End(**{**fields, **changes})


READY = (b"C", 0)


@pytest.mark.parametrize(
    "frames",
    [
        [(b"O", 0)],  # an answer before "ready"
        [READY, READY],
        [READY, (b"O", 1)],
        [READY, (b"O", 0), (b"O", 0)],
        [READY, (b"V", 0)],
        [READY, (b"D", 0)],
        [READY, (b"G", 0)],
        [READY, (b"O", 0), (b"O", 1), (b"O", 2)],
        [READY, (b"X", 0), (b"O", 0)],
        [(b"F", 0), READY],
    ],
)
def test_a_frame_that_the_server_can_not_have_sent_is_our_failure(frames) -> None:
    judging = Judging(job(2))
    reports = [Report(1, test, QUICK, kind, b"6") for kind, test in frames]
    for report in reports[:-1]:
        judging.report(report)
    with pytest.raises(StreamError):
        judging.report(reports[-1])


@pytest.mark.parametrize(
    ("frames", "ended"),
    [
        ([READY, (b"O", 0)], end("done", 1)),  # "done" while a test is open
        ([READY, (b"O", 0), (b"O", 1)], end("died", 2)),  # an end after the last answer
        ([READY, (b"O", 0)], end("died", 2)),  # an answer that never came
        ([READY, (b"O", 0)], end("died", 0)),  # one that came and is not counted
        ([READY], end("setup", 0)),  # it had begun
        ([READY], end("killed", 0)),  # nobody killed it
    ],
)
def test_an_end_that_can_not_follow_is_our_failure(frames, ended) -> None:
    judging = Judging(job(2))
    for kind, test in frames:
        judging.report(Report(1, test, QUICK, kind, b"6"))
    with pytest.raises(StreamError):
        judging.finish(ended)


def test_a_child_that_never_begins_gets_no_verdict() -> None:
    with pytest.raises(SetupError):
        Judging(job(2)).finish(end("setup", 0, status=1))


KINDS = st.sampled_from([b"G", b"C", b"O", b"V", b"X", b"S", b"A", b"F", b"B", b"D", b"?"])


@settings(deadline=None, max_examples=400)
@given(
    n_tests=st.integers(1, 6),
    functional=st.booleans(),
    frames=st.lists(st.tuples(KINDS, st.integers(0, 6), st.booleans()), max_size=14),
    in_turn=st.booleans(),
    why=st.sampled_from(["died", "time", "bound", "output", "killed"]),
    out_of_memory=st.booleans(),
)
def test_no_sequence_of_frames_is_right_without_an_answer_of_its_own_to_every_test(
    n_tests, functional, frames, in_turn, why, out_of_memory
) -> None:
    server, judging = Turns(n_tests, functional=functional), Judging(job(n_tests))
    if functional:
        judging = Judging(job(n_tests, functional=True))
    right: set[int] = set()
    if in_turn:  # most sequences that a real child sends start so
        frames = [(b"G", 0, True), (b"C", 0, True), *frames]
    for kind, test, is_right in frames:
        number = server.answered if in_turn else test
        if server.why is None and server.is_next(kind, number):
            server.take(kind, number)
            payload = (b"6" if not functional else b'{"j": 6}') if is_right else b"x"
            if kind in (b"O", b"V") and is_right:
                right.add(number)
            if kind != b"G":
                judging.report(Report(1, number, QUICK, kind, payload))
        else:
            server.take(kind, number)
    if why == "killed" and not judging.must_kill:
        why = "died"
    server.end(why)
    ended = end(server.why or "", server.answered, out_of_memory=out_of_memory)
    if server.why == "setup":
        with pytest.raises(SetupError):
            judging.finish(ended)
        return
    result = judging.finish(ended)
    answers = [verdict for verdict in result.results if verdict is Verdict.ACCEPTED]
    assert len(answers) <= server.answered
    assert len(result.results) <= min(n_tests, server.answered + 1)
    assert all(test in right for test in range(len(answers)))
    if result.verdict is Verdict.ACCEPTED:
        assert right == set(range(n_tests))
        assert server.answered == n_tests


def test_a_frame_is_a_kind_the_test_and_a_length() -> None:
    assert FRAME.pack(b"O", 258, 3) == b"O\0\0\x01\x02\0\0\0\x03"
