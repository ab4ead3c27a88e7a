"""The job files of `g4eval judge`: every line is checked before anything runs."""

import json
import os
import threading

import pytest
from click.testing import CliRunner

from g4eval.cli.judge import command, read_jobs
from g4eval.errors import UsageError
from g4eval.sandbox.base import Reading

TEST = {"input": "1", "output": "2", "testtype": "stdin"}
JOB = {"id": "a", "code": "print(2)", "tests": [TEST]}


def read(tmp_path, *rows):
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_jobs(path, Reading.OFFICIAL))


def test_a_job_is_read_with_its_defaults(tmp_path) -> None:
    (job,) = read(tmp_path, JOB)
    assert (job.job_id, job.code, job.fn_name, job.time_limit_seconds) == (
        "a",
        "print(2)",
        None,
        6.0,
    )
    assert [(test.input, test.output) for test in job.tests] == [("1", "2")]


def test_a_job_is_read_with_all_it_says(tmp_path) -> None:
    (job,) = read(tmp_path, {**JOB, "fn_name": "f", "time_limit_seconds": 2})
    assert (job.fn_name, job.time_limit_seconds) == ("f", 2.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": 1}, "'id' and 'code'"),
        ({"code": None}, "'id' and 'code'"),
        ({"tests": []}, "at least one test"),
        ({"tests": [{"input": "1"}]}, "test 0"),
        ({"tests": [TEST, {"input": 1, "output": "2"}]}, "test 1"),
        ({"fn_name": 3}, "'fn_name'"),
        ({"time_limit_seconds": "6"}, "'time_limit_seconds'"),
        ({"time_limit_seconds": 0}, "'time_limit_seconds'"),
        ({"time_limit_seconds": True}, "'time_limit_seconds'"),
        ({"timeout": 6}, "unknown keys ['timeout']"),
        ({"tests": [{**TEST, "testtype": "STDIN"}]}, "test 0: 'testtype' must be 'stdin' or"),
        ({"tests": [TEST, {**TEST, "testtype": None}]}, "test 1: 'testtype'"),
        ({"tests": [{**TEST, "testtype": ["stdin"]}]}, "not ['stdin']"),
    ],
)
def test_a_line_that_is_off_is_refused_with_its_number(tmp_path, change, says) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, JOB, {**JOB, **change})
    assert says in caught.value.what
    assert str(caught.value.where).endswith("jobs.jsonl:2")


def test_a_key_that_stands_twice_is_refused(tmp_path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps(JOB)[:-1] + ', "code": "print(3)"}\n')
    with pytest.raises(UsageError):
        list(read_jobs(path, Reading.OFFICIAL))


def judged(monkeypatch, command_line: list[str], **given) -> tuple[int, list[str], str]:
    """Run the command with a sandbox that only notes ids; return exit code, ids, stderr."""
    seen: list[str] = []

    async def note(jobs, options, *, details) -> None:
        seen.extend(job.job_id for job in jobs)

    monkeypatch.setattr("g4eval.cli.judge._judge", note)
    result = CliRunner().invoke(command, command_line, **given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, seen, str(result.exception)
    return result.exit_code, seen, result.stderr


LINES = "".join(json.dumps({**JOB, "id": name}) + "\n" for name in "abc")


def test_jobs_that_come_through_a_pipe_are_all_judged(tmp_path, monkeypatch) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(LINES,))
    writer.start()
    assert judged(monkeypatch, [str(pipe)])[:2] == (0, ["a", "b", "c"])
    writer.join()


def test_a_dash_is_standard_input(monkeypatch) -> None:
    assert judged(monkeypatch, ["-"], input=LINES)[:2] == (0, ["a", "b", "c"])


def test_a_bad_line_from_a_pipe_is_named_by_what_the_user_named(monkeypatch) -> None:
    code, seen, said = judged(monkeypatch, ["-"], input=LINES + "{]\n")
    assert (code, seen) == (2, [])
    assert "-:4" in said
    assert "g4eval-judge-" not in said


def test_a_device_without_jobs_ends_at_once(monkeypatch) -> None:
    assert judged(monkeypatch, ["/dev/null"])[:2] == (0, [])
