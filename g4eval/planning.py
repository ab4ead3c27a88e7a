"""A RunConfig to a RunPlan: which samples, which prompt, which sampling; and a run's identity."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import g4eval
from g4eval.config import MAX_REPEATS, RunConfig, SamplingParams, parse_model
from g4eval.engines.base import Answers, EngineFacts
from g4eval.engines.server_address import public_address
from g4eval.engines.server_secrets import without_secrets
from g4eval.errors import (
    ConfigError,
    NotReadyError,
    TaskError,
    UsageError,
    combined,
    nearest,
)
from g4eval.fingerprint import hash_order, sha256_json
from g4eval.graders.plugin_grader import example_maker, try_grader
from g4eval.graders.pool import GraderRef
from g4eval.plan import TaskPlan
from g4eval.profile import Profile, get_profile, profile_of
from g4eval.records import Sample
from g4eval.sandbox.docker_pool import check_ready
from g4eval.tasking.conversion import selected
from g4eval.tasking.datasets import load_samples
from g4eval.tasking.loader import Task, find_tasks, get_tasks

# What is asked of one command, not of the run.
_OF_A_COMMAND = frozenset({"runs_dir", "reuse", "run_id", "retry_refused"})
TASK_KEYS = ("repeats", "prompt", "max_new_tokens")  # and each task's own `settings`


def find_profile(config: RunConfig) -> Profile | None:
    """Return the profile asked for, or the one that knows the model; None: nothing is known."""
    if config.profile is not None:
        return get_profile(config.profile)
    return profile_of(config.model) if config.model else None


def plan_tasks(config: RunConfig, profile: Profile | None) -> tuple[TaskPlan, ...]:
    """Load each task's samples and settle what is asked of it.

    Raises UsageError for unknown names and keys, NotReadyError with all the data that is missing or
    off. Nothing has been written or generated then.
    """
    tasks = get_tasks(config.tasks, config.tasks_dir)
    if not tasks:
        raise UsageError("no task is named", hint="g4eval tasks lists them")
    _check_groups(config, tasks)
    plans: list[TaskPlan] = []
    missing: list[NotReadyError] = []
    for task in tasks:
        try:
            is_graded = _can_be_graded(config, task)
            plans.append(replace(_plan_task(config, task, profile), is_graded=is_graded))
        except NotReadyError as error:
            missing.append(error)
    if missing:
        raise combined(missing)
    return tuple(plans)


def limit_samples(samples: Iterable[Sample], limit: int | None, group: str | None) -> list[Sample]:
    """Return the first `limit` samples in hash order, the values of `group` in turn; in task order.

    The hash order is the same everywhere, and a larger limit keeps what a smaller one took.
    """
    in_order = list(samples)
    if limit is None or limit >= len(in_order):
        return in_order
    taken_of: dict[str, int] = {}  # group value -> how many stand before
    places: list[tuple[int, str]] = []
    by_hash = sorted(in_order, key=lambda s: hash_order("limit", s.sample_id))
    for sample in by_hash:
        value = sample.groups.get(group, "") if group else sample.sample_id
        places.append((taken_of.get(value, 0), sample.sample_id))
        taken_of[value] = taken_of.get(value, 0) + 1
    first = sorted(range(len(places)), key=lambda i: places[i][0])[:limit]  # stable: hash order
    taken = {places[i][1] for i in first}
    return [sample for sample in in_order if sample.sample_id in taken]


def check_settings(config: RunConfig, task: Task) -> dict[str, Any]:
    """Return the values of `--set TASK.KEY`, the task's own defaults filled in."""
    given = config.group(task.spec.id)
    known = {*TASK_KEYS, *task.spec.settings}
    for key in given:
        if key not in known:
            raise ConfigError(
                f"'{task.spec.id}.{key}' is not a known key",
                where="--set",
                hint=nearest(key, known),
            )
    return {**task.spec.settings, **given}


