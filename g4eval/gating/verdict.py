"""Two arms and a policy to a verdict: the layers in their order, cheapest first.

L0 static, L1 canary, L2 drift, then at each round's end L3 shape and L4 paired accuracy. A pure
function of its arguments: the order in which results arrived plays no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from g4eval.errors import NotComparableError, NotReadyError
from g4eval.gating.arm import NEVER_AS, Arm, ArmTask, common_tasks, worst_case
from g4eval.gating.copies import find_copies
from g4eval.gating.decide import Look, Says, look_at
from g4eval.gating.layers import (
    LayerOutcome,
    check_canary,
    check_copies,
    check_drift,
    check_population,
    check_static,
    check_ungraded,
)
from g4eval.gating.next_steps import missing_commands
from g4eval.gating.pairing import DecisionPlan, Pairing
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import Round, plan_rounds
from g4eval.gating.shape import check_shape
from g4eval.stats.drift import DriftSummary
from g4eval.stats.score_test import upper_limit


class GateVerdict(StrEnum):
    """What the gate says."""

    PASS = "PASS"  # noqa: S105  a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


EXIT_CODES = {
    GateVerdict.PASS: 0,
    GateVerdict.FAIL: 1,
    GateVerdict.INCONCLUSIVE: 3,
    GateVerdict.INVALID: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and all it rests on."""

    verdict: GateVerdict
    reasons: tuple[str, ...]
    layers: tuple[LayerOutcome, ...]
    tasks: tuple[str, ...] = ()
    pairing: Pairing | None = None  # None: accuracies were not compared
    looks: tuple[Look, ...] = ()  # taken
    can_continue: bool = False  # more data may decide it


def judge(
    base: Arm,
    candidate: Arm,
    policy: GatePolicy,
    *,
    drift: DriftSummary | None = None,
    drift_floor: float | None = None,
    plan: DecisionPlan | None = None,
    n_looked_at: int = 0,
) -> Judgement:
    """Judge a candidate.

    Args:
        base: the baseline.
        candidate: the candidate; it may still lack rounds of the plan.
        policy: the rules.
        drift: teacher-forced drift between the two; None: not run.
        drift_floor: the calibrated upper limit of the mean KL between equal engines.
        plan: where it is fixed already; None: made from the policy.
        n_looked_at: rounds whose looks said INCONCLUSIVE before, and say no more.

    Raises NotReadyError where there is nothing to decide on yet.
    """
    refused = check_before_generation(base, candidate, policy)
    if refused is not None:
        return refused
    tasks = common_tasks(base, candidate, policy.tasks)
    static = check_static(base, candidate, tasks, policy)
    refused_for_good = _about_refused(base, candidate, tasks)
    base, candidate = worst_case(base, candidate)
    drifted = check_drift(drift, drift_floor, policy)
    if drifted.says == "FAIL":  # a broken model would explain a broken canary, or no data at all
        return Judgement(
            verdict=GateVerdict.FAIL,
            reasons=drifted.findings,
            layers=(static, LayerOutcome(layer="L1 canary", says="not run"), drifted),
            tasks=tasks,
        )
    if plan is None:
        is_escalated = drifted.says == "escalate"
        plan = plan_of(base, candidate, tasks, policy, is_escalated=is_escalated)
    pairing = Pairing(base=base, candidate=candidate, plan=plan, policy=policy)
    if pairing.n_complete == 0:
        commands = missing_commands(plan.rounds, (base, candidate))
        raise NotReadyError(
            "no round is complete in both arms: a round holds a share of every task",
            where=candidate.run_id,
            hint="finish both runs: " + "; ".join(commands),
        )
    canary = _canary(pairing)
    canary = replace(canary, findings=canary.findings + refused_for_good)
    before = [static, canary, drifted]
    if canary.says == "INVALID":
        return _invalid(before, canary.findings, tasks)
    return _look_by_look(pairing, before, n_looked_at)


def check_before_generation(base: Arm, candidate: Arm, policy: GatePolicy) -> Judgement | None:
    """Return an INVALID judgement that is certain without any completion; None: go on."""
    try:
        tasks = common_tasks(base, candidate, policy.tasks)
        _check_primary(policy, tasks)
    except NotComparableError as error:
        return _invalid([], [error.what])
    static = check_static(base, candidate, tasks, policy)
    return _invalid([static], static.findings, tasks) if static.says == "INVALID" else None


