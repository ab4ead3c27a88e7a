"""From a run's frames to its result: verdicts and the official checker's list, no container."""

import json
import time
import warnings
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4eval.sandbox.base import CodeJob, CodeTest, Reading, Verdict
from g4eval.sandbox.judging import Judging
from g4eval.sandbox.protocol import End, Lap, Report

QUICK = Lap(0.01, 0.01, 0.0, 0.0)


def job(*outputs: str, fn_name: str | None = None, reading: Reading = Reading.OFFICIAL) -> CodeJob:
    tests = tuple(CodeTest(input="1", output=output) for output in outputs)
    return CodeJob(job_id="j", code="", tests=tests, fn_name=fn_name, reading=reading)


def end(why: str = "done", lap: Lap = QUICK, **changes) -> End:
    fields = {
        "run": 1,
        "why": why,
        "answered": None,  # as many as the frames say
        "last": lap,
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


def report(kind: bytes, payload: bytes = b"", lap: Lap = QUICK) -> Report:
    return Report(1, 0, lap, kind, payload)


def judge(of: CodeJob, *reports: Report, ended: End | None = None, clock: str = "wall"):
    """Feed frames in turn: "ready" first, where the module loads, and each about the next test."""
    judging = Judging(of, clock)
    answered = 0
    if reports and reports[0].kind != b"F":
        judging.report(report(b"C"))
    for one in reports:
        judging.report(replace(one, test=answered))
        answered += one.kind in (b"O", b"V")
    ended = ended or end("killed" if judging.must_kill else "done")
    return judging, judging.finish(replace(ended, answered=answered))


def fields(**values) -> bytes:
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("reports", "ended", "verdict", "results", "official", "code"),
    [
        ([report(b"O", b"6"), report(b"O", b"7")], None, "AC", ["AC", "AC"], [True, True], None),
        ([report(b"O", b"6"), report(b"O", b"8")], None, "WA", ["AC", "WA"], [True, -2], -2),
        ([report(b"X", fields(error="E", timeout=False))], None, "RTE", ["RTE"], [-4], -4),
        ([report(b"X", fields(error="T", timeout=True))], None, "TLE", ["TLE"], [-3], -3),
        ([report(b"F", fields(stage="compile", error="x"))], None, "CE", [], [-4], -4),
        ([report(b"F", fields(stage="import", error="x"))], None, "RTE", [], [-4], -4),
        ([report(b"O", b"sNaN")], None, "RTE", ["RTE"], [-4], -4),
        (
            [report(b"O", b"6"), report(b"B", fields(error="x"))],
            None,
            "RTE",
            ["AC", "RTE"],
            [-2],
            -5,
        ),
        ([report(b"O", b"6")], end("died", status=-11), "RTE", ["AC", "RTE"], [-2], -5),
        ([], end("died", status=-9, out_of_memory=True), "MLE", ["MLE"], [-2], -5),
        ([], end("time"), "TLE", ["TLE"], [-3], -3),
        ([], end("output"), "OLE", ["OLE"], [-2], -2),
        ([report(b"S")], None, "OLE", ["OLE"], [-2], -2),
        ([], end("protocol"), "RTE", ["RTE"], [-2], -5),
    ],
)
def test_a_program_gets_its_verdict_and_the_official_list(
    reports, ended, verdict, results, official, code
) -> None:
    _, result = judge(job("6", "7"), *reports, ended=ended)
    assert result.verdict == verdict
    assert list(result.results) == results
    assert result.details["official_results"] == official
    assert result.details["official_error_code"] == code


@pytest.mark.parametrize(
    ("payload", "expected", "verdict", "official"),
    [
        (b'{"j": 6}', "6", "AC", [True]),
        (b'{"j": 5}', "6", "WA", [False]),
        (b'{"t": ["l", [["p", [["i", "1"]]]]]}', "[[1]]", "WA", [False]),
        (b'{"t": ["x", "Yes"]}', "6", "WA", [False]),
        (
            b'{"t": ["a", "<i8", [2], "01000000000000000200000000000000"]}',
            "[1, 2]",
            "RTE",
            [True, -4],
        ),
        (b"noise", "6", "WA", [False]),
        (b'{"j": 1}', "true", "AC", [True]),
    ],
)
def test_a_function_gets_its_verdict_and_the_official_list(
    payload, expected, verdict, official
) -> None:
    _, result = judge(job(expected, fn_name="f"), report(b"V", payload))
    assert result.verdict == verdict
    assert result.details["official_results"] == official


