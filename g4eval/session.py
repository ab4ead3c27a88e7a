"""Open a run, run it, close it: what `g4eval run`, `import` and `grade` have in common.

A session is one process's time with a run. It may be the first one, or continue what an earlier
one left; a run whose configuration differs is refused with the difference.
"""

import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from g4eval import interrupts
from g4eval.asking import Asking
from g4eval.config import RunConfig
from g4eval.engines.base import (
    ENGINES,
    UNKNOWN,
    Answers,
    Engine,
    EngineConfig,
    EngineFacts,
    NotingEngine,
)
from g4eval.engines.choice import choose_engine
from g4eval.engines.server_address import parse_headers
from g4eval.engines.server_secrets import without_secrets
from g4eval.errors import ConfigError, NotReadyError, UsageError, combined
from g4eval.graders.pool import GraderPool
from g4eval.pipeline import Watcher, run_tasks, run_try
from g4eval.plan import (
    RunPlan,
    TaskPlan,
    graded_tasks,
    tries_to_leave_out,
    unfinished_tries,
)
from g4eval.planning import (
    answers_of,
    find_profile,
    manifest_of,
    plan_tasks,
    run_id_of,
    run_identity,
    task_record,
)
from g4eval.preflight import check_engine
from g4eval.profile import Profile
from g4eval.records import Completion, Request
from g4eval.stats.summary import TaskSummary
from g4eval.store.birth import Birth, Statement, has_run
from g4eval.store.manifest import write_manifest
from g4eval.store.reader import RunReader, find_run
from g4eval.store.run_store import RunStore, task_rows
from g4eval.store.stored import StoredPlan

# What must not change between the sessions of a run, task by task.
FIXED_IN_A_TASK = ("version", "prompt", "prompt_sha256", "sampling", "settings", "text_sha256")


