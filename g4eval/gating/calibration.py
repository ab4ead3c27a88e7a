"""A/A calibration: does the gate let the baseline pass against itself on this machine?

Judged from two runs of the baseline with different run seeds and a damaged one as positive control.
What it finds is stored as calibration.json beside the baseline; without it the gate isn't armed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from g4eval.errors import NotComparableError, NotReadyError
from g4eval.gating.arm import Arm
from g4eval.gating.copies import what_to_do, words
from g4eval.gating.decide import Says, decide
from g4eval.gating.load import CALIBRATION
from g4eval.gating.paired_scores import PairedScores
from g4eval.gating.pairing import Pairing
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import Round
from g4eval.gating.shape import check_shape
from g4eval.gating.verdict import GateVerdict, judge, plan_of
from g4eval.records import Json
from g4eval.stats.accuracy import variances
from g4eval.stats.drift import DriftSummary
from g4eval.stats.noise import PairNoise, pair_noise
from g4eval.stats.paired import Difference, Floats, paired_difference
from g4eval.stats.score_test import z_of
from g4eval.store.manifest import write_json
from g4eval.store.verdicts import Calibration

SPLITS = 200  # random half-splits of the baseline's repeats
SPLITS_NEED = 50  # discordant pairs each: fewer come in steps too coarse for a rate
LARGEST_Z = 3.0
CHANGES_SHOWN = 5
DISCORDANCE_BAND = (0.8, 1.25)  # observed over expected from sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that equal arms must show."""

    name: str
    is_met: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderNoise:
    """What came of grading the baseline's stored completions once more."""

    n_graded: int
    changed: tuple[str, ...]  # task, sample, repeat and both outcomes of each other judgement
    not_run: str | None = None  # why it couldn't be done


def calibrate(
    base: Arm,
    again: Arm,
    control: Arm | None,
    policy: GatePolicy,
    *,
    now: datetime,
    drift: DriftSummary | None = None,
    noise: GraderNoise | None = None,
    load: Mapping[str, Json] | None = None,
) -> Calibration:
    """Return the calibration of a baseline: checks, noise floor, variance components.

    Args:
        base: the baseline.
        again: the same with another run seed.
        control: a deliberately damaged one, which must FAIL; None: not run.
        policy: the rules that the gate will use.
        now: the time.
        drift: between two scorings by the same engine.
        noise: of the graders; None: not looked at.
        load: by arm, what its engine ran with that must not move a score: concurrency, batches.
    """
    tasks = policy.tasks or tuple(sorted(base.tasks))
    checks = _checks(base, again, control, policy, tasks)
    if noise is not None:
        checks.append(_grades_repeat(noise))
    values: dict[str, Any] = {
        "created": now.astimezone(UTC).isoformat(timespec="seconds"),
        "baseline": base.run_id,
        "again": again.run_id,
        "control": None if control is None else control.run_id,
        "engine_fingerprint": base.fingerprint,
        "checks": [{"name": c.name, "is_met": c.is_met, "found": c.found} for c in checks],
        "is_armed": all(c.is_met for c in checks),
        "load": dict(load or {}),
        "drift_floor_kl": None if drift is None else drift.best_kl.upper,
        "drift_floor_top1_loss": None
        if drift is None or drift.top1 is None
        else 1 - drift.top1.mean,
        "tasks": {task: _components(base, again, task) for task in tasks},
        "repeats": {task: base.tasks[task].outcomes.shape[1] for task in tasks},
    }
    values["data"] = _data_digest(base, values["repeats"])
    return Calibration.sealed(values)


def _data_digest(base: Arm, repeats: Mapping[str, int]) -> str:
    """Return the hash of the baseline's outcomes that a calibration was made from."""
    return base.digest({task: (0, end) for task, end in repeats.items()})


def _checks(
    base: Arm, again: Arm, control: Arm | None, policy: GatePolicy, tasks: Sequence[str]
) -> list[Check]:
    fixed = policy.model_copy(update={"design": "fixed", "plan": "stored", "repeats": {}})
    pairing = _pairing(base, again, tasks, fixed)
    scores = pairing.scores
    found = {task: paired_difference(p.base, p.candidate) for task, p in scores.items()}
    judgement = judge(base, again, fixed)
    checks = [
        Check(
            name="the baseline does not fail against itself",
            is_met=judgement.verdict in (GateVerdict.PASS, GateVerdict.INCONCLUSIVE),
            found="; ".join([judgement.verdict.value, *judgement.reasons]),
        ),
        _seeds_differ(base, again),
        _repeats_are_tries(pairing, fixed),
        _difference_is_small([_noise(p) for p in scores.values()]),
        *(_discordance_fits(task, d) for task, d in found.items()),
        _shape_is_equal(pairing),
        _half_splits_pass(base, tasks, fixed),
    ]
    if control is not None:
        checks.append(_control_fails(base, control, tasks, fixed))
    return checks


