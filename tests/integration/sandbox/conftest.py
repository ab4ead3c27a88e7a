"""A pool of real containers for the sandbox's tests, and plain calls into it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from g4eval.sandbox.base import CodeJob, CodeTest, JobResult, Reading
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions


class Judge:
    """A running pool, called from plain functions."""

    def __init__(self, options: PoolOptions) -> None:
        self._runner = asyncio.Runner()
        self.sandbox = self._runner.run(DockerSandbox(options).__aenter__())

    def __call__(self, *jobs: CodeJob) -> list[JobResult]:
        async def judge_all() -> list[JobResult]:
            return await asyncio.gather(*map(self.sandbox.judge, jobs))

        return self._runner.run(judge_all())

    def run(self, coroutine):
        return self._runner.run(coroutine)

    def close(self) -> None:
        self._runner.run(self.sandbox.__aexit__(None, None, None))
        self._runner.close()


def program(code: str, *pairs: tuple[str, str], job_id: str = "job", **fields) -> CodeJob:
    """Return a job that reads stdin; without tests, one that must print 6."""
    tests = tuple(CodeTest(input=i, output=o) for i, o in pairs or [("", "6")])
    return CodeJob(job_id=job_id, code=code, tests=tests, **fields)


def function(code: str, *pairs: tuple[str, str], **fields) -> CodeJob:
    """Return a job that calls `f` of class Solution."""
    tests = tuple(CodeTest(input=i, output=o, testtype="functional") for i, o in pairs)
    return CodeJob(job_id="job", code=code, tests=tests, fn_name="f", **fields)


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Run so many processes that want a core all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


HONEST = program("print(int(input()) * 2)", ("3", "6"), ("4", "8"), job_id="honest")
FAIR = Reading.FAIR


@pytest.fixture(scope="session")
def judge(docker_client) -> Iterator[Judge]:
    """One pool with one slot for the whole session."""
    judge = Judge(PoolOptions(slots=1))
    yield judge
    judge.close()


@pytest.fixture
def make_judge(docker_client):
    """Start pools of one's own; all are closed in the end."""
    started: list[Judge] = []

    def make(**options) -> Judge:
        judge = Judge(PoolOptions(**options))
        started.append(judge)
        return judge

    yield make
    for judge in started:
        judge.close()
