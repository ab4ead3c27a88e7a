"""One sample of a run as text and as JSON: every repeat with reasoning, extraction and verdict."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g4eval.errors import UsageError, nearest
from g4eval.records import Completion
from g4eval.report.rendered_again import render_again
from g4eval.store.reader import RunReader
from g4eval.store.rows import StoredRow


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlace:
    """Where a task's data and a third party's families are."""

    data_dir: Path
    tasks_dir: Path | None = None


WITHHELD = "(left out: the task is gated; --include-gated shows it)"


def sample_json(
    run: RunReader, sample_id: str, *, include_gated: bool, data: DataPlace | None = None
) -> list[dict[str, Any]]:
    """Return one object a task that has the sample. Texts of gated tasks are None unless asked.

    `data` is where a gated prompt, which no run stores, can be rendered again from.
    """
    found = []
    for task_id, plan in run.tasks().items():
        samples = {s.sample_id: s for s in run.samples(task_id)}
        if sample_id not in samples:
            continue
        shown = include_gated or not plan.gated
        texts = {c.repeat: c for c in run.completions(task_id, sample_id)}
        rows = [row for row in run.rows(task_id) if row.sample_id == sample_id]
        found.append(
            {
                "task": task_id,
                "sample_id": sample_id,
                "target": samples[sample_id].target,
                "gated": plan.gated,
                "prompt": _prompt(run, task_id, plan.prompt, rows, data) if shown else None,
                "repeats": [_repeat(row, texts[row.repeat], shown=shown) for row in rows],
            }
        )
    if not found:
        known = {s.sample_id for task_id in run.tasks() for s in run.samples(task_id)}
        raise UsageError(
            f"{sample_id!r} is not a sample of this run",
            where=run.folder,
            hint=nearest(sample_id, known),
        )
    return found


def render_sample(
    run: RunReader, sample_id: str, *, include_gated: bool, data: DataPlace | None = None
) -> str:
    """Return the same as text."""
    lines: list[str] = []
    for sample in sample_json(run, sample_id, include_gated=include_gated, data=data):
        lines += list(_sample_lines(sample))
    return "\n".join(lines) + "\n"


def _sample_lines(sample: dict[str, Any]) -> Iterator[str]:
    yield f"{sample['task']} {sample['sample_id']}, target {sample['target']!r}"
    if sample["gated"] and all(r["text"] is None for r in sample["repeats"]):
        yield WITHHELD
    elif sample["gated"] and sample["prompt"] is None:
        yield "(no run stores a gated prompt: --data-dir renders it again)"
    for turn in sample["prompt"] or ():
        yield f"\n[{turn['role']}]\n{turn['content']}"
    for repeat in sample["repeats"]:
        tokens = repeat["completion_tokens"]
        yield (
            f"\n--- repeat {repeat['repeat']}: {repeat['outcome']}, extracted "
            f"{repeat['extraction']!r}, stopped by {repeat['stop_reason']}"
            + (f", {tokens:,} tokens" if tokens is not None else "")
            + (f", verdict {repeat['verdict']}" if repeat["verdict"] else "")
        )
        if repeat["lenient_extraction"] not in (None, repeat["extraction"]):
            yield f"    the lenient reading extracts {repeat['lenient_extraction']!r}"
        if repeat["details"]:
            yield "    " + ", ".join(f"{k}: {v}" for k, v in repeat["details"].items())
        if repeat["reasoning"]:
            yield f"[reasoning]\n{repeat['reasoning']}"
        if repeat["text"] is not None:
            yield f"[text]\n{repeat['text']}"


def _prompt(
    run: RunReader, task_id: str, variant: str, rows: list[StoredRow], data: DataPlace | None
) -> list[dict[str, str]] | None:
    """Return the prompt of the first repeat; later ones may show options in another order."""
    for row in rows:
        if row.prompt_hash is None:
            continue
        messages = run.prompt(row.prompt_hash)
        if messages is None and data is not None:
            messages = render_again(
                row.prompt_hash,
                task_id=task_id,
                variant=variant,
                sample_id=row.sample_id,
                repeat=row.repeat,
                data_dir=data.data_dir,
                tasks_dir=data.tasks_dir,
            )
        if messages is not None:
            return [{"role": m.role, "content": m.content} for m in messages]
    return None


def _repeat(row: StoredRow, completion: Completion, *, shown: bool) -> dict[str, Any]:
    grade = row.grade
    return {
        "repeat": row.repeat,
        "outcome": row.outcome.value,
        "extraction": grade.extraction if grade else None,
        "lenient_extraction": grade.lenient_extraction if grade else None,
        "verdict": grade.verdict if grade else None,
        "details": dict(grade.details) if grade else {},
        "stop_reason": row.stop_reason.value,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "reasoning": completion.reasoning if shown else None,
        "text": completion.text if shown else None,
    }
