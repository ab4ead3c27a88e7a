"""What a margin needs: repeats, pairs, tokens and hours, from a baseline or from assumptions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from g4eval.gating.arm import Arm
from g4eval.gating.policy import PLANS, GatePolicy
from g4eval.gating.power import pass_rate, primary_tasks, repeats_for
from g4eval.stats.accuracy import variances
from g4eval.stats.power import PlannedTask, macro_error, provable_margin

POWERS = (0.8, 0.9)
# The accuracies Google reports for Gemma 4 31B; repeats of the plan "nightly".
SUITE = {
    "aime": (60, 0.892, 16),
    "gpqa_diamond": (198, 0.843, 8),
    "livecodebench_v6": (175, 0.80, 8),
    "bbeh_mini": (460, 0.744, 4),
}
DEFAULT_RHO = 0.5  # cautious; measured values lie between 0.5 and 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is known of generation; None: unknown."""

    mean_tokens: Mapping[str, float | None]  # a completion, by task
    tokens_per_second: float | None


def known_tasks(base: Arm, rho: float | None) -> dict[str, PlannedTask]:
    """Return what planning needs of a baseline's tasks.

    rho: given, else as the calibration measured it, else the cautious default.
    """
    measured = {} if base.calibration is None else base.calibration.tasks
    tasks = {}
    for task_id, task in base.tasks.items():
        scores = task.scores
        graded = scores[~np.isnan(scores)]
        stored = measured.get(task_id)
        found = stored.rho if rho is None and stored is not None else rho
        tasks[task_id] = PlannedTask(
            n_samples=len(task.sample_ids),
            accuracy=float(graded.mean()) if len(graded) else 0.5,
            repeats=max(1, task.n_repeats),
            rho=DEFAULT_RHO if found is None else found,
        )
    return tasks


def assumed_tasks(rho: float | None) -> dict[str, PlannedTask]:
    """Return the four benchmarks with the accuracies published for Gemma 4 31B."""
    return {
        name: PlannedTask(
            n_samples=n_samples,
            accuracy=accuracy,
            repeats=repeats,
            rho=DEFAULT_RHO if rho is None else rho,
        )
        for name, (n_samples, accuracy, repeats) in SUITE.items()
    }


def plan_json(
    tasks: Mapping[str, PlannedTask], policy: GatePolicy, workload: Workload
) -> dict[str, Any]:
    """Return what the policy's margin needs and what each named plan can prove."""
    needed = {
        f"{power:.0%}": _row(repeats_for(tasks, policy, power), policy, workload)
        for power in POWERS
    }
    named = {}
    for name in PLANS:
        plan = policy.model_copy(update={"plan": name})
        repeats = {t: plan.planned_repeats(t) or task.repeats for t, task in tasks.items()}
        named[name] = _row(
            {t: replace(task, repeats=repeats[t]) for t, task in tasks.items()}, policy, workload
        )
    return {
        "margin_pt": policy.margin_pt,
        "ok_pt": policy.ok_pt,
        "alpha_pass": policy.alpha_pass,
        "design": policy.design,
        "primary": policy.primary,
        "tasks": {
            t: {"n_samples": task.n_samples, "accuracy_pct": 100 * task.accuracy, "rho": task.rho}
            for t, task in tasks.items()
        },
        "needed_at_power": needed,
        "plans": named,
    }


def _row(
    tasks: Mapping[str, PlannedTask], policy: GatePolicy, workload: Workload
) -> dict[str, Any]:
    error = macro_error(primary_tasks(tasks, policy))
    tokens = _tokens(tasks, workload)
    seconds = None
    if tokens is not None and workload.tokens_per_second:
        seconds = tokens / workload.tokens_per_second
    return {
        "repeats": {t: task.repeats for t, task in tasks.items()},
        "pairs": sum(task.n_pairs for task in tasks.values()),
        "se_pt": 100 * error,
        "power_pct": 100 * pass_rate(tasks, policy),
        "margin_pt_at_power": {
            f"{power:.0%}": 100 * provable_margin(error, alpha=policy.alpha_pass, power=power)
            for power in POWERS
        },
        "task_margin_pt": {
            t: 100 * provable_margin(task.error, alpha=policy.alpha_pass)
            for t, task in tasks.items()
        },
        "tokens_an_arm": tokens,
        "hours_an_arm": None if seconds is None else seconds / 3600,
    }


def _tokens(tasks: Mapping[str, PlannedTask], workload: Workload) -> float | None:
    total = 0.0
    for task_id, task in tasks.items():
        mean = workload.mean_tokens.get(task_id)
        if mean is None:
            return None
        total += mean * task.n_pairs
    return total


def finished_json(base: Arm, candidate: Arm, policy: GatePolicy) -> dict[str, Any]:
    """Return what two finished runs can exclude, and what the margin needs; looks at no difference.

    From the baseline's accuracy and correlation alone, so that asking spends nothing.
    """
    tasks = {
        task_id: replace(
            task, repeats=max(1, min(task.repeats, candidate.tasks[task_id].n_repeats))
        )
        for task_id, task in known_tasks(base, _measured_rho(base)).items()
        if task_id in candidate.tasks and (policy.tasks is None or task_id in policy.tasks)
    }
    workload = Workload(mean_tokens={}, tokens_per_second=None)
    return {
        "margin_pt": policy.margin_pt,
        "now": _row(tasks, policy, workload),
        "needed_at_power": {
            f"{power:.0%}": _row(repeats_for(tasks, policy, power), policy, workload)
            for power in POWERS
        },
    }


def finished_words(values: Mapping[str, Any]) -> list[str]:
    """Return the same as lines to print."""
    now, margins = values["now"], values["now"]["margin_pt_at_power"]
    lines = [
        "these runs can exclude a loss of "
        + ", ".join(f"{m:.1f} points with {power} power" for power, m in margins.items())
        + f"; the margin of {values['margin_pt']:g} passes an equal candidate "
        f"{now['power_pct']:.0f} % of the time"
    ]
    for power, row in values["needed_at_power"].items():
        repeats = " ".join(f"--set {task}.repeats={k}" for task, k in row["repeats"].items())
        lines.append(f"for {power} the margin needs, in both runs: {repeats}")
    return lines


def _measured_rho(base: Arm) -> float | None:
    """Return the mean correlation of a baseline's repeats; None where no task has several."""
    found = []
    for task in base.tasks.values():
        graded = ~np.isnan(task.scores)
        counts = graded.sum(axis=1)
        correct = np.where(graded, task.scores, 0.0).sum(axis=1).astype(np.int64)
        parts = variances(correct[counts > 0], counts[counts > 0])
        if parts is not None and np.isfinite(parts.icc):
            found.append(parts.icc)
    return float(np.mean(found)) if found else None
