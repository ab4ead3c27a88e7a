"""How long a big report takes: 5,000 samples x 16 repeats x 30 kB of text, and how it feels.

Writes an invented run with `RunStore` (once; `--keep DIR` reuses it), then measures
`g4eval report` in a process of its own: wall time and peak memory. With playwright and a Chromium
it also measures the run page: first paint, filtering, opening a sample.

    python benchmarks/report.py [--samples 5000] [--repeats 16] [--kilobytes 30] [--keep DIR]
    nox -s bench -- report

The limits are 60 s, 500 MB, 2 s to the first paint and 200 ms a filter, on 2 cores.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from g4eval.config import SamplingParams
from g4eval.fingerprint import sha256_json
from g4eval.records import (
    Chat,
    Completion,
    Grade,
    Message,
    Outcome,
    Request,
    Sample,
    StopReason,
    Thought,
)
from g4eval.store.manifest import write_manifest
from g4eval.store.run_store import RunStore

STARTS, ENDS = "ba ce di fo gu ha ki lo mu ne", "rnstlmx"
WORDS = [start + end for start in STARTS.split(" ") for end in ENDS]
TASK = "demo_math"


def main() -> int:
    """Make the run, write the report, print a line a number; 1 where a limit is broken."""
    arguments = _arguments()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="g4eval-bench-"))
    run = folder / "run"
    if not (run / "run.sqlite").is_file():
        started = time.perf_counter()
        asyncio.run(_make_run(run, arguments.samples, arguments.repeats, arguments.kilobytes))
        print(f"run made in {time.perf_counter() - started:.0f} s")
    out = folder / "report"
    shutil.rmtree(out, ignore_errors=True)
    seconds, peak = _measure_report(run, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    largest = max(path.stat().st_size for path in out.glob("data/*/*.js"))
    print(f"report written in {seconds:.1f} s, peak memory {peak / 1e6:.0f} MB")
    print(f"report of {size / 1e6:.0f} MB, largest shard {largest / 1e6:.2f} MB")
    numbers = {"seconds": seconds, "peak_bytes": peak}
    numbers |= _measure_page(next(out.glob("run-*.html")))
    print(json.dumps(numbers))
    limits = {"seconds": 60, "peak_bytes": 500e6, "first_paint_ms": 2000, "filter_ms": 200}
    broken = [name for name, limit in limits.items() if numbers.get(name, 0) > limit]
    print(f"limits broken: {', '.join(broken) or 'none'}")
    if arguments.keep is None:
        shutil.rmtree(folder)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--kilobytes", type=int, default=30, help="text of one completion")
    parser.add_argument("--keep", type=Path, help="folder for the run and the report")
    return parser.parse_args()


def _measure_report(run: Path, out: Path) -> tuple[float, int]:
    """Return wall seconds and peak resident bytes of `g4eval report`."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "g4eval", "report", str(run), "--out", str(out)]
    pid = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"g4eval report failed with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


async def _make_run(folder: Path, n_samples: int, n_repeats: int, kilobytes: int) -> None:
    ids = [f"s{i:05d}" for i in range(n_samples)]
    samples = [
        Sample(sample_id=name, target=i % 1000, groups={"exam": "I" if i % 2 else "II"})
        for i, name in enumerate(ids)
    ]
    plan = _plan(n_samples, n_repeats)
    with RunStore(folder) as store:
        store.set_meta({"run_id": "bench-report", "engine": "fake", "model": "bench"})
        store.set_task(TASK, plan, samples, gated=False)
        write_manifest(folder, _manifest(plan))
        draw = random.Random(0)
        for sample in samples:
            for repeat in range(n_repeats):
                completion, grade, request = _answer(sample, repeat, draw, kilobytes)
                store.expect(request, gated=False)
                await store.add_answer(completion)
                await store.add_grade(grade)


