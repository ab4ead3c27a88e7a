"""Recorded completions from anywhere, as JSON lines, into a normal run.

The border: every line is read within limits (bytes, types, counts) and checked before anything is
written; past `check_lines` the types hold. What nobody stated of how the answers were made stays
unknown. Nothing of a gated task's line is ever shown. docs/import.md has format and limits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from g4eval.config import RunConfig
from g4eval.engines.base import EngineFacts
from g4eval.errors import ConfigError, ImportLineError, UsageError, nearest
from g4eval.graders.pool import GraderPool
from g4eval.jsonlines import read_json_lines
from g4eval.plan import PlannedTry, RunPlan, TaskPlan, graded_tasks
from g4eval.planning import find_profile, plan_tasks, run_id_of
from g4eval.records import Completion, Request, Try
from g4eval.rendering import first_request
from g4eval.responses import build_completion, parse_stop_reason
from g4eval.session import Reporter, open_run
from g4eval.store.birth import has_run
from g4eval.store.reader import RunReader

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
MOST_BYTES = 64 << 20  # a line
MOST_REPEATS = 1_000_000
MOST_TOKENS = 2**53
# A run is a table of samples by repeats, and readers hold it whole: it may not be mostly holes.
MOST_TRIES = 1_000_000
HOLES_A_LINE = 20
MOST_IGNORED = 1000
MOST_SHOWN = 200  # characters of a value in an error
KEYS_NAMED = 8  # of those that mean nothing here

# Raised only when what it answers to a request may change: it is part of every run's identity.
ENGINE_VERSION = "0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """What the first reading of an import file found."""

    lines: int
    repeats: int  # the largest repeat and one
    ignored: tuple[str, ...]  # keys that mean nothing here, the first of them
    n_ignored: int


async def import_session(task_id: str, path: Path, config: RunConfig, reporter: Reporter) -> Path:
    """Grade the completions in `path` as one task of a run; return the run's folder.

    Raises ImportLineError, with the line, before anything is written: bad JSON, a field that is
    off, an unknown sample, a (sample, repeat) that is there twice or is stored with another text.
    """
    config = config.model_copy(update={"tasks": (task_id,), "repeats": 1})
    profile = find_profile(config)
    (plan,) = plan_tasks(config, profile)
    if plan.task.spec.dialogue is not None:
        raise UsageError(
            f"{task_id} asks several questions a try, and a line holds one answer",
            hint="run it with g4eval run",
        )
    checked = check_lines(path, plan)
    plan = replace(plan, repeats=checked.repeats)
    if checked.ignored:
        reporter.note(_ignored_words(checked, plan))
    facts = _facts(config)
    asked = RunPlan(tasks=(plan,), seed=config.seed, engine_fingerprint=facts.fingerprint)
    folder = config.runs_dir / run_id_of(config, facts, (plan,), profile)
    if has_run(folder):
        _refuse_other_texts(folder, path, asked, facts)
    with open_run(config, profile, (plan,), facts, is_generated=False) as run:
        watch = reporter.start({task_id: checked.lines}, {task_id: 0}, run.store)
        pool = GraderPool(graded_tasks(run.plan))
        try:
            async with pool.saving_to(run.store, watch) as grading:
                for _, request, one_try in recorded_tries(path, asked, facts):
                    if not run.store.has_completion(one_try.key):
                        run.store.expect(request, gated=plan.task.spec.gated)
                        await run.store.add_answer(one_try.completion)
                        grading.offer(one_try)
                    watch(one_try)
        finally:
            reporter.stop()
    return run.folder


def _refuse_other_texts(folder: Path, path: Path, plan: RunPlan, facts: EngineFacts) -> None:
    """Refuse a file that has another text for what the run has stored."""
    with RunReader(folder) as run:
        for line, _, one_try in recorded_tries(path, plan, facts):
            completion = one_try.completion
            stored = run.completion(completion.key)
            if stored is not None and _answer(stored) != _answer(completion):
                raise ImportLineError(
                    f"{completion.sample_id!r}, repeat {completion.repeat}, is stored with another "
                    "text",
                    where=f"{path}:{line}",
                    hint="completions are never changed: import into another --run-id",
                )


def check_lines(path: Path, plan: TaskPlan) -> CheckedFile:
    """Read a file through and refuse the first line that is off."""
    if path.exists() and not path.is_file():
        raise ImportLineError(
            "is not a regular file, and is read more than once",
            where=path,
            hint="save what comes through the pipe to a file",
        )
    known = {sample.sample_id for sample in plan.samples}
    first_line: dict[tuple[str, int], int] = {}
    ignored: set[str] = set()
    for number, row in _rows(path):
        where = f"{path}:{number}"
        _check_fields(row, plan, where)
        if row["sample_id"] not in known:
            raise ImportLineError(
                f"{_quoted(row['sample_id'], plan)} is not a sample of {plan.task.spec.id!r} as it "
                "is set here",
                where=where,
                hint=nearest(row["sample_id"][:200], known) if len(known) < 10_000 else None,
            )
        pair = (row["sample_id"], row.get("repeat", 0))
        if pair in first_line:
            raise ImportLineError(
                f"{pair[0]!r}, repeat {pair[1]}, is there twice, first in line {first_line[pair]}",
                where=where,
                hint="give each try at a sample its own repeat: 0, 1, 2, …",
            )
        first_line[pair] = number
        if len(ignored) < MOST_IGNORED:
            ignored.update(key for key in row if key not in FIELDS)
    if not first_line:
        raise ImportLineError("holds no completion", where=path)
    _check_density(path, plan, first_line)
    return CheckedFile(
        lines=len(first_line),
        repeats=max(repeat for _, repeat in first_line) + 1,
        ignored=tuple(sorted(ignored)[:KEYS_NAMED]),
        n_ignored=len(ignored),
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    return read_json_lines(path, error=ImportLineError, unique_keys=True, most_bytes=MOST_BYTES)


def _check_density(path: Path, plan: TaskPlan, lines: Mapping[tuple[str, int], int]) -> None:
    """Refuse repeat numbers so far apart that a table of all tries would be nearly empty."""
    pair = max(lines, key=lambda pair: pair[1])
    tries = (pair[1] + 1) * len(plan.samples)
    if tries > max(MOST_TRIES, HOLES_A_LINE * len(lines)):
        raise ImportLineError(
            f"repeat {pair[1]:,} would make a table of {tries:,} tries of {len(lines):,} lines",
            where=f"{path}:{lines[pair]}",
            hint="number the tries at a sample 0, 1, 2, …",
        )


def _ignored_words(checked: CheckedFile, plan: TaskPlan) -> str:
    """Say which keys mean nothing here; of a gated task a key may be the question itself."""
    if plan.task.spec.gated:
        return f"keys that are ignored: {checked.n_ignored:,}, not named as the task is gated"
    names = ", ".join(name if len(name) <= 40 else f"{name[:40]}…" for name in checked.ignored)
    more = checked.n_ignored - len(checked.ignored)
    return f"keys that are ignored: {names}" + (f" and {more:,} more" if more else "")


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
        most = MOST_REPEATS if name == "repeat" else MOST_TOKENS
        if isinstance(value, int) and not 0 <= value <= most:
            raise ImportLineError(f"{name} is not between 0 and {most:,}", where=where)
    word = row.get("stop_reason")
    try:
        parse_stop_reason(word)
    except ValueError as error:
        said = str(error).replace(repr(word), _quoted(word, plan))
        raise ImportLineError(said, where=where) from None
    allowed = plan.task.spec.import_targets
    if "target" in row and row["target"] not in allowed:
        raise ImportLineError(
            f"target is {_quoted(row['target'], plan)}"
            + (f", not one of {', '.join(allowed)}" if allowed else ""),
            where=where,
            hint=None if allowed else f"{plan.task.spec.id} takes its targets from the data alone",
        )


def _quoted(value: object, plan: TaskPlan) -> str:
    """Show a value of a line; a gated task's line may hold its question anywhere."""
    if plan.task.spec.gated:
        return "a value"
    shown = repr(value)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…"


