"""The page of one run: its manifest in words, its scores by group, and every sample.

The index handed to the page holds outcomes and counts only: one character a try and its tokens.
Texts are in shards.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from g4eval.records import Outcome
from g4eval.report.shards import script_call, write_shards
from g4eval.report.views import RepeatView, RunView, SampleTexts, SampleView, TaskView
from g4eval.report.words import slug

OUTCOMES = (Outcome.CORRECT, Outcome.INCORRECT, Outcome.NO_ANSWER, Outcome.UNGRADED)
TRUNCATED = 4
DISAGREE = 8


def write_run_data(run: RunView, out: Path, *, include_gated: bool) -> set[Path]:
    """Write a run's index and shards below `out/data/<the run's name>/`; return the files."""
    folder = out / "data" / run.slug
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [_write_task(run, task, folder, include_gated=include_gated) for task in run.tasks]
    index = {"run": run.run_id, "folder": f"data/{run.slug}", "tasks": tasks}
    (folder / "index.js").write_text(script_call("index", index), encoding="ascii")
    shards = {
        folder / f"{task['prefix']}-{number}.js" for task in tasks for number in task["shards"]
    }
    return {folder / "index.js", *shards}


def hides_texts(task: TaskView, *, include_gated: bool) -> bool:
    """Whether the report may not show what this task's questions and answers say."""
    return task.is_gated and not include_gated


def _write_task(
    run: RunView, task: TaskView, folder: Path, *, include_gated: bool
) -> dict[str, Any]:
    hidden = hides_texts(task, include_gated=include_gated)
    texts = run.read_texts(task.task_id)
    prefix = slug(task.task_id)
    shard_of = write_shards(_without_content(texts) if hidden else texts, folder, prefix)
    names = sorted({name for sample in task.samples for name in sample.groups})
    values = {name: _values(task.samples, name) for name in names}
    return {
        "id": task.task_id,
        "title": task.title,
        "prefix": prefix,
        "gated": task.is_gated,
        "hidden": hidden,
        "groups": values,
        "ids": [sample.sample_id for sample in task.samples],
        "of": {
            name: [values[name].index(sample.groups.get(name, "")) for sample in task.samples]
            for name in names
        },
        "codes": ["".join(map(code, sample.repeats)) for sample in task.samples],
        "repeats": [[r.repeat for r in sample.repeats] for sample in task.samples]
        if any(_has_gaps(sample) for sample in task.samples)
        else None,
        "tokens": [[r.completion_tokens for r in sample.repeats] for sample in task.samples],
        "shards": [shard_of.get(sample.sample_id, -1) for sample in task.samples],
    }


def code(repeat: RepeatView) -> str:
    """One hexadecimal digit: the outcome's place in OUTCOMES, plus TRUNCATED, plus DISAGREE."""
    number = OUTCOMES.index(repeat.outcome)
    number += TRUNCATED if repeat.is_truncated else 0
    number += DISAGREE if repeat.readings_disagree else 0
    return f"{number:x}"


def _values(samples: tuple[SampleView, ...], name: str) -> list[str]:
    """Return a group's values in the order in which they first appear."""
    return list(dict.fromkeys(sample.groups.get(name, "") for sample in samples))


def _has_gaps(sample: SampleView) -> bool:
    return any(place != r.repeat for place, r in enumerate(sample.repeats))


def _without_content(texts: Iterator[SampleTexts]) -> Iterator[SampleTexts]:
    """Keep of a gated sample what says nothing about its question."""
    for sample in texts:
        yield SampleTexts(
            sample_id=sample.sample_id,
            repeats=tuple(
                replace(
                    r,
                    prompt=None,
                    text=None,
                    reasoning=None,
                    extraction=None,
                    lenient_extraction=None,
                    tests=(),
                    notes=(),
                )
                for r in sample.repeats
            ),
        )
