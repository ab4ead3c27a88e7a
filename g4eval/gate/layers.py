"""The gate's layers before and beside accuracy: L0 static, L1 canary, L2 drift, L3 shape.

Each takes two arms and returns what it found. Cheapest first; each can end the decision. L4, paired
accuracy, is decide.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from g4eval.errors import NotReadyError
from g4eval.gate.arm import ABSENT, NO_ANSWER, UNGRADED, Arm, ArmTask
from g4eval.gate.decide import PairedScores, count_round
from g4eval.gate.fingerprint_diff import Change, FactsDiff, compare_facts, compare_tasks
from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import Round
from g4eval.records import Json
from g4eval.stats.drift import DriftSummary
from g4eval.stats.paired import Floats, macro_difference
from g4eval.stats.sequential import log_e_pass

LEAST_FLOOR = 1e-6  # nats: what float32 log-probabilities resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutcome:
    """What one layer says."""

    layer: str  # "L0 static"
    says: str  # ok, advisory, escalate, FAIL, INVALID, PASS, not run
    findings: tuple[str, ...] = ()
    details: Mapping[str, Json] = field(default_factory=dict)


def check_static(
    base: Arm, candidate: Arm, tasks: Sequence[str], policy: GatePolicy
) -> LayerOutcome:
    """L0: the arms may differ only in the swap."""
    facts = compare_facts(base, candidate, policy.swap)
    refused: list[Change] = list(facts.refused)
    for task_id in tasks:
        refused += compare_tasks(task_id, base.tasks[task_id], candidate.tasks[task_id])
    findings = [str(change) for change in refused]
    findings += _seed_findings(base, candidate)
    same_seed = base.seed is not None and base.seed == candidate.seed
    is_invalid = bool(refused) or (same_seed and policy.design == "anytime")
    says = "INVALID" if is_invalid else ("advisory" if findings else "ok")
    return LayerOutcome(
        layer="L0 static", says=says, findings=tuple(findings), details=_static_details(facts)
    )


def _static_details(facts: FactsDiff) -> dict[str, Json]:
    return {
        "axis": facts.axis,
        "changed": [str(change) for change in facts.changed],
        "unknown_in_both": list(facts.unknown),
        "declared": list(facts.declared),
    }


def _seed_findings(base: Arm, candidate: Arm) -> list[str]:
    if base.seed is None or base.seed != candidate.seed:
        return []
    return [
        f"run seed: baseline {base.seed}, candidate {candidate.seed}; the arms should draw "
        "independently: give the candidate another --seed"
    ]


def check_ungraded(
    base: Arm, candidate: Arm, repeats: Mapping[str, int], policy: GatePolicy
) -> LayerOutcome:
    """Refuse arms with too many tries that nobody graded, or with unequal shares of them.

    Raises NotReadyError where an arm is simply not finished.
    """
    limit = policy.max_ungraded_pct / 100
    shares = [_ungraded_share(arm, repeats) for arm in (base, candidate)]
    findings = []
    if abs(shares[0] - shares[1]) > limit:
        findings.append(
            f"ungraded: baseline {shares[0]:.2%}, candidate {shares[1]:.2%}; "
            f"the shares may differ by {limit:.2%}"
        )
    elif max(shares) > limit:
        raise NotReadyError(
            f"{max(shares):.2%} of the tries are ungraded; a decision allows {limit:.2%}",
            hint="run the same command again, or g4eval grade RUN",
        )
    return LayerOutcome(
        layer="L1 canary",
        says="INVALID" if findings else "ok",
        findings=tuple(findings),
        details={"ungraded_share": {"baseline": shares[0], "candidate": shares[1]}},
    )


def _ungraded_share(arm: Arm, repeats: Mapping[str, int]) -> float:
    codes = [arm.tasks[t].outcomes[:, :k] for t, k in repeats.items()]
    return sum(int((c == UNGRADED).sum()) for c in codes) / max(1, sum(c.size for c in codes))


def check_canary(base: Arm, candidate: Arm, tasks: Sequence[str]) -> LayerOutcome:
    """L1 on stored data: a candidate that can't answer at all measures nothing.

    Looks at the first try of each sample that has one. A task where the candidate gives no readable
    answer at all or leaves every thought open, and the baseline does not, is a broken setup.
    """
    findings: list[str] = []
    for task_id in tasks:
        left, right = base.tasks[task_id], candidate.tasks[task_id]
        for name, of in (("answers", _answered), ("closed thoughts", _closed)):
            shares = of(left), of(right)
            if shares[1] == 0 and shares[0] > 0:
                findings.append(
                    f"{task_id}.{name}: baseline {shares[0]:.0%}, candidate {shares[1]:.0%} "
                    "of the first tries"
                )
    return LayerOutcome(
        layer="L1 canary", says="INVALID" if findings else "ok", findings=tuple(findings)
    )


def _answered(task: ArmTask) -> float:
    first = task.outcomes[:, 0]
    seen = first[first < UNGRADED]
    return float((seen != NO_ANSWER).mean()) if len(seen) else 1.0


def _closed(task: ArmTask) -> float:
    seen = task.outcomes[:, 0] != ABSENT
    return float((~task.open_thoughts[seen, 0]).mean()) if seen.any() else 1.0


def check_drift(
    drift: DriftSummary | None, floor: float | None, policy: GatePolicy
) -> LayerOutcome:
    """L2: catastrophic drift is a FAIL, unusual drift asks for a larger plan; never a PASS."""
    if drift is None:
        return LayerOutcome(
            layer="L2 drift", says="not run", findings=("no scores: g4eval drift BASE CAND",)
        )
    rules = policy.drift
    details = drift.as_json()
    kl, top1_loss = drift.best_kl.mean, (1 - drift.top1.mean) if drift.top1 else None
    if kl > rules.catastrophic_kl:
        finding = f"mean KL {kl:.4g} nats a token is above {rules.catastrophic_kl:g}"
        return LayerOutcome(layer="L2 drift", says="FAIL", findings=(finding,), details=details)
    if top1_loss is not None and top1_loss > rules.catastrophic_top1_loss:
        finding = (
            f"top-1 agreement {1 - top1_loss:.1%} is below {1 - rules.catastrophic_top1_loss:.0%}"
        )
        return LayerOutcome(layer="L2 drift", says="FAIL", findings=(finding,), details=details)
    if floor is not None and kl > rules.escalate_ratio * max(floor, LEAST_FLOOR):
        finding = (
            f"mean KL {kl:.4g} is over {rules.escalate_ratio:g} times the A/A floor "
            f"{floor:.4g}: plan more repeats"
        )
        return LayerOutcome(layer="L2 drift", says="escalate", findings=(finding,), details=details)
    return LayerOutcome(layer="L2 drift", says="ok", details=details)


def check_shape(
    base: Arm, candidate: Arm, tasks: Sequence[str], rounds: Sequence[Round], policy: GatePolicy
) -> LayerOutcome:
    """L3 at a round's end: truncation, missing answers, open thoughts, length."""
    findings: list[str] = []
    warnings: list[str] = []
    details: dict[str, Any] = {}
    for name, of in (
        ("truncated", lambda task: task.truncated),
        ("no answer", lambda task: task.outcomes == NO_ANSWER),
        ("open thought", lambda task: task.open_thoughts),
    ):
        flags = {
            t: PairedScores(
                base=_flags(of, base.tasks[t]), candidate=_flags(of, candidate.tasks[t])
            )
            for t in tasks
        }
        found = _rate_increase(flags, rounds, policy)
        details[name.replace(" ", "_")] = found
        if found["log_e_value"] >= -math.log(policy.shape.alpha):
            findings.append(
                f"{name}: the share rose by {found['increase']:+.1%}, surely more than "
                f"{policy.shape.increase_pt:g} points"
            )
    ends = {task: end for task, (_, end) in rounds[-1].repeats.items()}
    length = length_change(_until(base, ends), _until(candidate, ends), tasks)
    details["length"] = length
    if length is not None:
        change, limit = length["change_pct"], 100 * policy.shape.length_fail
        if length["low_pct"] > limit or length["high_pct"] < -limit / (1 + limit / 100):
            findings.append(
                f"length: {change:+.1f} %, the whole 95 % interval is beyond {limit:g} %"
            )
        elif abs(change) > 100 * policy.shape.length_warn:
            warnings.append(f"length: {change:+.1f} %")
    says = "FAIL" if findings else ("advisory" if warnings else "ok")
    return LayerOutcome(
        layer="L3 shape", says=says, findings=tuple(findings + warnings), details=details
    )