def recorded_tries(
    path: Path, plan: RunPlan, facts: EngineFacts
) -> Iterator[tuple[int, Request, Try]]:
    """Yield each line's number, and the try that it records, of one step."""
    (task_plan,) = plan.tasks
    samples = {sample.sample_id: sample for sample in task_plan.samples}
    dialogue = task_plan.dialogue
    for number, row in _rows(path):
        sample = samples[row["sample_id"]]
        repeat = row.get("repeat", 0)
        planned = PlannedTry(
            plan=plan, task_plan=task_plan, sample=sample, repeat=repeat, dialogue=dialogue
        )
        request = first_request(planned)
        completion = build_completion(
            request,
            row["text"],
            parse_stop_reason(row.get("stop_reason")),
            thinking=facts.thinking == "on",
            reasoning=row.get("reasoning"),
            prompt_tokens=row.get("prompt_tokens"),
            completion_tokens=row.get("completion_tokens"),
        )
        completion = replace(completion, target=row.get("target"))
        one_try = Try(
            task_id=request.task_id, sample=sample, repeat=repeat, completions=(completion,)
        )
        yield number, request, one_try


def _answer(completion: Completion) -> tuple[object, ...]:
    """Return what a line said, however its markers were taken apart in its day."""
    c = completion
    as_written = c.text if c.raw_text is None else c.raw_text
    return as_written, c.reasoning if c.raw_text is None else None, c.stop_reason, c.target


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
        engine_version=ENGINE_VERSION,
        model=config.model or "unknown",
        declared=tuple(sorted(declared)),
        **declared,
    )
