"""The gate's layers before accuracy: L0 static, L1 canary, L2 drift.

Each takes two arms and returns what it found. Cheapest first; each can end the decision. L3, the
answers' shape, is shape.py; L4, paired accuracy, decide.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from g4eval.errors import NotReadyError
from g4eval.gating.arm import ABSENT, NO_ANSWER, UNGRADED, Arm, ArmTask
from g4eval.gating.copies import Copies, clusters_of, subtasks_of, what_to_do, words
from g4eval.gating.fingerprint_diff import Change, FactsDiff, compare_facts, compare_tasks
from g4eval.gating.next_steps import declaring_advice, grading_commands
from g4eval.gating.policy import GatePolicy
from g4eval.records import Json
from g4eval.stats.drift import DriftSummary
from g4eval.stats.noise import Flags

LEAST_SAMPLES, LEAST_GROUPS = 60, 20  # for samples like these: fewer keep no stated error rate
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
    findings = [f"{c}{declaring_advice(c.field, base, candidate)}" for c in refused]
    if commands := grading_commands(base, candidate, tasks):
        findings.append(f"graded by an older grader: {'; '.join(commands)}")
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
    base: Arm,
    candidate: Arm,
    used: Mapping[str, tuple[Flags, Flags]],
    policy: GatePolicy,
) -> LayerOutcome:
    """Refuse arms with too many tries that nobody graded, or with unequal shares of them.

    Fewer are read against each verdict in turn, so they cost power and no error rate.
    Raises NotReadyError where an arm is simply not finished.
    """
    limit = policy.max_ungraded_pct / 100
    shares = [
        _ungraded_share([arm.tasks[t].outcomes[flags[i]] for t, flags in used.items()])
        for i, arm in enumerate((base, candidate))
    ]
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


def _ungraded_share(codes: Sequence[NDArray[np.int8]]) -> float:
    made = [c[c != ABSENT] for c in codes]
    ungraded = sum(int((c == UNGRADED).sum()) for c in made)
    return float(ungraded / max(1, sum(int(c.size) for c in made)))


def check_copies(found: Mapping[str, tuple[Copies, Copies]], policy: GatePolicy) -> LayerOutcome:
    """Refuse arms whose repeats are copies; tell those that may be, and what nobody knows."""
    limit = policy.max_copied_pct / 100
    told = [
        text
        for task, arms in found.items()
        for name, copies in zip(("the baseline", "the candidate"), arms, strict=True)
        if (text := words(name, copies, task)) is not None
    ]
    copying = [t for t, arms in found.items() if max(c.long_share for c in arms) > limit]
    if copying:
        told.append(what_to_do(copying))
    says = "INVALID" if copying else ("advisory" if told else "ok")
    shares = {
        task: {
            name: copies.long_share + copies.short_share if copies.is_known else None
            for name, copies in zip(("baseline", "candidate"), arms, strict=True)
        }
        for task, arms in found.items()
    }
    return LayerOutcome(
        layer="L1 canary", says=says, findings=tuple(told), details={"copied_share": shares}
    )


def check_population(base: Arm, tasks: Sequence[str], policy: GatePolicy) -> LayerOutcome:
    """Refuse a statement about samples like these that too few samples carry."""
    findings = []
    if policy.estimand == "super" and policy.design == "anytime":
        findings.append(
            "estimand super: bets on pairs are about these samples only: `design: gst` or "
            "`design: fixed` in gate.yaml, or `estimand: fixed`"
        )
    wanted = tasks if policy.primary == "macro" else (policy.primary,)
    for task_id in wanted if policy.estimand == "super" else ():
        task = base.tasks[task_id]
        groups = len(set(subtasks_of(task_id, task)))
        n = len(np.unique(clusters_of(task)))
        if n < LEAST_SAMPLES:
            findings.append(
                f"{task_id}: {n} questions are too few for samples like these, which takes "
                f"{LEAST_SAMPLES}: `estimand: fixed` in gate.yaml, or a larger set of questions"
            )
        elif 1 < groups < LEAST_GROUPS:
            findings.append(
                f"{task_id}: {groups} subtasks are too few for samples like these, which takes "
                f"{LEAST_GROUPS}: `estimand: fixed` in gate.yaml, or the whole task"
            )
    return LayerOutcome(
        layer="L1 canary", says="INVALID" if findings else "ok", findings=tuple(findings)
    )


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
    """L2: catastrophic drift is a FAIL, unusual drift doubles the plan; never a PASS."""
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
        shown = f"{floor:.4g}"
        if floor < LEAST_FLOOR:  # nothing is known of what is usual, so any drift asks for more
            shown = (
                f"{LEAST_FLOOR:g} (0 was measured: this engine scores a text the same way twice)"
            )
        finding = (
            f"mean KL {kl:.4g} is over {rules.escalate_ratio:g} times the A/A floor "
            f"{shown}: twice the planned repeats are needed"
        )
        return LayerOutcome(layer="L2 drift", says="escalate", findings=(finding,), details=details)
    return LayerOutcome(layer="L2 drift", says="ok", details=details)
