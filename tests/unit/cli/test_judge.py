"""The job files of `g4eval judge`: every line is checked before anything runs."""

import json

import pytest

from g4eval.cli.judge import read_jobs
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
    ],
)
def test_a_line_that_is_off_is_refused_with_its_number(tmp_path, change, says) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, JOB, {**JOB, **change})
    assert says in caught.value.what
    assert str(caught.value.where).endswith("jobs.jsonl:2")