def _until(arm: Arm, ends: Mapping[str, int]) -> Arm:
    return replace(arm, tasks={task: arm.tasks[task].until(end) for task, end in ends.items()})


def _flags(of: Any, task: ArmTask) -> Floats:
    return np.where(task.outcomes >= UNGRADED, np.nan, of(task).astype(np.float64))


def _rate_increase(
    flags: Mapping[str, PairedScores], rounds: Sequence[Round], policy: GatePolicy
) -> dict[str, float]:
    """Return the mean increase of a rate over tasks, and the evidence that it is too large."""
    counts = [[count_round(flags[t], *r.repeats[t]) for t in flags] for r in rounds]
    means = [
        float(np.nanmean(f.candidate[:, :end]) - np.nanmean(f.base[:, :end]))
        for t, f in flags.items()
        for end in (rounds[-1].repeats[t][1],)
    ]
    evidence = log_e_pass(counts, -policy.shape.increase_pt / 100)
    return {"increase": sum(means) / len(means), "log_e_value": float(evidence.reshape(()))}


def length_change(base: Arm, candidate: Arm, tasks: Sequence[str]) -> dict[str, float] | None:
    """Return the change of the mean length, candidate to baseline, in percent and 95 % limits.

    The mean over tasks of the mean log ratio, clustered by sample; None where lengths are unknown.
    """
    means, errors = [], []
    for task_id in tasks:
        known = [arm.tasks[task_id].tokens for arm in (base, candidate)]
        usable = ~np.isnan(known[0]).all(axis=1) & ~np.isnan(known[1]).all(axis=1)
        if usable.sum() < 2:
            continue
        lengths = [np.fmax(np.nanmean(k[usable], axis=1), 1.0) for k in known]
        ratios = np.log(lengths[1] / lengths[0])
        means.append(np.asarray(ratios.mean()))
        errors.append(np.asarray(ratios.std(ddof=1) / np.sqrt(len(ratios))))
    if not means:
        return None
    macro = macro_difference(means, errors)
    half = 1.959964 * float(macro.se)
    low, middle, high = (float(macro.delta) + step for step in (-half, 0.0, half))
    return {
        "change_pct": 100 * math.expm1(middle),
        "low_pct": 100 * math.expm1(low),
        "high_pct": 100 * math.expm1(high),
    }
