"""Judge the recorded LiveCodeBench solutions and compare with the official checker's verdicts.

    python benchmarks/recorded_solutions.py DATA_DIR/livecodebench [--count N] [--part I/N]
        [--slots N] [--fair]

By hand; docs/verification.md keeps the result. With --fair, every solution also gets the second
reading, and the table says how many verdicts differ. DATA_DIR: the benchmark data's folder.
"""

import argparse
import asyncio
import hashlib
import json
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from g4eval.jsonlines import read_json_lines
from g4eval.sandbox.base import CodeJob, CodeTest, JobResult, Reading, Verdict
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions

Row = dict[str, Any]
_TESTS: dict[str, tuple[CodeTest, ...]] = {}


@cache
def load_rows(folder: Path) -> tuple[list[Row], dict[str, Row]]:
    """Return the solutions, and the problems by question id."""
    solutions = [row for _, row in read_json_lines(folder / "solutions.jsonl.gz")]
    problems = [row for _, row in read_json_lines(folder / "problems.jsonl.gz")]
    return solutions, {row["question_id"]: row for row in problems}


def pick_rows(rows: list[Row], count: int | None) -> list[Row]:
    """Return the first `count` rows in the order of a hash of what they are."""

    def place(row: Row) -> str:
        name = f"{row['question_id']} {row['model']} {row['scenario']} {row['code']}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(rows, key=place)[:count]


def make_job(row: Row, problems: dict[str, Row], reading: Reading = Reading.OFFICIAL) -> CodeJob:
    """Return the job of one recorded solution."""
    problem = problems[row["question_id"]]
    tests = _TESTS.setdefault(
        row["question_id"],
        tuple(
            CodeTest(input=test["input"], output=test["output"], testtype=test["testtype"])
            for test in problem["public_test_cases"] + problem["private_test_cases"]
        ),
    )
    metadata = problem["metadata"]
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    return CodeJob(
        job_id=row["question_id"],
        code=row["code"],
        tests=tests,
        fn_name=metadata.get("func_name"),
        reading=reading,
    )


async def judge(jobs: list[CodeJob], slots: int) -> list[JobResult]:
    """Judge all jobs and print the overhead."""
    async with DockerSandbox(PoolOptions(slots=slots)) as sandbox:
        results = await asyncio.gather(*map(sandbox.judge, jobs))
        overheads = sorted(sandbox.overheads)
    middle, high = overheads[len(overheads) // 2], overheads[int(len(overheads) * 0.99)]
    print(f"overhead {middle * 1e3:.2f} ms median, {high * 1e3:.2f} ms p99")
    return results


def compare(rows: list[Row], results: list[JobResult]) -> None:
    """Print how the verdicts agree, and each that doesn't."""
    table: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    for row, result in zip(rows, results, strict=True):
        official, ours = row["checker_on_shipped_tests"], result.verdict is Verdict.ACCEPTED
        table[f"official {official}, ours {result.verdict.value}"] += 1
        flags.update(
            name for name in ("suspect", "near_limit", "opaque_value") if name in result.details
        )
        code = row["checker_error_code"]
        if official is not None and official is not ours:
            print("verdict differs:", row["question_id"], row["model"], row["scenario"], result)
        elif code is not None and code != result.details.get("official_error_code"):
            print("code differs:", row["question_id"], row["model"], row["scenario"], code, result)
    for line, count in sorted(table.items()):
        print(f"{count:6,} {line}")
    print("flags:", dict(flags))


def main() -> None:
    """Judge, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--part", default="1/1", help="I/N: the I-th of N parts")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--fair", action="store_true")
    options = parser.parse_args()
    rows, problems = load_rows(options.folder)
    part, parts = map(int, options.part.split("/"))
    chosen = pick_rows(rows, options.count)[part - 1 :: parts]
    started = time.monotonic()
    results = asyncio.run(judge([make_job(row, problems) for row in chosen], options.slots))
    print(f"{len(chosen):,} solutions in {time.monotonic() - started:.0f} s")
    compare(chosen, results)
    if options.fair:
        jobs = [make_job(row, problems, Reading.FAIR) for row in chosen]
        fair = asyncio.run(judge(jobs, options.slots))
        pairs = Counter(
            f"official reading {one.verdict.value}, fair {two.verdict.value}"
            for one, two in zip(results, fair, strict=True)
            if (one.verdict is Verdict.ACCEPTED) is not (two.verdict is Verdict.ACCEPTED)
        )
        for line, count in sorted(pairs.items()):
            print(f"{count:6,} {line}")


if __name__ == "__main__":
    main()
