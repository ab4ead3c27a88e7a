"""Solutions a second through the sandbox and its overhead, beside the official checker's.

    python benchmarks/judge.py [--slots 1 2] [--solutions 400] [--data DATA_DIR/livecodebench]
                               [--official FOLDER --python PYTHON] [--against CHECKOUT]

Three loads: a tiny program and a tiny function with 15 tests each, where all time is the judge's
own, and, with --data, recorded solutions that meet no time limit, as a run has them. FOLDER is a
checkout of LiveCodeBench/LiveCodeBench, PYTHON an interpreter with numpy and tqdm. Both judges get
the same solutions, in turn, since a shared machine's speed drifts. Overhead: a slot's time for a
solution less the time from its fork to its end. CHECKOUT is another commit's tree, whose image is
built: each load is judged by it and by this one, in turn, --rounds times; the medians of the rates
and of their ratio are printed.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorded_solutions import load_rows, make_job, pick_rows

from g4eval.sandbox.base import CodeJob, CodeTest, Verdict
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions

N_TESTS = 15
WORKERS = (1, 2, 4, 12)
WHOLE_RUN = 1055 * 10
PROGRAM = "n = int(input())\ntotal = 0\nfor i in range(n + 1):\n    total += i\nprint(total)\n"
FUNCTION = "class Solution:\n    def total(self, n: int) -> int:\n        return n * (n + 1) // 2\n"
TESTS = tuple(CodeTest(input=str(n), output=str(n * (n + 1) // 2)) for n in range(N_TESTS))
KINDS = {"stdin": (PROGRAM, None), "functional": (FUNCTION, "total")}
TIME_LIMIT = -3  # the official code
OFFICIAL = """
import json, os, sys, time
folder, workers, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, folder)
from lcb_runner.evaluation.compute_code_generation_metrics import evaluate_generations
if __name__ == "__main__":
    job = json.load(open(path))
    started = time.perf_counter()
    results, _ = evaluate_generations(job["samples"], job["codes"], False, workers, 6)
    seconds = time.perf_counter() - started
    right = sum(all(x > 0 for x in r) for rs in results.values() for r in rs)
    print(json.dumps({"seconds": seconds, "right": right}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Solutions to judge, and how many of them are right."""

    name: str
    jobs: list[CodeJob]
    n_right: int
    data: str = ""  # where the recorded ones are


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What our judge did with a load."""

    rate: float  # solutions a second
    overhead_median: float  # seconds
    overhead_p99: float
    run_mean: float  # seconds from fork to end


def tiny_load(kind: str, count: int) -> Load:
    """Return `count` copies of a tiny solution, no two alike."""
    code, fn_name = KINDS[kind]
    jobs = [
        CodeJob(job_id=str(n), code=f"# {n}\n{code}", tests=TESTS, fn_name=fn_name)
        for n in range(count)
    ]
    return Load(name=kind, jobs=jobs, n_right=count)


def recorded_load(folder: Path, count: int) -> Load:
    """Return recorded solutions, in the order of a hash, a problem's own together."""
    rows, problems = load_rows(folder)
    judged = [
        row
        for row in rows
        if row["checker_on_shipped_tests"] is not None and row["checker_error_code"] != TIME_LIMIT
    ]
    chosen = sorted(pick_rows(judged, count), key=lambda row: str(row["question_id"]))
    n_right = sum(row["checker_on_shipped_tests"] for row in chosen)
    return Load(
        name="recorded",
        jobs=[make_job(row, problems) for row in chosen],
        n_right=n_right,
        data=str(folder.resolve()),
    )


async def ours(load: Load, slots: int) -> Speed:
    """Judge a load in `slots` containers."""
    async with DockerSandbox(PoolOptions(slots=slots)) as sandbox:
        started = time.perf_counter()
        results = await asyncio.gather(*map(sandbox.judge, load.jobs))
        seconds = time.perf_counter() - started
        n_right = sum(result.verdict is Verdict.ACCEPTED for result in results)
        assert n_right == load.n_right, f"{n_right} right, not {load.n_right}"
        overheads = sorted(sandbox.overheads)
        return Speed(
            rate=len(results) / seconds,
            overhead_median=overheads[len(overheads) // 2],
            overhead_p99=overheads[int(len(overheads) * 0.99)],
            run_mean=statistics.mean(result.wall_seconds or 0.0 for result in results),
        )


def official(load: Load, folder: Path, python: str, workers: int) -> float:
    """Return the official checker's solutions a second."""
    samples = [{"input_output": json.dumps(_official_tests(job))} for job in load.jobs]
    task: dict[str, Any] = {"samples": samples, "codes": [[job.code] for job in load.jobs]}
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "job.json").write_text(json.dumps(task))
        (Path(scratch) / "run.py").write_text(OFFICIAL)
        command = [python, "run.py", str(folder.resolve()), str(workers), "job.json"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["right"] != load.n_right:  # more workers than cores: slow solutions time out
        print(f"  official, {workers} workers: {answer['right']} right, not {load.n_right}")
    return len(load.jobs) / float(answer["seconds"])


def _official_tests(job: CodeJob) -> dict[str, Any]:
    return {
        "inputs": [test.input for test in job.tests],
        "outputs": [test.output for test in job.tests],
        "fn_name": job.fn_name,
    }


def against(load: Load, checkout: Path, slots: int, rounds: int) -> None:
    """Print the solutions a second of another checkout and of this one, judged in turn."""
    here = Path(__file__).resolve().parent.parent
    pairs = []
    for turn in range(rounds):
        order = (checkout, here) if turn % 2 == 0 else (here, checkout)
        rates = {tree: _rate_of(load, tree, slots) for tree in order}
        pairs.append((rates[checkout], rates[here]))
    theirs, mine = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratio = statistics.median(now / before for before, now in pairs)
    print(f"  {slots} slots: {theirs:.1f}/s there, {mine:.1f}/s here; {ratio:.3f}", flush=True)


def _rate_of(load: Load, tree: Path, slots: int) -> float:
    """Judge a load by the judge of a checkout, in a process of its own."""
    command = [sys.executable, __file__, "--rate-of", load.name, "--slots", str(slots)]
    command += ["--solutions", str(len(load.jobs)), *(("--data", load.data) if load.data else ())]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    done = subprocess.run(
        command, env=environment, cwd=tree, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Print a line a measurement, and what a whole run would cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--solutions", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--official", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rate-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    loads = [tiny_load(kind, options.solutions) for kind in KINDS]
    if options.data:
        loads.append(recorded_load(options.data, options.solutions))
    if options.rate_of:
        (load,) = [load for load in loads if load.name == options.rate_of]
        print(asyncio.run(ours(load, options.slots[0])).rate)
        return
    if options.against:
        for load in loads:
            print(f"{load.name}, {len(load.jobs)} solutions, {options.rounds} pairs", flush=True)
            for slots in options.slots:
                against(load, options.against, slots, options.rounds)
        return
    for round_number in range(options.rounds):
        for load in loads:
            print(f"round {round_number}, {load.name}, {len(load.jobs)} solutions", flush=True)
            best = max(report_ours(load, slots) for slots in options.slots)
            if options.official:
                rates = {
                    workers: official(load, options.official, options.python, workers)
                    for workers in WORKERS
                }
                listed = ", ".join(f"{workers}: {rate:.1f}" for workers, rate in rates.items())
                ratio = best / max(rates.values())
                print(f"  official, workers: solutions/s: {listed}; ours is {ratio:.1f} x its best")


def report_ours(load: Load, slots: int) -> float:
    """Measure and print our judge; return its solutions a second."""
    speed = asyncio.run(ours(load, slots))
    minutes = WHOLE_RUN / speed.rate / 60
    print(
        f"  {slots} slots: {speed.rate:.1f}/s, overhead {speed.overhead_median * 1e3:.2f} ms "
        f"median, {speed.overhead_p99 * 1e3:.2f} ms p99; run {speed.run_mean * 1e3:.2f} ms mean; "
        f"{WHOLE_RUN:,} solutions: {minutes:.1f} min",
        flush=True,
    )
    return speed.rate


if __name__ == "__main__":
    main()
