"""`g4eval judge`: code jobs in, verdicts out, in the same order."""

import asyncio
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
_MAX_LINE_BYTES = 1 << 30
_TEST_TYPES = ("stdin", "functional")
_STDIN = Path("-")


@click.command(name="judge")
@click.argument("file", type=PATH)
@click.option("--slots", type=click.IntRange(min=1), help="Containers [cores less one].")
@click.option("--fair", is_flag=True, help="The second reading: real streams, 1e-6 tolerance.")
@click.option("--runtime", help="Docker runtime, such as runsc for gVisor.")
@click.option("--details", is_flag=True, help="Add the official checker's list and times a test.")
def command(
    *, file: Path, slots: int | None, fair: bool, runtime: str | None, details: bool
) -> None:
    """Run the code jobs of FILE (- for standard input), one JSON object a line, in the sandbox.

    A line: {"id", "code", "tests": [{"input", "output", "testtype"}], "fn_name"?,
    "time_limit_seconds"?}. All lines are checked before the first job runs.
    """
    reading = Reading.FAIR if fair else Reading.OFFICIAL
    options = PoolOptions(slots=slots, runtime=runtime)
    with _readable_twice(file) as copy:
        for _ in read_jobs(copy, reading, name=str(file)):  # every line is right, or none is run
            pass
        jobs = read_jobs(copy, reading, name=str(file))
        interrupts.run(_judge(jobs, options, details=details))


@contextmanager
def _readable_twice(file: Path) -> Iterator[Path]:
    """Yield a file of the same content that can be read twice: of a pipe or device, a copy."""
    if file != _STDIN and (file.is_file() or file.is_dir() or not file.exists()):
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="g4eval-judge-", suffix=file.suffix) as copy:
        try:
            with nullcontext(sys.stdin.buffer) if file == _STDIN else file.open("rb") as source:
                shutil.copyfileobj(source, copy)
            copy.flush()
        except OSError as error:
            raise UsageError(f"can't be read: {error.strerror}", where=file) from error
        yield Path(copy.name)


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


def read_jobs(path: Path, reading: Reading, *, name: str | None = None) -> Iterator[CodeJob]:
    """Yield the jobs of a file; UsageError, with file and line, for one that is off.

    `name` is what errors call the file, where it is a copy.
    """
    name = name or str(path)
    lines = read_json_lines(path, unique_keys=True, most_bytes=_MAX_LINE_BYTES, name=name)
    for number, row in lines:
        where = f"{name}:{number}"
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
        kind = fields.get("testtype", "stdin")
        if kind not in _TEST_TYPES:
            known = " or ".join(map(repr, _TEST_TYPES))
            raise UsageError(
                f"test {number}: 'testtype' must be {known}, not {kind!r}", where=where
            )
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