def plan_of(
    base: Arm,
    candidate: Arm | None,
    tasks: Sequence[str],
    policy: GatePolicy,
    *,
    is_escalated: bool = False,
) -> DecisionPlan:
    """Return the plan of a decision: the policy's repeats, else those that the arms have.

    Unusual drift escalates to twice as many, as each named plan is twice the one before it. It is
    known before the first look, so the plan is fixed by then. An early look of the larger plan may
    still decide, by stricter boundaries.
    """
    arms = [base] if candidate is None else [base, candidate]
    repeats: dict[str, int] = {}
    for task in tasks:
        stored = min(arm.tasks[task].n_repeats for arm in arms)
        planned = policy.planned_repeats(task)
        repeats[task] = stored if planned is None else planned
        if repeats[task] == 0:
            raise NotReadyError(
                f"{task}: no repeat is complete over all samples",
                where=min(arms, key=lambda arm: arm.tasks[task].n_repeats).run_id,
                hint="the same g4eval run command continues a run",
            )
    if is_escalated:
        repeats = {task: 2 * count for task, count in repeats.items()}
    n_samples = {task: len(base.tasks[task].sample_ids) for task in tasks}
    rounds = plan_rounds(repeats, design=policy.design, looks=policy.looks, n_samples=n_samples)
    counted: dict[str, int] = {}
    if policy.baseline_repeats == "all" and policy.design != "anytime":  # which bets on pairs
        counted = {
            task: _counted(base.tasks[task], repeats[task], policy)
            for task in tasks
            if base.tasks[task].n_repeats >= repeats[task]
        }
    return DecisionPlan(rounds=rounds, base_repeats=counted)


def _counted(task: ArmTask, repeats: int, policy: GatePolicy) -> int:
    """Return how many of the baseline's repeats count: all, or one where one is compared with one.

    Copies say nothing that the first of them doesn't.
    """
    every = int(task.outcomes.shape[1])
    if repeats == 1 and every > 1:
        found = find_copies(task, np.ones(task.outcomes.shape, np.bool_))
        if found.long_share > policy.max_copied_pct / 100:
            return 1
    return every


def _check_primary(policy: GatePolicy, tasks: Sequence[str]) -> None:
    if policy.primary != "macro" and policy.primary not in tasks:
        raise NotComparableError(
            f"primary: {policy.primary!r} is not one of the tasks {', '.join(tasks)}"
        )


def _about_refused(base: Arm, candidate: Arm, tasks: Sequence[str]) -> tuple[str, ...]:
    """Say how many tries can never succeed, and how they count."""
    counts = [sum(arm.tasks[task].n_refused for task in tasks) for arm in (base, candidate)]
    if not any(counts):
        return ()
    as_wrong = any(NEVER_AS in base.tasks[task].protocol for task in tasks)
    how = (
        "as wrong, as both runs were asked"
        if as_wrong
        else "the baseline's as right, the candidate's as wrong"
    )
    return (f"refused for good: baseline {counts[0]}, candidate {counts[1]}; counted {how}",)


def _canary(pairing: Pairing) -> LayerOutcome:
    """L1 at what the complete rounds hold."""
    n, policy = pairing.n_complete, pairing.policy
    used = {task: pairing.used(n, task) for task in pairing.tasks}
    parts = (
        check_canary(pairing.base, pairing.candidate, pairing.tasks),
        check_ungraded(pairing.base, pairing.candidate, used, policy),
        check_copies({t: pairing.copies(n, t) for t in pairing.tasks}, policy),
        check_population(pairing.base, pairing.tasks, policy),
    )
    said = [part.says for part in parts]
    says = next((word for word in ("INVALID", "advisory") if word in said), "ok")
    return LayerOutcome(
        layer="L1 canary",
        says=says,
        findings=tuple(f for part in parts if part.says == says for f in part.findings),
        details={key: value for part in parts for key, value in part.details.items()},
    )