def check_armed(base: Arm, *, uncalibrated: bool) -> None:
    """Refuse to decide against a baseline that nobody saw pass against itself."""
    if uncalibrated:
        return
    found = base.calibration
    how = f"g4eval gate-calibrate {base.run_id}"
    if found is None:
        raise NotReadyError(
            "the gate is not armed: this baseline has no A/A calibration",
            where=base.run_id,
            hint=f"{how}, or decide without it: --uncalibrated",
        )
    _refuse_other_data(base, found, how)
    missed = [check for check in found.checks if not check.is_met]
    if missed:
        raise NotComparableError(
            "the gate is not armed: the calibration found that "
            + "; ".join(f"not {c.name} ({c.found})" for c in missed),
            where=base.run_id,
            hint=f"mend what differs between equal runs, then {how}",
        )


def _refuse_other_data(base: Arm, found: Calibration, how: str) -> None:
    """Refuse a calibration of another engine, or of outcomes that are no longer there."""
    has_outcomes = found.repeats is None or (
        found.repeats.keys() <= base.tasks.keys()
        and all(end <= base.tasks[t].outcomes.shape[1] for t, end in found.repeats.items())
        and _data_digest(base, found.repeats) == found.data
    )
    if found.engine_fingerprint != base.fingerprint or not has_outcomes:
        raise NotComparableError(
            f"the gate is not armed: the calibration of {found.created} was made from other "
            + ("outcomes" if found.engine_fingerprint == base.fingerprint else "engine facts"),
            where=base.run_id,
            hint=f"graded again? {how}",
        )


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write calibration.json beside the baseline, whole or not at all."""
    path = folder / CALIBRATION
    write_json(path, calibration.as_json())
    return path


def _seeds_differ(base: Arm, again: Arm) -> Check:
    return Check(
        name="the two runs draw independently",
        is_met=base.seed is None or base.seed != again.seed,
        found=f"run seeds {base.seed} and {again.seed}",
    )


def _pairing(base: Arm, other: Arm, tasks: Sequence[str], policy: GatePolicy) -> Pairing:
    plan = plan_of(base, other, tasks, policy)
    return Pairing(base=base, candidate=other, plan=plan, policy=policy)


def _repeats_are_tries(pairing: Pairing, policy: GatePolicy) -> Check:
    """Check that the repeats of either run are no copies: four of them would count as four."""
    found = {task: pairing.copies(pairing.n_complete, task) for task in pairing.tasks}
    told = [
        text
        for task, arms in found.items()
        for name, copies in zip(("the baseline", "the second run"), arms, strict=True)
        if (text := words(name, copies, task)) is not None
    ]
    limit = policy.max_copied_pct / 100
    copying = [t for t, arms in found.items() if max(c.long_share for c in arms) > limit]
    if copying:
        told.append(what_to_do(copying))
    return Check(
        name="repeats are tries of their own",
        is_met=not copying,
        found="; ".join(told) or "no two texts of a sample are equal",
    )


def _noise(pair: PairedScores) -> PairNoise:
    return pair_noise(pair.base, pair.candidate, copied=pair.copied, clusters=pair.clusters)


def _difference_is_small(noise: Sequence[PairNoise]) -> Check:
    z = float(z_of(noise, 0.0))
    delta = float(np.mean([n.delta for n in noise]))
    return Check(
        name=f"the macro difference is within {LARGEST_Z:g} standard errors",
        is_met=abs(z) < LARGEST_Z,
        found=f"{100 * delta:+.2f} points, z {z:+.2f}",
    )


def _discordance_fits(task: str, found: Difference) -> Check:
    """Check that repeats of two runs differ as often as repeats within a run.

    More means a hidden state (caches, order, grader); less means that the seeds aren't independent.
    Where few pairs leave the ratio uncertain, three of its standard errors are allowed.
    """
    n, expected = float(found.n_pairs), float(found.expected_discordance)
    observed = float(found.gains + found.losses) / max(n, 1)
    if math.isnan(expected):
        shown, is_met = f"{observed:.1%}; one repeat can't tell what to expect", True
    else:
        slack = 3 * math.sqrt(max(expected * (1 - expected), 1 / n) / n)
        low, high = (edge * expected for edge in DISCORDANCE_BAND)
        is_met = low - slack <= observed <= high + slack
        shown = f"{observed:.1%}, from sampling {expected:.1%}"
    return Check(name=f"{task}: flips are those of sampling", is_met=is_met, found=shown)


def _shape_is_equal(pairing: Pairing) -> Check:
    shape = check_shape(pairing, pairing.n_complete)
    return Check(
        name="lengths and truncation are equal",
        is_met=shape.says != "FAIL",
        found="; ".join(shape.findings) or "equal",
    )


def _grades_repeat(noise: GraderNoise) -> Check:
    """Check that graders say the same of the same text: time limits of code are what may not."""
    if noise.not_run is not None:
        found = f"not run: {noise.not_run}"
    elif noise.changed:
        shown = "; ".join(noise.changed[:CHANGES_SHOWN])
        found = f"{len(noise.changed)} of {noise.n_graded:,} judged otherwise: {shown}"
    else:
        found = f"{noise.n_graded:,} graded twice, none judged otherwise"
    return Check(name="graders repeat their grades", is_met=not noise.changed, found=found)


def _half_splits_pass(base: Arm, tasks: Sequence[str], policy: GatePolicy) -> Check:
    """Judge random halves of the baseline's repeats: the whole pipeline's null, at no cost."""
    half = min(base.tasks[task].n_repeats for task in tasks) // 2
    if half < 1:
        return Check(
            name="half-splits of the baseline pass",
            is_met=True,
            found="not run: a task has a single repeat",
        )
    rng = np.random.default_rng(0)
    scores = {task: _split(rng, base.tasks[task].scores, half) for task in tasks}
    rounds = [Round(repeats=dict.fromkeys(tasks, (0, half)))]
    look = decide(scores, rounds, policy)[-1]
    discordant = sum(float((d.gains + d.losses).mean()) for d in look.tasks.values())
    if discordant < SPLITS_NEED:
        return Check(
            name="half-splits of the baseline pass",
            is_met=True,
            found=f"not run: {discordant:.0f} discordant pairs a split are too few to judge",
        )
    rate = float((look.primary_says == Says.FAIL).mean())
    limit = policy.alpha_fail + 2 * math.sqrt(policy.alpha_fail * (1 - policy.alpha_fail) / SPLITS)
    return Check(
        name="half-splits of the baseline pass",
        is_met=rate <= limit,
        found=f"{rate:.1%} of {SPLITS} fail, {limit:.1%} are allowed",
    )


def _split(rng: np.random.Generator, scores: Floats, half: int) -> PairedScores:
    """Draw two disjoint sets of repeats for each sample, SPLITS times."""
    order = rng.random((SPLITS, *scores.shape)).argsort(axis=-1)
    taken = np.take_along_axis(np.broadcast_to(scores, order.shape), order, axis=-1)
    return PairedScores(base=taken[..., :half], candidate=taken[..., half : 2 * half])


def _control_fails(base: Arm, control: Arm, tasks: Sequence[str], policy: GatePolicy) -> Check:
    """Judge the damaged run by accuracy and shape; its settings differ on purpose."""
    pairing = _pairing(base, control, tasks, policy)
    look = decide(pairing.scores, pairing.plan.rounds, policy)[-1]
    shape = check_shape(pairing, pairing.n_complete)
    return Check(
        name="the positive control fails",
        is_met=int(look.says) == Says.FAIL or shape.says == "FAIL",
        found=f"{100 * float(look.primary.delta):+.2f} points; shape {shape.says}",
    )


def _components(base: Arm, again: Arm, task: str) -> dict[str, float | int | None]:
    """Return what planning needs: accuracy, intra-class correlation, length."""
    scores = np.concatenate([base.tasks[task].scores, again.tasks[task].scores], axis=1)
    graded = ~np.isnan(scores)
    counts = graded.sum(axis=1)
    correct = np.where(graded, scores, 0.0).sum(axis=1).astype(np.int64)
    found = variances(correct[counts > 0], counts[counts > 0])
    tokens = np.concatenate([base.tasks[task].tokens, again.tasks[task].tokens], axis=1)
    known = tokens[~np.isnan(tokens)]
    has_rho = found is not None and math.isfinite(found.icc)
    return {
        "n_samples": len(scores),
        "accuracy": float((correct.sum()) / max(1, counts.sum())),
        "rho": found.icc if found is not None and has_rho else None,
        "within": None if found is None else found.within,
        "mean_tokens": float(known.mean()) if len(known) else None,
        "length_cv": float(known.std() / known.mean()) if len(known) and known.mean() else None,
    }
