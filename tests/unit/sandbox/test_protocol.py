"""What host and container say; and that no expected output is ever said."""

import json
import struct

import pytest

from g4eval.sandbox.base import CodeJob, CodeTest
from g4eval.sandbox.container import describe_problem
from g4eval.sandbox.frames import Frame, StreamError
from g4eval.sandbox.protocol import (
    MIN_OUTPUT_BYTES,
    load_message,
    output_limit,
    read_end,
    read_report,
    run_message,
)

END = {
    "run": 3,
    "why": "done",
    "answered": 2,
    "last": {"wall": 1, "cpu": 1, "waited": 0, "slept": 0},
    "status": 0,
    "out_of_memory": False,
    "clean": True,
    "state": "",
    "processes": 1,
    "cpu_seconds": 1.0,
    "wall_seconds": 2.0,
    "memory_bytes": 3,
}


def frame_of(message: object, kind: bytes = b"E") -> Frame:
    return Frame(kind, json.dumps(message).encode())


def test_no_message_to_a_container_holds_an_expected_output() -> None:
    tests = (CodeTest(input="in-71", output="out-4093"), CodeTest(input="in-72", output="out-4094"))
    job = CodeJob(job_id="j", code="print(1)", tests=tests)
    problem = describe_problem("key", job)
    said = load_message(problem.key, problem.fn_name, problem.inputs)
    said += run_message(1, problem.key, job, "wall", problem.output_bytes)
    assert b"in-71" in said
    assert b"print(1)" in said
    assert b"out-" not in said
    assert b"409" not in said


def test_a_run_message_is_a_header_and_the_code() -> None:
    job = CodeJob(job_id="j", code="print('é\ud800')", tests=())
    message = run_message(7, "key", job, "cpu", 100)
    (size,) = struct.unpack_from(">I", message)
    header = json.loads(message[4 : 4 + size])
    assert header == {
        "run": 7,
        "key": "key",
        "limit_seconds": 6.0,
        "clock": "cpu",
        "reading": "official",
        "output_bytes": 100,
        "look": False,
    }
    assert message[4 + size :].decode("utf-8", "surrogatepass") == job.code


def test_the_output_limit_follows_the_longest_expected_output() -> None:
    assert output_limit(["6"]) == MIN_OUTPUT_BYTES
    assert output_limit(["é" * 5_000_000]) == 40_000_000


def test_a_report_carries_the_servers_stamps() -> None:
    payload = struct.pack(">IIdddd", 3, 1, 0.5, 0.25, 0.125, 0.0) + b"Ohello"
    report = read_report(Frame(b"T", payload))
    assert (report.run, report.test, report.kind, report.payload) == (3, 1, b"O", b"hello")
    assert (report.lap.wall, report.lap.cpu, report.lap.waited) == (0.5, 0.25, 0.125)


@pytest.mark.parametrize(
    "frame", [Frame(b"E", b"x" * 60), Frame(b"T", b""), Frame(b"T", b"x" * 40)]
)
def test_a_malformed_report_is_a_stream_error(frame: Frame) -> None:
    with pytest.raises(StreamError):
        read_report(frame)


def test_an_end_is_read_whole() -> None:
    assert read_end(frame_of(END)).wall_seconds == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"why": "won"},
        {"last": {}},
        {"last": 5},
        {"run": None},
        {"answered": None},
        {"cpu_seconds": "x"},
    ],
)
def test_an_end_that_lies_about_its_shape_is_a_stream_error(change: dict[str, object]) -> None:
    with pytest.raises(StreamError):
        read_end(frame_of({**END, **change}))
    with pytest.raises(StreamError):
        read_end(Frame(b"E", b"[" * 100_000))