def _answer(
    sample: Sample, repeat: int, draw: random.Random, kilobytes: int
) -> tuple[Completion, Grade, Request]:
    key = sha256_json([sample.sample_id, repeat])
    words = draw.choices(WORDS, k=kilobytes * 1000 // 4)  # three letters and a space a word
    cut = int(len(words) * 0.9)
    right = draw.random() < 0.6
    answer = sample.target if right else sample.target + 1
    truncated = draw.random() < 0.03
    request = Request(
        key=key,
        task_id=TASK,
        task_version=1,
        sample_id=sample.sample_id,
        repeat=repeat,
        prompt=Chat(
            (Message(role="user", content=f"{sample.sample_id}: {' '.join(words[:60])}?"),)
        ),
        sampling=SamplingParams(),
        seed=0,
    )
    completion = Completion(
        key=key,
        task_id=TASK,
        sample_id=sample.sample_id,
        repeat=repeat,
        text=f"{' '.join(words[cut:])} \\boxed{{{answer}}}",
        reasoning=" ".join(words[:cut]),
        thought=Thought.CLOSED,
        stop_reason=StopReason.LENGTH if truncated else StopReason.STOP,
        prompt_tokens=90,
        completion_tokens=len(words),
        started_at=1_780_000_000.0,
        finished_at=1_780_000_100.0 + repeat,
    )
    grade = Grade(
        key=key,
        grader="integer",
        grader_version=1,
        outcome=Outcome.CORRECT if right else Outcome.INCORRECT,
        extraction=str(answer),
        details={"reading": "box"},
    )
    return completion, grade, request


def _plan(n_samples: int, n_repeats: int) -> dict[str, object]:
    return {
        "title": "Benchmark of the report",
        "version": 1,
        "family": "demo",
        "gated": False,
        "invented": True,
        "metrics": ["accuracy"],
        "splits": ["exam"],
        "grader": "integer",
        "grader_version": 1,
        "prompt": "default",
        "prompt_source": "invented",
        "sampling": SamplingParams().model_dump(mode="json"),
        "repeats": n_repeats,
        "settings": {},
        "rows_stated": n_samples,
        "n_selected": n_samples,
        "is_generated": True,
        "data_is_partial": False,
        "source": "benchmarks/report.py",
        "text": "verified",
        "text_sha256": None,
        "published_as": None,
        "published_protocol": None,
    }


def _manifest(plan: dict[str, object]) -> dict[str, object]:
    from g4eval.engines.base import EngineFacts

    facts = EngineFacts(engine="fake", engine_version="1", model="bench")
    return {
        "run_id": "bench-report",
        "g4eval_version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "engine": {**facts.identity(), "fingerprint": facts.fingerprint},
        "engine_declared": [],
        "engine_operation": {},
        "identity": {"seed": 0},
        "config": {"tasks": [TASK]},
        "tasks": {TASK: plan},
        "platform": {},
    }


def _measure_page(page: Path) -> dict[str, float]:
    """Return milliseconds to the first paint, of a filter, and to the text of a sample."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("page not measured: pip install playwright")
        return {}
    chromium = os.environ.get("G4EVAL_CHROMIUM", "/usr/bin/chromium")
    if not Path(chromium).is_file():
        print(f"page not measured: no Chromium at {chromium}")
        return {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page()
        view.goto(page.resolve().as_uri())
        view.wait_for_selector("#explorer[data-ready]")
        paint = view.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        filters = []
        for value in ("never", "mixed", "all", ""):
            view.select_option("select[name=outcome]", value)
            filters.append(
                float(view.get_attribute("#explorer", "data-filter-milliseconds") or "nan")
            )
        started = time.perf_counter()
        view.click(".samples a >> nth=40")
        view.wait_for_selector("#detail .model-text")
        opened = 1000 * (time.perf_counter() - started)
        browser.close()
    print(f"first paint {paint:.0f} ms, filter {max(filters):.0f} ms, a sample {opened:.0f} ms")
    return {"first_paint_ms": paint, "filter_ms": max(filters), "open_ms": opened}


if __name__ == "__main__":
    sys.exit(main())
