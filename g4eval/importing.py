"""Recorded completions from anywhere, as JSON lines, into a normal run.

All lines are checked before anything is written. docs/import.md describes the format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import g4eval
from g4eval.config import RunConfig
from g4eval.engines.base import EngineFacts
from g4eval.errors import ConfigError, ImportLineError, nearest
from g4eval.graders.pool import GraderPool
from g4eval.jsonlines import read_json_lines
from g4eval.pipeline import TaskPlan, graded_tasks, render_request
from g4eval.planning import find_profile, plan_tasks
from g4eval.records import Completion, Message
from g4eval.responses import build_completion, parse_stop_reason
from g4eval.session import OpenedRun, Reporter, open_run

FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "sample_id": str,
    "repeat": int,
    "text": str,
    "reasoning": (str, type(None)),
    "stop_reason": (str, type(None)),
    "prompt_tokens": (int, type(None)),
    "completion_tokens": (int, type(None)),
    "target": str,
}
REQUIRED = ("sample_id", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """What the first reading of an import file found."""

    lines: int
    repeats: int  # the largest repeat and one
    ignored: tuple[str, ...]  # keys that mean nothing here


async def import_session(task_id: str, path: Path, config: RunConfig, reporter: Reporter) -> Path:
    """Grade the completions in `path` as one task of a run; return the run's folder.

    Raises ImportLineError, with the line, before anything is written: bad JSON, a field that is
    off, an unknown sample, a (sample, repeat) that is there twice or is stored with another text.
    """
    config = config.model_copy(update={"tasks": (task_id,), "repeats": 1})
    profile = find_profile(config)
    (plan,) = plan_tasks(config, profile)
    checked = check_lines(path, plan)
    plan = replace(plan, repeats=checked.repeats)
    if checked.ignored:
        reporter.note(f"keys that are ignored: {', '.join(checked.ignored)}")
    facts = _facts(config)
    with open_run(config, profile, (plan,), facts, is_generated=False) as run:
        for line, completion, _ in _completions(path, plan, run, facts):
            stored = run.store.completion(completion.key)
            if stored is not None and _answer(stored) != _answer(completion):
                raise ImportLineError(
                    f"{completion.sample_id!r}, repeat {completion.repeat}, is stored with another "
                    "text",
                    where=f"{path}:{line}",
                    hint="completions are never changed: import into another --run-id",
                )
        watch = reporter.start({task_id: checked.lines}, {task_id: 0}, run.store)
        pool = GraderPool(graded_tasks(run.plan))
        async with pool.saving_to(run.store, watch) as grading:
            for _, completion, messages in _completions(path, plan, run, facts):
                if not run.store.has_completion(completion.key):
                    run.store.expect_prompt(completion.key, messages, gated=plan.task.spec.gated)
                    await run.store.add_completion(completion)
                    grading.offer(completion)
                watch(completion)
        reporter.stop()
    return run.folder


def check_lines(path: Path, plan: TaskPlan) -> CheckedFile:
    """Read a file through and refuse the first line that is off."""
    known = {sample.sample_id for sample in plan.data.samples}
    first_line: dict[tuple[str, int], int] = {}
    ignored: dict[str, None] = {}
    for number, row in read_json_lines(path, error=ImportLineError):
        where = f"{path}:{number}"
        _check_fields(row, plan, where)
        if row["sample_id"] not in known:
            raise ImportLineError(
                f"{row['sample_id']!r} is not a sample of {plan.task.spec.id!r}",
                where=where,
                hint=nearest(row["sample_id"], known) if len(known) < 10_000 else None,
            )
        pair = (row["sample_id"], row.get("repeat", 0))
        if pair in first_line:
            raise ImportLineError(
                f"{pair[0]!r}, repeat {pair[1]}, is there twice, first in line {first_line[pair]}",
                where=where,
                hint="give each try at a sample its own repeat: 0, 1, 2, …",
            )
        first_line[pair] = number
        ignored.update(dict.fromkeys(key for key in row if key not in FIELDS))
    if not first_line:
        raise ImportLineError("holds no completion", where=path)
    return CheckedFile(
        lines=len(first_line),
        repeats=max(repeat for _, repeat in first_line) + 1,
        ignored=tuple(ignored),
    )


def _check_fields(row: Mapping[str, Any], plan: TaskPlan, where: str) -> None:
    for name in REQUIRED:
        if name not in row:
            raise ImportLineError(
                f"lacks {name!r}", where=where, hint=f"fields: {', '.join(FIELDS)}"
            )
    for name, types in FIELDS.items():
        value = row.get(name)
        if name in row and (not isinstance(value, types) or isinstance(value, bool)):
            raise ImportLineError(
                f"{name} is of the wrong type: {type(value).__name__}", where=where
            )
        if isinstance(value, int) and value < 0:
            raise ImportLineError(f"{name} is {value}, below 0", where=where)
    try:
        parse_stop_reason(row.get("stop_reason"))
    except ValueError as error:
        raise ImportLineError(str(error), where=where) from error
    allowed = plan.task.spec.import_targets
    if "target" in row and row["target"] not in allowed:
        raise ImportLineError(
            f"target is {row['target']!r}"
            + (f", not one of {', '.join(allowed)}" if allowed else ""),
            where=where,
            hint=None if allowed else f"{plan.task.spec.id} takes its targets from the data alone",
        )


def _completions(
    path: Path, plan: TaskPlan, run: OpenedRun, facts: EngineFacts
) -> Iterator[tuple[int, Completion, tuple[Message, ...]]]:
    samples = {sample.sample_id: sample for sample in plan.data.samples}
    for number, row in read_json_lines(path, error=ImportLineError):
        sample = samples[row["sample_id"]]
        request = render_request(plan, run.plan, sample, row.get("repeat", 0))
        completion = build_completion(
            request,
            row["text"],
            parse_stop_reason(row.get("stop_reason")),
            thinking=facts.thinking == "on",
            reasoning=row.get("reasoning"),
            prompt_tokens=row.get("prompt_tokens"),
            completion_tokens=row.get("completion_tokens"),
        )
        yield number, replace(completion, target=row.get("target")), request.messages


def _answer(completion: Completion) -> tuple[object, ...]:
    c = completion
    return c.text, c.reasoning, c.stop_reason, c.target


def _facts(config: RunConfig) -> EngineFacts:
    """Return what the user declares of the engine that made the completions."""
    declared: dict[str, Any] = {key: str(value) for key, value in config.group("engine").items()}
    if "thinking" in declared:
        value = config.group("engine")["thinking"]
        declared["thinking"] = {True: "on", False: "off"}.get(value, str(value))
    known = set(EngineFacts.__slots__) - {"engine", "engine_version", "model", "other"}
    known -= {"operation", "declared", "context_tokens"}
    for key in declared:
        if key not in known:
            raise ConfigError(
                f"'engine.{key}' is not a known key", where="--set", hint=nearest(key, known)
            )
    return EngineFacts(
        engine="import",
        engine_version=g4eval.__version__,
        model=config.model or "unknown",
        declared=tuple(sorted(declared)),
        **declared,
    )