def _look_by_look(pairing: Pairing, before: Sequence[LayerOutcome], n_looked_at: int) -> Judgement:
    policy, rounds, n_complete = pairing.policy, pairing.plan.rounds, pairing.n_complete
    scores = pairing.scores
    looks: list[Look] = []
    shape = LayerOutcome(layer="L3 shape", says="not run")
    verdict, reasons = GateVerdict.INCONCLUSIVE, list[str]()
    for index in range(n_complete):
        look = look_at(scores, rounds, index, policy)
        looks.append(look)
        if index < n_looked_at:
            continue
        shape = check_shape(pairing, index + 1)
        verdict, reasons = _decision(look, shape, policy)
        if verdict is not GateVerdict.INCONCLUSIVE:
            break
    is_open = n_complete < len(rounds) or policy.design == "anytime"
    if verdict is GateVerdict.INCONCLUSIVE:
        reasons = [_why_inconclusive(looks[-1], rounds, n_complete, policy)]
    return Judgement(
        verdict=verdict,
        reasons=tuple(reasons),
        layers=(*before, shape, _accuracy_layer(looks[-1], verdict)),
        tasks=pairing.tasks,
        pairing=pairing,
        looks=tuple(looks),
        can_continue=verdict is GateVerdict.INCONCLUSIVE and is_open,
    )


def _decision(look: Look, shape: LayerOutcome, policy: GatePolicy) -> tuple[GateVerdict, list[str]]:
    reasons = list(shape.findings) if shape.says == "FAIL" else []
    reasons += [
        f"{task}: {100 * float(look.tasks[task].delta):+.2f} points, z {float(z):.2f} is below "
        f"the guardrail's {-look.bound_guardrail:.2f}"
        for task, z in look.guardrails.items()
        if float(z) < -look.bound_guardrail
    ]
    primary = Says(int(look.primary_says))
    delta = 100 * float(look.primary.delta)
    if primary is Says.FAIL:
        reasons.append(f"{policy.primary}: {delta:+.2f} points: {_size_of_loss(look, policy)}")
    if reasons:
        return GateVerdict.FAIL, reasons
    if primary is Says.PASS:
        return GateVerdict.PASS, [
            f"{policy.primary}: {delta:+.2f} points: a loss of {policy.margin_pt:g} or more is "
            "excluded"
        ]
    return GateVerdict.INCONCLUSIVE, []


def _size_of_loss(look: Look, policy: GatePolicy) -> str:
    """Say how a proven loss compares with the margin."""
    delta, margin = float(look.primary.delta), policy.margin
    if policy.equivalence and delta > 0:
        return "a real difference, and equivalence was asked for"
    if float(look.statistic_pass) > look.bound_pass:
        return (
            f"a real loss, and smaller than the margin of {policy.margin_pt:g}: price it in with "
            "ok_pt if it is acceptable"
        )
    if policy.design == "anytime":
        return f"a real loss, perhaps smaller than the margin of {policy.margin_pt:g}"
    tasks = list(look.noise) if policy.primary == "macro" else [policy.primary]
    least = -upper_limit([look.noise[t].for_fail for t in tasks], look.bound_fail)
    size = f"a real loss, of {100 * least:.2f} or more as this look's boundary tells"
    if least >= margin:
        return f"{size}, and larger than the margin of {policy.margin_pt:g}"
    return f"{size}, perhaps smaller than the margin of {policy.margin_pt:g}"


def _why_inconclusive(
    look: Look, rounds: Sequence[Round], n_complete: int, policy: GatePolicy
) -> str:
    found = f"{policy.primary}: {100 * float(look.primary.delta):+.2f} points: neither a loss of "
    found += f"{policy.margin_pt:g} nor {policy.ok_pt:g} is excluded"
    if n_complete < len(rounds):
        return f"{found} after {n_complete} of {len(rounds)} rounds: finish both runs"
    if policy.design == "anytime":
        return f"{found}: more repeats in both runs continue this decision"
    return f"{found}, and alpha is spent: a decision with more repeats needs a new candidate run"


def _accuracy_layer(look: Look, verdict: GateVerdict) -> LayerOutcome:
    return LayerOutcome(
        layer="L4 accuracy", says=verdict.value, details={"looks_taken": look.round_index + 1}
    )


def _invalid(
    layers: Sequence[LayerOutcome], reasons: Sequence[str], tasks: Sequence[str] = ()
) -> Judgement:
    return Judgement(
        verdict=GateVerdict.INVALID,
        reasons=tuple(reasons),
        layers=tuple(layers),
        tasks=tuple(tasks),
    )
