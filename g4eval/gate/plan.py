"""What a margin needs: repeats, pairs, tokens and hours, from a baseline or from assumptions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from g4eval.gate.arm import Arm
from g4eval.gate.policy import PLANS, GatePolicy
from g4eval.stats.power import (
    GROUP_SEQUENTIAL_COST,
    PlannedTask,
    macro_error,
    provable_margin,
    scale_for_margin,
)

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
    distance = policy.margin + policy.ok  # between the two anchors
    needed = {}
    for power in POWERS:
        factor = scale_for_margin(tasks, distance, alpha=policy.alpha_pass, power=power)
        if policy.design == "gst":
            factor *= GROUP_SEQUENTIAL_COST
        scaled = {
            t: replace(task, repeats=max(1, math.ceil(task.repeats * factor)))
            for t, task in tasks.items()
        }
        needed[f"{power:.0%}"] = _row(scaled, policy, workload)
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
    error = macro_error(tasks)
    tokens = _tokens(tasks, workload)
    seconds = None
    if tokens is not None and workload.tokens_per_second:
        seconds = tokens / workload.tokens_per_second
    return {
        "repeats": {t: task.repeats for t, task in tasks.items()},
        "pairs": sum(task.n_pairs for task in tasks.values()),
        "se_pt": 100 * error,
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