class Reporter(Protocol):
    """Tells the user what is going on; the command line has one for terminals, one for files."""

    def note(self, message: str) -> None:
        """Say one thing."""
        ...

    def start(self, todo: Mapping[str, int], done: Mapping[str, int], store: RunReader) -> Watcher:
        """Begin to show progress: requests still to send and already stored, by task."""
        ...

    def stop(self) -> None:
        """End the progress display."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRun:
    """A run open for writing."""

    folder: Path
    store: RunStore
    plan: RunPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """Where a run is stored, and the numbers of its table."""

    folder: Path
    summaries: list[TaskSummary]


async def run_session(config: RunConfig, reporter: Reporter) -> FinishedRun:
    """Run what `config` asks for, or what is left of it."""
    config = await with_model(config, reporter)
    profile = find_profile(config)
    plans, engine = prepare(config, profile, reporter)
    async with engine:
        facts = engine.describe()
        for text in facts.operation.get("notes", ()):  # what the engine found as it loaded
            reporter.note(text)
        _note_short_context(plans, facts, reporter)
        with open_run(config, profile, plans, facts) as run:
            if profile is not None and facts.engine != "fake":  # fake reads no prompts
                budgets = {p.task.spec.id: p.sampling.max_new_tokens for p in plans}
                for warning in await check_engine(engine, profile, budgets, run.store):
                    reporter.note(f"preflight: {warning}")
            if config.reuse is not None:
                count = await _reuse(run, config.reuse, config.runs_dir, facts)
                reporter.note(f"{count} completions taken from {config.reuse}")
            todo = _count_unanswered(run)
            total = {p.task.spec.id: len(p.samples) * p.repeats for p in run.plan.tasks}
            done = {task_id: total[task_id] - todo[task_id] for task_id in total}
            watch = reporter.start(todo, done, run.store)
            try:
                summaries = await run_tasks(
                    run.plan, engine, GraderPool(graded_tasks(run.plan)), run.store, watch
                )
            finally:
                reporter.stop()
    return FinishedRun(folder=run.folder, summaries=summaries)


async def with_model(config: RunConfig, reporter: Reporter) -> RunConfig:
    """Return the configuration with a model: where none is named, the only one of the server."""
    if config.model or config.profile or not config.base_url:
        return config
    # Not at the top: it brings httpx, which takes as long to import as half of the rest.
    from g4eval.engines.served_model import only_served_model  # noqa: PLC0415

    name = await only_served_model(config.base_url, parse_headers(config.header))
    reporter.note(f"model {name}: the only one the server has")
    return config.model_copy(update={"model": name})


def prepare(
    config: RunConfig, profile: Profile | None, reporter: Reporter
) -> tuple[tuple[TaskPlan, ...], Engine]:
    """Plan the tasks and configure the engine, nothing loaded yet.

    Raises NotReadyError with everything that is missing on either side.
    """
    plans: tuple[TaskPlan, ...] = ()
    missing: list[NotReadyError] = []
    try:
        plans = plan_tasks(config, profile)
    except NotReadyError as error:
        missing.append(error)
    try:
        engine = make_engine(config, profile, answers=answers_of(plans), note=reporter.note)
    except NotReadyError as error:
        raise combined([*missing, error]) from error
    if missing:
        raise combined(missing)
    return plans, engine


def make_engine(
    config: RunConfig,
    profile: Profile | None,
    *,
    answers: Answers | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Engine:
    """Return the engine asked for, or the one that `auto` finds, configured and not yet loaded.

    `note` hears which engine `auto` chose and why, and what an engine says before it loads.
    """
    model = config.model or (profile.hub_id if profile else None)
    choice = choose_engine(config.engine, model=model, profile=profile, base_url=config.base_url)
    if choice.reason:
        note(f"engine {choice.name}: {choice.reason}")
    profiled = profile.engine.get(choice.name, {}) if profile else {}
    engine_config = EngineConfig(
        model=model,
        options={**profiled, **config.group("engine")},
        profile=profile,
        base_url=config.base_url,
        headers=parse_headers(config.header),
        answers=answers,
    )
    engine = ENGINES.load(choice.name).configure(engine_config)
    if isinstance(engine, NotingEngine):
        for text in engine.notes:
            note(text)
    return engine


@contextmanager
def open_run(
    config: RunConfig,
    profile: Profile | None,
    plans: tuple[TaskPlan, ...],
    facts: EngineFacts,
    *,
    is_generated: bool = True,
) -> Iterator[OpenedRun]:
    """Open the run's store, new or to be continued, and write down what is planned.

    Raises ConfigError, with every difference, where the run exists with another configuration.
    """
    run_id = run_id_of(config, facts, plans, profile)
    folder = config.runs_dir / run_id
    identity = run_identity(config, facts, plans)
    records = {
        p.task.spec.id: task_record(p, is_generated=is_generated, stated=_stated(config, p))
        for p in plans
    }
    if has_run(folder):
        _refuse_differences(folder, run_id, identity, records)
    manifest = manifest_of(run_id, config, facts, identity)
    manifest["platform"] = {"python": platform.python_version(), "system": platform.platform()}
    with RunStore(folder, lambda: _birth(run_id, manifest, plans, records)) as store:
        if not store.is_new:
            if "manifest" in store.meta():
                manifest["created"] = store.manifest().created
                manifest["graders"] = dict(store.manifest().graders)
            store.set_meta({"run_id": run_id, "manifest": json.dumps(manifest)})
        stored = store.tasks()
        grown = []
        for plan in plans:
            task_id = plan.task.spec.id
            record = _merged(stored.get(task_id), records[task_id])
            if not store.is_new:
                gated, places = plan.task.spec.gated, _places(plan)
                store.set_task(task_id, record, plan.samples, gated=gated, positions=places)
            grown.append(replace(plan, repeats=record["repeats"]))
        # The store's own is what counts: the file is a copy of it for people.
        write_manifest(folder, store.manifest().as_json())
        fingerprint = facts.fingerprint
        run_plan = RunPlan(
            tasks=tuple(grown),
            seed=config.seed,
            engine_fingerprint=fingerprint,
            retry_refused=config.retry_refused,
        )
        yield OpenedRun(folder=folder, store=store, plan=run_plan)


def _birth(
    run_id: str,
    manifest: Mapping[str, Any],
    plans: tuple[TaskPlan, ...],
    records: Mapping[str, dict[str, Any]],
) -> Birth:
    """Return what a new run holds from its first moment on."""
    rows: list[Statement] = []
    for plan in plans:
        spec = plan.task.spec
        record, places = records[spec.id], _places(plan)
        rows += task_rows(spec.id, record, plan.samples, gated=spec.gated, positions=places)
    meta = {"run_id": run_id, "manifest": json.dumps(manifest)}
    return Birth(meta=meta, rows=tuple(rows))


def _places(plan: TaskPlan) -> dict[str, int]:
    """Return each sample's place in the whole task."""
    return {sample.sample_id: n for n, sample in enumerate(plan.data.samples)}