def test_what_comes_after_the_first_failure_changes_nothing() -> None:
    _, result = judge(job("6", "7"), report(b"O", b"5"), report(b"O", b"7"))
    assert result.results == (Verdict.WRONG_ANSWER,)


def test_a_right_answer_after_a_disarmed_alarm_is_a_time_out() -> None:
    late = Lap(7.0, 0.0, 0.0, 7.0)
    judging, result = judge(job("6", fn_name="f"), report(b"V", b'{"j": 6}', late))
    assert result.verdict is Verdict.TIME_LIMIT
    assert result.details["alarm_disarmed"] is True
    assert not judging.is_suspect


def test_a_right_answer_after_a_swallowed_alarm_counts_as_officially() -> None:
    late = Lap(7.0, 0.0, 0.0, 7.0)
    _, result = judge(job("6", fn_name="f"), report(b"A"), report(b"V", b'{"j": 6}', late))
    assert result.verdict is Verdict.ACCEPTED


def test_a_swallowed_alarm_excuses_one_test_only() -> None:
    late = Lap(7.0, 0.0, 0.0, 7.0)
    six = report(b"V", b'{"j": 6}', late)
    _, result = judge(job("6", "6", fn_name="f"), report(b"A"), six, six)
    assert result.results == (Verdict.ACCEPTED, Verdict.TIME_LIMIT)


TIMED_OUT = fields(error="T", timeout=True)


@pytest.mark.parametrize(
    ("lap", "clock", "suspect"),
    [
        (Lap(6.0, 3.0, 3.0, 0.0), "wall", True),  # others had its core half of the time
        (Lap(6.0, 5.9, 0.1, 0.0), "wall", False),  # it computed all the time
        (Lap(6.0, 0.1, 0.0, 5.9), "wall", False),  # it slept
        (Lap(12.0, 6.0, 6.0, 0.0), "cpu", False),  # it had what it is due
    ],
)
def test_a_time_out_is_suspect_only_if_others_kept_the_program_waiting(lap, clock, suspect) -> None:
    judging, _ = judge(job("6"), report(b"X", TIMED_OUT, lap), clock=clock)
    assert judging.is_suspect is suspect


def test_time_that_several_tests_share_makes_a_late_answer_suspect() -> None:
    together = Lap(0.0, 0.0, 0.0, 0.0)
    late = report(b"O", b"6", Lap(7.0, 7.0, 0.0, 0.0))
    judging, result = judge(job("6", "6"), report(b"O", b"6", together), late)
    assert result.results == (Verdict.ACCEPTED, Verdict.TIME_LIMIT)
    assert judging.is_suspect
    assert "alarm_disarmed" not in result.details


def test_a_program_that_swallows_the_alarm_is_late_all_the_same() -> None:
    late = Lap(7.0, 7.0, 0.0, 0.0)
    _, right = judge(job("6"), report(b"A"), report(b"O", b"6", late))
    assert right.verdict is Verdict.TIME_LIMIT
    _, officially = judge(job("6"), report(b"A"), report(b"O", b"timeout occured\n6", late))
    assert officially.verdict is Verdict.WRONG_ANSWER


def test_a_bound_that_others_used_up_says_nothing_of_the_program() -> None:
    lap = Lap(24.0, 2.0, 22.0, 0.0)
    judging, result = judge(job("6", "6"), report(b"O", b"6"), ended=end("bound", lap), clock="cpu")
    assert (result.verdict, result.results) == (Verdict.INTERNAL_ERROR, ())
    assert "2.0 s of 6 s" in result.error
    assert not judging.is_suspect


def test_with_a_cpu_limit_wall_time_is_not_late() -> None:
    slow = Lap(9.0, 3.0, 6.0, 0.0)
    _, result = judge(job("6"), report(b"O", b"6", slow), clock="cpu")
    assert result.verdict is Verdict.ACCEPTED
    assert result.details["clock"] == "cpu"


