"""Completions stored and graded per second, next to lm-eval's dummy model on the same lengths.

    nox -s bench -- pipeline [--completions 20000] [--kilobytes 8] [--skip-lm-eval]

Both sides run in processes of their own, one after the other: 20,000 requests with short prompts,
texts of 8 kB, every text kept and graded. Peak memory is the largest sum over a process tree.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent

TASK = """id: bench_math
version: 1
title: Benchmark of the pipeline
licence: Apache-2.0 (invented)
invented: true
data:
  rows: {rows}
  sources:
    - kind: package
      path: rows.jsonl
      columns: {{sample_id: id, target: answer, problem: problem}}
prompts:
  default: {{template: prompt.jinja, source: invented}}
grader: integer
repeats: 1
max_new_tokens: 4096
"""

LM_EVAL_TASK = """task: bench_math
dataset_path: json
dataset_kwargs: {{data_files: {rows}}}
output_type: generate_until
test_split: train
doc_to_text: "{{{{problem}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 4096}}
filter_list:
  - name: boxed
    filter:
      - {{function: regex, regex_pattern: "boxed.([0-9]+)", group_select: -1}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def main() -> None:
    """Parse the arguments and print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=20_000)
    parser.add_argument("--kilobytes", type=int, default=8)
    parser.add_argument("--skip-lm-eval", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small = g4eval_run(root / "small", arguments.completions // 4, arguments.kilobytes)
        full = g4eval_run(root / "full", arguments.completions, arguments.kilobytes)
        resumed = g4eval_resume(root / "full")
        report("g4eval, a quarter", small)
        report("g4eval", full)
        growth = full["peak_bytes"] / small["peak_bytes"]
        print(f"memory at {arguments.completions:,} over a quarter of it: x{growth:.2f}")
        print(f"resume of the finished run, to the end: {resumed['seconds']:.2f} s in all")
        if not arguments.skip_lm_eval:
            other = lm_eval_run(root / "lm_eval", arguments.completions, arguments.kilobytes)
            report("lm-eval 0.4.13 dummy", other)
            print(f"g4eval's rate is x{full['rate'] / other['rate']:.1f} of lm-eval's")


def g4eval_run(folder: Path, count: int, kilobytes: int) -> dict[str, float]:
    """Run the fake engine end to end in a process of its own."""
    family = folder / "tasks" / "bench"
    family.mkdir(parents=True)
    write_rows(family / "rows.jsonl", count)
    (family / "bench_math.yaml").write_text(TASK.format(rows=count))
    (family / "prompt.jinja").write_text("{{ problem }}\n")
    return measure([*command(folder), f"engine.text_bytes={kilobytes * 1000}"], count)


def g4eval_resume(folder: Path) -> dict[str, float]:
    """Run the same command again: everything is there."""
    return measure([*command(folder), "engine.text_bytes=8000"], 1)


def command(folder: Path) -> list[str]:
    """Return the command line but for the length of the texts."""
    line = "-m g4eval run bench_math --engine fake --run-id r --tasks-dir {0}/tasks"
    line += " --runs-dir {0}/runs --set"
    return [sys.executable, *line.format(folder).split()]


def lm_eval_run(folder: Path, count: int, kilobytes: int) -> dict[str, float]:
    """Run lm-eval's own main function on its dummy model, with texts of the same length."""
    folder.mkdir(parents=True)
    write_rows(folder / "rows.jsonl", count)
    (folder / "bench_math.yaml").write_text(LM_EVAL_TASK.format(rows=folder / "rows.jsonl"))
    script = HERE / "lm_eval_dummy.py"
    return measure([sys.executable, str(script), str(folder), str(kilobytes)], count)


def write_rows(path: Path, count: int) -> None:
    """Write invented problems."""
    with path.open("w") as stream:
        for i in range(count):
            row = {"id": f"bench-{i}", "problem": f"What is {i} plus 1?", "answer": i + 1}
            stream.write(json.dumps(row) + "\n")


def measure(arguments: list[str], count: int) -> dict[str, float]:
    """Run a process; return its seconds, completions a second and peak memory of its tree."""
    begun = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=watch_memory, args=(process.pid, peak), daemon=True)
    watcher.start()
    out, err = process.communicate()
    seconds = time.monotonic() - begun
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{out}\n{err}")
    inner = [float(line.split()[1]) for line in out.splitlines() if line.startswith("SECONDS ")]
    if not inner:
        inner = [session_seconds(err)]
    working = inner[0] or seconds
    return {
        "seconds": seconds,
        "rate": count / working,
        "whole_rate": count / seconds,
        "peak_bytes": float(peak[0]),
    }


def session_seconds(err: str) -> float:
    """Read the seconds of the newest session off g4eval's closing line."""
    for line in err.splitlines():
        if " completions and " in line:
            words = line.split(" in ")[1].split()
            return float(words[0]) * {"s": 1, "min": 60}[words[1]]
    return 0.0


def watch_memory(pid: int, peak: list[int]) -> None:
    """Keep the largest resident size of the process and its children."""
    try:
        root = psutil.Process(pid)
        while root.is_running():
            family = [root, *root.children(recursive=True)]
            peak[0] = max(peak[0], sum(rss(p) for p in family))
            time.sleep(0.05)
    except psutil.Error:
        return


def rss(process: Any) -> int:
    """Return a process's resident bytes; 0 once it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def report(name: str, result: dict[str, float]) -> None:
    """Print one measurement."""
    print(
        f"{name}: {result['rate']:,.0f} completions/s ({result['whole_rate']:,.0f}/s with start "
        f"and table), peak memory {result['peak_bytes'] / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