def _stated(config: RunConfig, plan: TaskPlan) -> tuple[str, ...]:
    """Return the settings that the user gave: an import knows no others."""
    prompt = ("prompt",) if "prompt" in config.group(plan.task.spec.id) else ()
    return (*config.group("sampling"), *prompt)


def _merged(old: StoredPlan | None, new: dict[str, Any]) -> dict[str, Any]:
    """A task may grow: more repeats stay more, whatever a later command asks for."""
    if old is None:
        return new
    return {**new, "repeats": max(old.repeats, new["repeats"])}


def _refuse_differences(
    folder: Path, run_id: str, identity: Mapping[str, Any], records: Mapping[str, Any]
) -> None:
    with RunReader(folder) as run:
        if "manifest" not in run.meta():
            return  # nothing was planned before the first session ended
        stored = {task_id: plan.as_json() for task_id, plan in run.tasks().items()}
        there = run.manifest().identity.as_json()
    differences = list(_differences(without_secrets(there), without_secrets(identity), ""))
    for task_id, record in records.items():
        for key in FIXED_IN_A_TASK:
            if task_id in stored:
                old, new = stored[task_id].get(key), record[key]
                differences += _differences({key: old}, {key: new}, f"{task_id}.")
    if differences:
        raise ConfigError(
            f"run {run_id!r} exists with another configuration:\n    " + "\n    ".join(differences),
            where=folder,
            hint=_way_out(run_id, differences),
        )


def _way_out(run_id: str, differences: list[str]) -> str:
    """Say how to continue, and how to make another run; of a budget with both values."""
    budget = re.fullmatch(
        r"\S+\.sampling\.max_new_tokens: (\d+) in the run, (\d+) asked for", differences[0]
    )
    if budget is None or len({d.partition(": ")[2] for d in differences}) > 1:
        return "give this one another --run-id, or ask for what the run has"
    return (
        f"--set sampling.max_new_tokens={budget[1]} continues the run, "
        f"--run-id {run_id}-{budget[2]} makes another with {budget[2]}"
    )


def _differences(old: Any, new: Any, name: str) -> Iterator[str]:
    """Yield `key: old here, new asked` for every leaf that differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{name}{key}.")
    elif old != new:
        yield f"{name.rstrip('.')}: {old!r} in the run, {new!r} asked for"


def _count_unanswered(run: OpenedRun) -> dict[str, int]:
    """Count what is still to be sent, by task."""
    todo = {}
    for plan in run.plan.tasks:
        task_id = plan.task.spec.id
        stored = tries_to_leave_out(task_id, run.plan, run.store)
        todo[task_id] = sum(
            (sample.sample_id, repeat) not in stored
            for sample in plan.samples
            for repeat in range(plan.repeats)
        )
    return todo


async def _reuse(run: OpenedRun, name: Path, runs_dir: Path, facts: EngineFacts) -> int:
    """Take the completions of equal requests from another run."""
    if facts.weights_fingerprint == UNKNOWN:
        raise UsageError(
            "completions of a model whose weights are unknown can't be taken from another run",
            where=f"--reuse {name}",
            hint="declare them with --set engine.weights_fingerprint=…, if you are sure",
        )
    with RunReader(find_run(str(name), runs_dir)) as other:
        stored = _StoredAnswers(other)
        for planned in unfinished_tries(run.plan, run.store):
            with suppress(_NotStoredError):
                await run_try(Asking(planned, stored, run.store), planned, run.store)
    await run.store.flush()
    return stored.n_found


class _NotStoredError(Exception):
    """The other run has no such completion: the try is left to the engine."""


class _StoredAnswers:
    """What an engine is to a try, made of another run's completions."""

    def __init__(self, other: RunReader) -> None:
        self._other = other
        self.n_found = 0

    async def answer(self, request: Request) -> Completion:
        """Return the stored completion of an equal request."""
        found = self._other.completion(request.key)
        if found is None:
            raise _NotStoredError
        self.n_found += 1
        return found


def _note_short_context(
    plans: tuple[TaskPlan, ...], facts: EngineFacts, reporter: Reporter
) -> None:
    for plan in plans:
        budget = plan.sampling.max_new_tokens
        if facts.room_tokens is not None and budget > facts.room_tokens:
            reporter.note(
                f"{plan.task.spec.id}: the budget of {budget:,} tokens is more than the context of "
                f"{facts.room_tokens:,}: completions end there"
            )


def run_blocking(config: RunConfig, reporter: Reporter) -> FinishedRun:
    """`run_session` for a caller without an event loop."""
    return interrupts.run(run_session(config, reporter))