def task_record(
    plan: TaskPlan, *, is_generated: bool, stated: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what the store keeps of a task's plan; `stated`: what an import's user said of it."""
    spec = plan.task.spec
    grader = GraderRef.of(plan.task).load()
    return {
        "title": spec.title,
        "version": spec.version,
        "family": plan.task.family,
        "gated": spec.gated,
        "invented": spec.invented,
        "metrics": list(spec.metrics),
        "splits": list(spec.splits),
        "grader": spec.grader,
        "grader_version": grader.version,
        # What its grades say, where that isn't the name that the task gives it.
        **({"grader_name": grader.name} if grader.name != spec.grader else {}),
        "prompt": plan.prompt,
        "prompt_sha256": plan.task.prompt_sha256(plan.prompt),
        "prompt_source": spec.prompts[plan.prompt].source,
        "sampling": plan.sampling.model_dump(mode="json"),
        "repeats": plan.repeats,
        **({"is_uneven": True} if plan.is_uneven else {}),
        "settings": dict(plan.settings),
        "rows_stated": spec.data.rows,
        "n_selected": plan.n_selected,
        "is_generated": is_generated,
        "data_is_partial": plan.data.is_partial,
        "incomplete": plan.data.incomplete,
        "source": plan.data.source,
        "text": plan.data.text,
        "text_sha256": plan.data.text_sha256,
        "published_as": spec.published_as,
        "published_protocol": spec.published_protocol,
        **({} if is_generated else {"stated": sorted(stated)}),
    }


def run_id_of(
    config: RunConfig, facts: EngineFacts, plans: tuple[TaskPlan, ...], profile: Profile | None
) -> str:
    """Return the run id: given, or made of model, engine and what may not change in a run."""
    if config.run_id:
        return config.run_id
    identity = sha256_json(run_identity(config, facts, plans))
    model = profile.name if profile else Path(facts.model).name
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in model).strip("-._") or "model"
    return f"{name}-{facts.engine}-{identity[:8]}"


def run_identity(
    config: RunConfig, facts: EngineFacts, plans: tuple[TaskPlan, ...]
) -> dict[str, Any]:
    """Return what must be equal for two commands to be the same run.

    Tasks, repeats and limit may grow, so they stay out, and so do budgets and stop texts, which
    belong to a task; they are compared task by task when a run is continued.
    """
    own = {"max_new_tokens", "stop"}
    shared = {sha256_json(p.sampling.model_dump(mode="json", exclude=own)): p for p in plans}
    sampling = next(iter(shared.values())).sampling.model_dump(mode="json", exclude=own)
    variants = {p.task.spec.id: p.prompt for p in plans if p.prompt != p.task.spec.prompt}
    return {
        "engine": facts.identity(),
        "sampling": sampling,
        "prompts": variants,
        "seed": config.seed,
    }


def manifest_of(
    run_id: str, config: RunConfig, facts: EngineFacts, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Return manifest.json but for its tasks: what people need to make the run again."""
    asked = config.model_dump(mode="json", by_alias=True, exclude=set(_OF_A_COMMAND))
    if config.base_url:
        asked["base_url"] = public_address(config.base_url)  # without user, password and key
    asked["header"] = [line.partition(":")[0].strip() for line in config.header]  # names alone
    return {
        "run_id": run_id,
        "g4eval_version": g4eval.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "engine": {**without_secrets(facts.identity()), "fingerprint": facts.fingerprint},
        "engine_declared": list(facts.declared),
        "engine_operation": dict(facts.operation),
        "identity": without_secrets(identity),
        "config": {
            key: without_secrets(value)
            for key, value in asked.items()
            if value not in (None, [], {})
        },
    }


def answers_of(plans: tuple[TaskPlan, ...]) -> Answers:
    """Return what makes right and wrong answers, for engine fake: the graders' own examples."""
    samples = {p.task.spec.id: {s.sample_id: s for s in p.samples} for p in plans}
    graders = {p.task.spec.id: GraderRef.of(p.task) for p in plans}
    examples = {t: example_maker(ref.load(), ref.folder) for t, ref in graders.items()}

    def answer(task_id: str, sample_id: str, repeat: int, right: bool) -> str | None:  # noqa: FBT001
        return examples[task_id](samples[task_id][sample_id], repeat, right=right)

    return answer


def _can_be_graded(config: RunConfig, task: Task) -> bool:
    """Return whether the task's grader can run here; only code needs more than this process.

    Raises NotReadyError where it can't, unless ungraded completions are asked for.
    """
    if task.spec.grader != "code":
        return True
    try:
        check_ready()
    except NotReadyError as error:
        if config.allow_ungraded:
            return False
        raise type(error)(
            f"{task.spec.id}: its answers are programs, and {error.what}",
            where=error.where,
            hint=f"{error.hint}, or generate now and judge later: --allow-ungraded",
        ) from error
    return True


def _check_grader(task: Task) -> None:
    """Refuse a task whose grader can't be found or made, before anything is generated."""
    try:
        GraderRef.of(task).load()
    except UsageError as error:
        raise TaskError(error.what, where=error.where or task.folder, hint=error.hint) from error


def _plan_task(config: RunConfig, task: Task, profile: Profile | None) -> TaskPlan:
    _check_grader(task)
    settings = check_settings(config, task)
    spec = task.spec
    prompt = settings.pop("prompt", spec.prompt)
    if not isinstance(prompt, str) or prompt not in spec.prompts:
        raise ConfigError(
            f"{prompt!r} is not a prompt of {spec.id!r}",
            where=f"--set {spec.id}.prompt",
            hint=nearest(str(prompt), spec.prompts),
        )
    repeats = config.repeats or settings.pop("repeats", spec.repeats)
    settings.pop("repeats", None)
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        raise ConfigError(
            f"{repeats!r:.100} is not 1 to {MAX_REPEATS:,}", where=f"--set {spec.id}.repeats"
        )
    budget = settings.pop("max_new_tokens", None)
    data = load_samples(task, config.data_dir, allow_partial=config.allow_partial_data)
    samples = selected(task, data.samples, settings)
    if not samples:
        raise UsageError(f"the settings of {spec.id!r} leave no sample", hint="widen them")
    task.messages(samples[0], 0, variant=prompt)  # what is off in a prompt shows before the start
    if spec.grader.startswith("plugin:"):
        try_grader(GraderRef.of(task).load(), task.folder, samples[0])
    return TaskPlan(
        task=task,
        data=data,
        samples=tuple(limit_samples(samples, config.limit, spec.limit_by)),
        repeats=repeats,
        prompt=prompt,
        n_selected=len(samples),
        sampling=_sampling(config, task, profile, budget),
        settings=settings,
    )


def _sampling(
    config: RunConfig, task: Task, profile: Profile | None, budget: int | None
) -> SamplingParams:
    spec = task.spec
    values: dict[str, Any] = dict(profile.sampling) if profile else {}
    values["max_new_tokens"] = spec.max_new_tokens
    if profile and spec.id in profile.max_new_tokens:
        values["max_new_tokens"] = profile.max_new_tokens[spec.id]
    values["stop"] = list(spec.stop)
    values.update(config.group("sampling"))
    if budget is not None:
        values["max_new_tokens"] = budget
    return parse_model(SamplingParams, values, where="--set", prefix="sampling.")


def _check_groups(config: RunConfig, tasks: list[Task]) -> None:
    """Refuse `--set` keys whose group is neither engine, sampling nor a task of the run."""
    running = {task.spec.id for task in tasks}
    for key in config.settings:
        group = key.partition(".")[0]
        if group in running or group in ("engine", "sampling"):
            continue
        if group in find_tasks(config.tasks_dir):
            raise ConfigError(
                f"{key!r} is for a task that this run doesn't name",
                where="--set",
                hint=f"name the task {group} too, or leave the key out",
            )
        known = {"engine", "sampling", *running}
        raise ConfigError(f"{key!r} is not a known key", where="--set", hint=nearest(group, known))
