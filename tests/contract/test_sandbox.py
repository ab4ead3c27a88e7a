"""What every Sandbox must do; runs against the Docker pool."""

import asyncio

import pytest

from g4eval.sandbox.base import CodeJob, CodeTest, Reading, Sandbox, Verdict
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions

pytestmark = pytest.mark.docker

TESTS = (CodeTest(input="1\n2\n", output="3\n"), CodeTest(input="2\n2\n", output="4\n"))
CASES = [
    ("print(int(input()) + int(input()))", "AC", ["AC", "AC"]),
    ("print(3)", "WA", ["AC", "WA"]),
    ("while True:\n    pass", "TLE", ["TLE"]),
    ("print('x' * (17 << 20))", "OLE", ["OLE"]),
    ("print(1 // 0)", "RTE", ["RTE"]),
    ("print(", "CE", []),
    ("x = []\nwhile True:\n    x.append(bytearray(b'x' * (64 << 20)))", "MLE", ["MLE"]),
]


@pytest.fixture(params=[DockerSandbox])
def sandbox(request, docker_client) -> Sandbox:
    made: Sandbox = request.param(PoolOptions(slots=1))
    return made


def job(code: str, name: str = "job", **fields) -> CodeJob:
    return CodeJob(job_id=name, code=code, tests=TESTS, **fields)


def test_each_verdict_is_given_where_it_is_due(sandbox) -> None:
    async def run():
        async with sandbox:
            return [
                await sandbox.judge(job(code, time_limit_seconds=20 if verdict == "MLE" else 1))
                for code, verdict, _ in CASES
            ]

    for result, (_, verdict, results) in zip(asyncio.run(run()), CASES, strict=True):
        assert result.verdict == verdict
        assert list(result.results) == results
        assert (result.error is None) is (verdict == "AC")


def test_jobs_judged_at_once_keep_their_own_results(sandbox) -> None:
    async def run():
        async with sandbox:
            jobs = [job(f"print({n})", str(n)) for n in range(6)]
            return await asyncio.gather(*map(sandbox.judge, jobs))

    results = asyncio.run(run())
    assert [result.job_id for result in results] == ["0", "1", "2", "3", "4", "5"]
    assert [len(result.results) for result in results] == [1, 1, 1, 2, 1, 1]


def test_what_a_job_used_is_reported(sandbox) -> None:
    async def run():
        async with sandbox:
            code = "block = bytearray(b'x' * (200 << 20))\nprint(int(input()) + int(input()))"
            return await sandbox.judge(job(code))

    result = asyncio.run(run())
    assert result.verdict is Verdict.ACCEPTED
    assert result.memory_bytes > 200 << 20
    assert 0 < result.cpu_seconds < result.wall_seconds + 0.1


def test_a_job_without_tests_is_our_failure_and_no_verdict(sandbox) -> None:
    async def run():
        async with sandbox:
            return await sandbox.judge(CodeJob(job_id="j", code="print(1)", tests=()))

    result = asyncio.run(run())
    assert result.verdict is Verdict.INTERNAL_ERROR
    assert "no tests" in result.error


def test_an_expected_value_that_is_no_json_is_our_failure(sandbox) -> None:
    async def run():
        async with sandbox:
            bad = (CodeTest(input="1", output="{", testtype="functional"),)
            return await sandbox.judge(CodeJob(job_id="j", code="", tests=bad, fn_name="f"))

    assert asyncio.run(run()).verdict is Verdict.INTERNAL_ERROR


def test_the_fair_reading_knows_real_streams(sandbox) -> None:
    code = "import sys\nfor line in sys.stdin:\n    pass\nprint(3 if line == '2\\n' else 0)"
    first = TESTS[:1]

    async def run():
        async with sandbox:
            return [
                await sandbox.judge(CodeJob(job_id="j", code=code, tests=first, reading=reading))
                for reading in (Reading.OFFICIAL, Reading.FAIR)
            ]

    official, fair = asyncio.run(run())
    assert (official.verdict, fair.verdict) == (Verdict.RUNTIME_ERROR, Verdict.ACCEPTED)
