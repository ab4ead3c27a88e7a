"""Solutions a second through the sandbox, and its overhead; side by side with the official checker.

    python benchmarks/judge.py [--slots 1 2] [--solutions 400] [--official FOLDER --python PYTHON]

FOLDER is a checkout of LiveCodeBench/LiveCodeBench, PYTHON an interpreter with numpy and tqdm. Both
judges get the same solutions, one after the other in rounds, since a shared machine's speed drifts.
Overhead: a slot's time for a solution less the time from its fork to its end.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from g4eval.sandbox.base import CodeJob, CodeTest, Verdict
from g4eval.sandbox.docker_pool import DockerSandbox, PoolOptions

N_TESTS = 15
WORKERS = (1, 2, 4, 12)
PROGRAM = "n = int(input())\ntotal = 0\nfor i in range(n + 1):\n    total += i\nprint(total)\n"
FUNCTION = "class Solution:\n    def total(self, n: int) -> int:\n        return n * (n + 1) // 2\n"
TESTS = tuple(CodeTest(input=str(n), output=str(n * (n + 1) // 2)) for n in range(N_TESTS))
KINDS = {"stdin": (PROGRAM, None), "functional": (FUNCTION, "total")}
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
    right = sum(all(r) for rs in results.values() for r in rs)
    print(json.dumps({"seconds": seconds, "right": right}))
"""


async def ours(slots: int, kind: str, count: int) -> tuple[float, list[float], float]:
    """Return solutions a second, overheads in seconds, and the mean run's seconds."""
    code, fn_name = KINDS[kind]
    async with DockerSandbox(PoolOptions(slots=slots)) as sandbox:
        started = time.perf_counter()
        jobs = [
            CodeJob(job_id=str(n), code=f"# {n}\n{code}", tests=TESTS, fn_name=fn_name)
            for n in range(count)
        ]
        results = await asyncio.gather(*map(sandbox.judge, jobs))
        seconds = time.perf_counter() - started
        assert all(result.verdict is Verdict.ACCEPTED for result in results)
        run = statistics.mean(result.wall_seconds or 0.0 for result in results)
        return count / seconds, sandbox.overheads, run


def official(folder: Path, python: str, workers: int, kind: str, count: int) -> float:
    """Return the official checker's solutions a second."""
    code, fn_name = KINDS[kind]
    tests = {
        "inputs": [test.input for test in TESTS],
        "outputs": [test.output for test in TESTS],
        "fn_name": fn_name,
    }
    sample = {"input_output": json.dumps(tests)}
    job = {"samples": [sample] * count, "codes": [[f"# {n}\n{code}"] for n in range(count)]}
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "job.json").write_text(json.dumps(job))
        (Path(scratch) / "run.py").write_text(OFFICIAL)
        command = [python, "run.py", str(folder.resolve()), str(workers), "job.json"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["right"] == count, answer
    return count / float(answer["seconds"])


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--solutions", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--official", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    for round_number in range(options.rounds):
        for kind in KINDS:
            best = 0.0
            for slots in options.slots:
                rate, overheads, run = asyncio.run(ours(slots, kind, options.solutions))
                best = max(best, rate)
                overheads.sort()
                print(
                    f"round {round_number} {kind}: {slots} slots {rate:.1f}/s, overhead "
                    f"{overheads[len(overheads) // 2] * 1e3:.2f} ms median, "
                    f"{overheads[int(len(overheads) * 0.99)] * 1e3:.2f} ms p99; "
                    f"run {run * 1e3:.2f} ms mean"
                )
            if options.official:
                rates = {
                    workers: official(
                        options.official, options.python, workers, kind, options.solutions // 4
                    )
                    for workers in WORKERS
                }
                listed = ", ".join(f"{workers}: {rate:.1f}" for workers, rate in rates.items())
                print(
                    f"round {round_number} {kind}: official, workers: solutions/s {listed}; "
                    f"ours is {best / max(rates.values()):.1f} x its best"
                )


if __name__ == "__main__":
    main()