def test_passing_close_to_the_limit_is_counted() -> None:
    close = Lap(5.0, 5.0, 0.0, 0.0)
    _, result = judge(job("6", "6"), report(b"O", b"6"), report(b"O", b"6", close))
    assert result.details["near_limit"] == 1


def test_an_opaque_value_is_flagged_for_audit() -> None:
    _, result = judge(job("6", fn_name="f"), report(b"V", b'{"t": ["x", "Yes"]}'))
    assert result.details["opaque_value"] is True


def test_the_fair_reading_allows_a_millionth() -> None:
    close = report(b"O", b"0.33333333")
    _, official = judge(job("0.333333333333"), close)
    _, fair = judge(job("0.333333333333", reading=Reading.FAIR), close)
    assert (official.verdict, fair.verdict) == (Verdict.WRONG_ANSWER, Verdict.ACCEPTED)


def test_the_error_says_what_came_and_what_was_expected() -> None:
    _, result = judge(job("[1]", fn_name="f"), report(b"V", b'{"j": [2]}'))
    assert result.error == "[2] where [1] is expected"


def test_unreadable_fields_of_a_frame_do_no_harm() -> None:
    _, result = judge(job("6"), report(b"X", b"\xff{"))
    assert result.verdict is Verdict.RUNTIME_ERROR


COLLIDING = [["i", format(((1 << 61) - 1) * k, "x")] for k in range(1, 50_000)]
HOSTILE_VALUES = {
    "deep": b'{"j": ' + b"[" * 700 + b"]" * 700 + b"}",
    "deep tree": b'{"t": ' + b'["l", [' * 700 + b"]]" * 700 + b"}",
    "colliding set": json.dumps({"t": ["e", COLLIDING]}).encode(),
    "colliding keys": json.dumps({"t": ["d", [[key, ["n"]] for key in COLLIDING]]}).encode(),
    "fraction": json.dumps({"t": ["q", "1" * 1_000_000, "3" * 1_000_001]}).encode(),
    "array type": b'{"t": ["a", "f8,(2i4", [1], ""]}',
    "array shape": b'{"t": ["a", "<i8", [-1, -1], "0000000000000000"]}',
    "spread array": json.dumps({"t": ["a", "|b1", [200_000, 1], "01" * 200_000]}).encode(),
    "arrays inside": json.dumps(
        {"t": ["l", [["a", "|b1", [200_000, 1], "01" * 200_000]]]}
    ).encode(),
    "signalling": b'{"t": ["m", "sNaN"]}',
    "long integer": b'{"j": 1' + b"0" * 400 + b"}",
    "null": b"null",
    "a text": b'"j"',
    "no tag": b'{"t": []}',
    "a list as a tag": b'{"t": [["l"], []]}',
}


@pytest.mark.parametrize("reading", Reading)
@pytest.mark.parametrize("expected", ["6", "6.5", json.dumps([1] * 1000), "[[1]]", '{"a": 1}'])
@pytest.mark.parametrize("payload", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_a_value_written_by_hand_is_wrong_and_takes_no_time(payload, expected, reading) -> None:
    started = time.process_time()
    _, result = judge(job(expected, fn_name="f", reading=reading), report(b"V", payload))
    assert result.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)
    assert time.process_time() - started < 5  # minutes to hours without the limits


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
TAGS = st.sampled_from("nbifcsylpezdqmagux")
trees = st.recursive(
    st.tuples(TAGS, json_values).map(list),
    lambda inner: st.tuples(TAGS, st.lists(inner, max_size=3) | json_values, inner).map(list),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(
    body=st.builds(lambda t: {"t": t}, trees) | st.builds(lambda j: {"j": j}, json_values),
    expected=json_values,
    reading=st.sampled_from(Reading),
)
def test_no_value_makes_judging_fail(body, expected, reading) -> None:
    of = job(json.dumps(expected), fn_name="f", reading=reading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of comparisons that nobody would make
        _, result = judge(of, report(b"V", json.dumps(body).encode()))
    assert result.verdict in ("AC", "WA", "RTE")
