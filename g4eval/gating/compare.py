"""Two arms side by side, without a verdict: what `g4eval compare` prints."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from g4eval.gating.arm import CORRECT, NO_ANSWER, UNGRADED, Arm, ArmTask
from g4eval.gating.copies import clusters_of, find_copies, merged, subtasks_of
from g4eval.gating.fingerprint_diff import compare_facts, compare_tasks
from g4eval.gating.record import difference_json, macro_json
from g4eval.gating.shape import length_change
from g4eval.records import Json
from g4eval.stats.noise import SuperNoise, pair_noise, super_noise
from g4eval.stats.paired import (
    holm,
    mcnemar,
    paired_difference,
    sign_flip_p,
    tango_interval,
)


def compare_arms(base: Arm, candidate: Arm, tasks: Sequence[str]) -> dict[str, Any]:
    """Return every number of a comparison; samples that one arm lacks are left out and counted."""
    facts = compare_facts(base, candidate, None)
    values: dict[str, Any] = {
        "baseline": base.run_id,
        "candidate": candidate.run_id,
        "differences": [
            *(str(change) for change in (*facts.changed, *facts.refused)),
            *(
                str(change)
                for task in tasks
                for change in compare_tasks(task, base.tasks[task], candidate.tasks[task])
            ),
        ],
        "tasks_in_one_arm_only": sorted(set(base.tasks) ^ set(candidate.tasks)),
        "tasks": {},
    }
    shared = {task: _shared(base.tasks[task], candidate.tasks[task]) for task in tasks}
    noise = {task: _noise(task, left, right) for task, (left, right) in shared.items()}
    for task, (left, right) in shared.items():
        values["tasks"][task] = _task_json(left, right, noise[task])
    values["macro"] = macro_json(list(noise.values()))
    values["length"] = length_change(
        replace(base, tasks={task: left for task, (left, _) in shared.items()}),
        replace(candidate, tasks={task: right for task, (_, right) in shared.items()}),
        tasks,
    )
    return values


def _shared(base: ArmTask, candidate: ArmTask) -> tuple[ArmTask, ArmTask]:
    """Return both arms with the samples that both have, in one order."""
    if base.sample_ids == candidate.sample_ids:
        return base, candidate
    shared = set(base.sample_ids) & set(candidate.sample_ids)
    return base.only(shared), candidate.only(shared)


def _noise(task: str, base: ArmTask, candidate: ArmTask) -> SuperNoise:
    """Return the noise that the gate would take: copies and doubled questions count once."""
    arms = (base, candidate)
    copies = [find_copies(arm, np.ones(arm.outcomes.shape, np.bool_)) for arm in arms]
    copied = copies[0].samples | copies[1].samples
    clusters = merged(clusters_of(base), clusters_of(candidate))
    scores = base.scores, candidate.scores
    fixed = pair_noise(*scores, copied=copied if copied.any() else None, clusters=clusters)
    groups = np.unique(subtasks_of(task, base), return_inverse=True)[1]
    return super_noise(*scores, fixed, groups=groups, clusters=clusters)


def _task_json(base: ArmTask, candidate: ArmTask, noise: SuperNoise) -> dict[str, Any]:
    found = paired_difference(base.scores, candidate.scores)
    gains, losses, pairs = int(found.gains), int(found.losses), int(found.n_pairs)
    values: dict[str, Any] = {
        **difference_json(found, noise),
        "n_samples": len(base.sample_ids),
        "repeats": [base.outcomes.shape[1], candidate.outcomes.shape[1]],
        "baseline_pct": _pct(base.scores),
        "candidate_pct": _pct(candidate.scores),
        "truncated_pct": [_share(arm, arm.truncated) for arm in (base, candidate)],
        "no_answer_pct": [_share(arm, arm.outcomes == NO_ANSWER) for arm in (base, candidate)],
        "ungraded": [arm.n_ungraded for arm in (base, candidate)],
        "sign_flip_p_loss": sign_flip_p(_changes(base, candidate), draws=20_000),
        "samples": _samples(base, candidate),
    }
    if base.outcomes.shape[1] == candidate.outcomes.shape[1] == 1 and pairs:
        test, tango = mcnemar(losses, gains), tango_interval(pairs, losses, gains)
        values["mcnemar"] = {
            "exact": test.exact,
            "mid_p": test.mid_p,
            "one_sided_loss": test.one_sided,
        }
        values["tango_pt"] = [100 * tango.low, 100 * tango.high]
    subtasks = _subtasks(base, candidate)
    if subtasks:
        values["subtasks"] = subtasks
    return values


def _subtasks(base: ArmTask, candidate: ArmTask) -> dict[str, dict[str, Json]]:
    """Return the difference of each subtask, p-values adjusted by Holm: a diagnostic."""
    names = sorted(set(base.groups) - {""})
    rows: dict[str, dict[str, Json]] = {}
    p_values = []
    for name in names:
        ids = {i for i, g in zip(base.sample_ids, base.groups, strict=True) if g == name}
        left, right = base.only(ids), candidate.only(ids)
        found = paired_difference(left.scores, right.scores)
        p_values.append(sign_flip_p(_changes(left, right), draws=20_000))
        rows[name] = {"delta_pt": 100 * float(found.delta), "n_samples": len(ids)}
    for name, adjusted in zip(names, holm(p_values), strict=True):
        rows[name]["p_loss_holm"] = adjusted
    return rows


def _changes(base: ArmTask, candidate: ArmTask) -> np.ndarray[Any, np.dtype[np.float64]]:
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [_row_means(arm) for arm in (base, candidate)]
    change = means[1] - means[0]
    return np.asarray(change[~np.isnan(change)])


def _row_means(arm: ArmTask) -> np.ndarray[Any, np.dtype[np.float64]]:
    graded = ~np.isnan(arm.scores)
    return np.asarray(np.where(graded, arm.scores, 0.0).sum(axis=1) / graded.sum(axis=1))


def _samples(base: ArmTask, candidate: ArmTask) -> list[dict[str, Json]]:
    """Return the samples whose number of right tries differs, the largest loss first."""
    rows: list[tuple[float, dict[str, Json]]] = []
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [_row_means(arm) for arm in (base, candidate)]
    for i, sample_id in enumerate(base.sample_ids):
        change = float(means[1][i] - means[0][i])
        if change:
            right = [int((arm.outcomes[i] == CORRECT).sum()) for arm in (base, candidate)]
            graded = [int((arm.outcomes[i] < UNGRADED).sum()) for arm in (base, candidate)]
            rows.append(
                (change, {"sample_id": sample_id, "right": list(right), "graded": list(graded)})
            )
    rows.sort(key=lambda row: (row[0], str(row[1]["sample_id"])))
    return [row for _, row in rows]


def _pct(scores: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    graded = scores[~np.isnan(scores)]
    return 100 * float(graded.mean()) if len(graded) else None


def _share(arm: ArmTask, flags: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    there = arm.outcomes < UNGRADED
    return 100 * float(flags[there].mean()) if there.any() else 0.0
