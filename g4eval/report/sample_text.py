"""One sample of a run as text and as JSON: every repeat with reasoning, extraction and verdict."""

from collections.abc import Iterator
from typing import Any

from g4eval.errors import UsageError, nearest
from g4eval.records import Completion
from g4eval.store.reader import RunReader, StoredRow

WITHHELD = "(left out: the task is gated; --include-gated shows it)"


def sample_json(run: RunReader, sample_id: str, *, include_gated: bool) -> list[dict[str, Any]]:
    """Return one object a task that has the sample. Texts of gated tasks are None unless asked."""
    found = []
    for task_id, plan in run.tasks().items():
        samples = {s.sample_id: s for s in run.samples(task_id)}
        if sample_id not in samples:
            continue
        shown = include_gated or not plan["gated"]
        texts = {c.repeat: c for c in run.completions(task_id, sample_id)}
        rows = [row for row in run.rows(task_id) if row.sample_id == sample_id]
        found.append(
            {
                "task": task_id,
                "sample_id": sample_id,
                "target": samples[sample_id].target,
                "gated": plan["gated"],
                "prompt": _prompt(run, rows) if shown else None,
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


def render_sample(run: RunReader, sample_id: str, *, include_gated: bool) -> str:
    """Return the same as text."""
    lines: list[str] = []
    for sample in sample_json(run, sample_id, include_gated=include_gated):
        lines += list(_sample_lines(sample))
    return "\n".join(lines) + "\n"


def _sample_lines(sample: dict[str, Any]) -> Iterator[str]:
    yield f"{sample['task']} {sample['sample_id']}, target {sample['target']!r}"
    if sample["gated"] and sample["prompt"] is None:
        yield WITHHELD
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


def _prompt(run: RunReader, rows: list[StoredRow]) -> list[dict[str, str]] | None:
    for row in rows:
        messages = run.prompt(row.prompt_hash) if row.prompt_hash else None
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
