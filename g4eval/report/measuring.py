"""A stored run to measurements that can be held against published scores."""

import math
from collections.abc import Iterable

from g4eval.profile import Profile, get_profile, profile_of
from g4eval.report.published import published_scores
from g4eval.report.reproduction import Measurement, ReproductionResult, reproduce
from g4eval.stats.summary import TaskSummary
from g4eval.store.reader import RunReader
from g4eval.store.stored import Manifest, StoredPlan

# What decides a score and only the one who made the answers can state, the weightiest first.
STATED = ("prompt", "temperature", "top_p", "top_k", "max_new_tokens")


def reproduce_run(
    run: RunReader, summaries: Iterable[TaskSummary]
) -> tuple[ReproductionResult, ...]:
    """Judge every task of a run against what was published for its model."""
    manifest = run.manifest()
    profile = profile_of_run(manifest)
    return tuple(reproduce(measure(summary, manifest, profile)) for summary in summaries)


def measure(summary: TaskSummary, manifest: Manifest, profile: Profile | None) -> Measurement:
    """Return one task's score with all that a reader must know to compare it."""
    plan, engine = summary.plan, manifest.engine
    sampling = plan.sampling
    return Measurement(
        model=engine.model,
        published_as=_published_model(engine.model, profile),
        benchmark=_benchmark(summary.task_id, plan),
        estimate=summary.estimate,
        icc=_icc(summary),
        metric=plan.metrics[0],
        release=_release(plan),
        n_samples_full=plan.n_selected if plan.settings else plan.rows_stated,
        is_partial=summary.is_partial or summary.audit.n_missing > 0,
        engine=engine.engine,
        thinking=engine.thinking,
        share_with_thought=summary.share_with_thought if plan.is_generated else None,
        unknown=tuple(name for name in STATED if not plan.knows(name)),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_new_tokens=sampling.max_new_tokens,
        quantization=engine.quantization,
        chat_template_hash=engine.chat_template_hash,
        known_template_hashes=profile.chat_template_hashes if profile is not None else (),
    )


def _icc(summary: TaskSummary) -> float | None:
    """Return the intraclass correlation of our repeats; None where there is one, or no variance."""
    found = summary.variances
    return None if found is None or math.isnan(found.icc) else found.icc


def profile_of_run(manifest: Manifest) -> Profile | None:
    """Return the profile of a run's model; None: none knows it."""
    name = manifest.config.get("profile")
    return get_profile(name) if name else profile_of(manifest.engine.model)


def _published_model(model: str, profile: Profile | None) -> str | None:
    """Return the hub id under which the model's scores are published."""
    names = [model]
    if profile is not None:
        names = [name for name in (profile.published_as, profile.hub_id) if name] + names
    known = {score.model for score in published_scores()}
    return next((name for name in names if name in known), None)


def _benchmark(task_id: str, plan: StoredPlan) -> str | None:
    """Return the benchmark of published scores that a task is of.

    Every LiveCodeBench set is held against v6, so that another window is named as what it is.
    """
    if plan.family == "livecodebench":
        return "livecodebench_v6"
    known = {score.benchmark for score in published_scores()}
    return next((name for name in (plan.published_as, task_id) if name in known), None)


def _release(plan: StoredPlan) -> str | None:
    """Say in words which set the settings choose; None where a task has only one."""
    chosen = {key: value for key, value in plan.settings.items() if value is not None}
    if not chosen:
        return None
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in chosen.items())
    return f"{words} ({plan.n_selected:,} samples)"
