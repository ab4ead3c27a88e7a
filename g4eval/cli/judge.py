"""`g4eval judge`: code jobs in, verdicts out, in the same order."""

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from g4eval import interrupts
from g4eval.cli.options import PATH
from g4eval.errors import UsageError
from g4eval.jsonlines import read_json_lines, write_json_lines
from g4eval.sandbox.base import CodeJob, CodeTest, JobResult, Reading
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions

_IN_FLIGHT = 256
_KEYS = {"id", "code", "tests", "fn_name", "time_limit_seconds"}
_MAX_SECONDS = 600.0


@click.command(name="judge")
@click.argument("file", type=PATH)
@click.option("--slots", type=click.IntRange(min=1), help="Containers [cores less one].")
@click.option("--fair", is_flag=True, help="The second reading: real streams, 1e-6 tolerance.")
@click.option("--runtime", help="Docker runtime, such as runsc for gVisor.")
@click.option("--details", is_flag=True, help="Add the official checker's list and times a test.")
def command(
    *, file: Path, slots: int | None, fair: bool, runtime: str | None, details: bool
) -> None:
    """Run the code jobs of FILE, one JSON object a line, in the sandbox.

    A line: {"id", "code", "tests": [{"input", "output", "testtype"}], "fn_name"?,
    "time_limit_seconds"?}. All lines are checked before the first job runs.
    """
    reading = Reading.FAIR if fair else Reading.OFFICIAL
    for _ in read_jobs(file, reading):  # every line is right, or nothing is run
        pass
    options = PoolOptions(slots=slots, runtime=runtime)
    interrupts.run(_judge(read_jobs(file, reading), options, details=details))


async def _judge(jobs: Iterator[CodeJob], options: PoolOptions, *, details: bool) -> None:
    """Judge with a bounded number of jobs in flight; print each result once those before are."""
    stdout = sys.stdout
    done = 0
    async with DockerSandbox(options) as sandbox:
        waiting: deque[asyncio.Task[JobResult]] = deque()

        async def print_first() -> None:
            nonlocal done
            result = await waiting.popleft()
            write_json_lines(stdout, [_as_json(result, details=details)])
            stdout.flush()
            done += 1
            if done % 500 == 0:
                click.echo(f"{done:,} judged", err=True)

        for job in jobs:
            waiting.append(asyncio.create_task(sandbox.judge(job)))
            if len(waiting) == _IN_FLIGHT:
                await print_first()
        while waiting:
            await print_first()
    click.echo(f"{done:,} judged", err=True)


def read_jobs(path: Path, reading: Reading) -> Iterator[CodeJob]:
    """Yield the jobs of a file; UsageError, with file and line, for one that is off."""
    for number, row in read_json_lines(path):
        where = f"{path}:{number}"
        if unknown := sorted(set(row) - _KEYS):
            raise UsageError(f"unknown keys {unknown}", where=where, hint=f"known: {sorted(_KEYS)}")
        seconds = row.get("time_limit_seconds", 6.0)
        fn_name = row.get("fn_name")
        if not isinstance(row.get("id"), str) or not isinstance(row.get("code"), str):
            raise UsageError("'id' and 'code' must be texts", where=where)
        if fn_name is not None and not isinstance(fn_name, str):
            raise UsageError(f"'fn_name' must be a text or null, not {fn_name!r}", where=where)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise UsageError(f"'time_limit_seconds' must be a number, not {seconds!r}", where=where)
        if not 0 < seconds <= _MAX_SECONDS:
            raise UsageError(
                f"'time_limit_seconds' must be over 0 and at most {_MAX_SECONDS:g}", where=where
            )
        yield CodeJob(
            job_id=row["id"],
            code=row["code"],
            tests=_tests(row.get("tests"), where),
            fn_name=fn_name,
            time_limit_seconds=float(seconds),
            reading=reading,
        )


def _tests(value: Any, where: str) -> tuple[CodeTest, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError("'tests' must be a list of at least one test", where=where)
    tests = []
    for number, test in enumerate(value):
        fields = test if isinstance(test, dict) else {}
        given, expected = fields.get("input"), fields.get("output")
        if not isinstance(given, str) or not isinstance(expected, str):
            raise UsageError(f"test {number} must hold 'input' and 'output', texts", where=where)
        kind = str(fields.get("testtype", "stdin"))
        tests.append(CodeTest(input=given, output=expected, testtype=kind))
    return tuple(tests)


def _as_json(result: JobResult, *, details: bool) -> dict[str, Any]:
    row = {
        "id": result.job_id,
        "verdict": result.verdict.value,
        "results": [verdict.value for verdict in result.results],
        "error": result.error,
        "cpu_seconds": result.cpu_seconds,
        "wall_seconds": result.wall_seconds,
        "memory_bytes": result.memory_bytes,
    }
    return {**row, "details": dict(result.details)} if details else row
