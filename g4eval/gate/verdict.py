"""Two arms and a policy to a verdict: the layers in their order, cheapest first.

L0 static, L1 canary, L2 drift, then at each round's end L3 shape and L4 paired accuracy. A pure
function of its arguments: the order in which results arrived plays no part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from g4eval.errors import NotComparableError, NotReadyError
from g4eval.gate.arm import NEVER_AS, Arm, common_tasks, worst_case
from g4eval.gate.decide import Look, PairedScores, Says, look_at
from g4eval.gate.layers import (
    LayerOutcome,
    check_canary,
    check_drift,
    check_static,
    check_ungraded,
)
from g4eval.gate.next_steps import missing_commands
from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import Round, plan_rounds
from g4eval.gate.shape import check_shape
from g4eval.stats.drift import DriftSummary


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
    rounds: tuple[Round, ...] = ()  # the whole plan
    looks: tuple[Look, ...] = ()  # taken
    can_continue: bool = False  # more data may decide it


def judge(
    base: Arm,
    candidate: Arm,
    policy: GatePolicy,
    *,
    drift: DriftSummary | None = None,
    drift_floor: float | None = None,
    rounds: Sequence[Round] | None = None,
) -> Judgement:
    """Judge a candidate.

    Args:
        base: the baseline.
        candidate: the candidate; it may still lack rounds of the plan.
        policy: the rules.
        drift: teacher-forced drift between the two; None: not run.
        drift_floor: the calibrated upper limit of the mean KL between equal engines.
        rounds: the plan, where it is fixed already; None: made from the policy.

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
    is_escalated = drifted.says == "escalate"
    plan = tuple(rounds or plan_of(base, candidate, tasks, policy, is_escalated=is_escalated))
    n_complete = complete_rounds(plan, base, candidate)
    if n_complete == 0:
        commands = missing_commands(plan, (base, candidate))
        raise NotReadyError(
            "no round is complete in both arms: a round holds every sample of every task",
            where=candidate.run_id,
            hint="finish both runs: " + "; ".join(commands),
        )
    used = {task: end for task, (_, end) in plan[n_complete - 1].repeats.items()}
    canary = _canary(base, candidate, used, policy)
    canary = replace(canary, findings=canary.findings + refused_for_good)
    before = [static, canary, drifted]
    if canary.says == "INVALID":
        return _invalid(before, canary.findings, tasks)
    pair = _Pair(base=base, candidate=candidate, tasks=tasks, rounds=plan)
    return _look_by_look(pair, n_complete, policy, before)


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
) -> tuple[Round, ...]:
    """Return the rounds of a decision: the policy's repeats, else those that the arms have.

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
    return plan_rounds(repeats, design=policy.design, looks=policy.looks)


def complete_rounds(rounds: Sequence[Round], base: Arm, candidate: Arm) -> int:
    """Return how many rounds, from the first on, are complete in both arms."""

    def is_complete(round_: Round) -> bool:
        return all(
            min(base.tasks[task].n_repeats, candidate.tasks[task].n_repeats) >= end
            for task, (_, end) in round_.repeats.items()
        )

    for index, round_ in enumerate(rounds):
        if not is_complete(round_):
            return index
    return len(rounds)


def paired_scores(base: Arm, candidate: Arm, tasks: Sequence[str]) -> dict[str, PairedScores]:
    """Return both arms' scores by task."""
    return {
        task: PairedScores(base=base.tasks[task].scores, candidate=candidate.tasks[task].scores)
        for task in tasks
    }


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


def _canary(base: Arm, candidate: Arm, used: Mapping[str, int], policy: GatePolicy) -> LayerOutcome:
    canary = check_canary(base, candidate, list(used))
    ungraded = check_ungraded(base, candidate, used, policy)
    says = "INVALID" if "INVALID" in (canary.says, ungraded.says) else "ok"
    return LayerOutcome(
        layer="L1 canary",
        says=says,
        findings=canary.findings + ungraded.findings,
        details=ungraded.details,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Two comparable arms and the plan of their decision."""

    base: Arm
    candidate: Arm
    tasks: tuple[str, ...]
    rounds: tuple[Round, ...]


def _look_by_look(
    pair: _Pair, n_complete: int, policy: GatePolicy, before: Sequence[LayerOutcome]
) -> Judgement:
    scores = paired_scores(pair.base, pair.candidate, pair.tasks)
    looks: list[Look] = []
    shape = LayerOutcome(layer="L3 shape", says="not run")
    verdict, reasons = GateVerdict.INCONCLUSIVE, list[str]()
    for index in range(n_complete):
        look = look_at(scores, pair.rounds, index, policy)
        looks.append(look)
        until = pair.rounds[: index + 1]
        shape = check_shape(pair.base, pair.candidate, pair.tasks, until, policy)
        verdict, reasons = _decision(look, shape, policy)
        if verdict is not GateVerdict.INCONCLUSIVE:
            break
    is_open = n_complete < len(pair.rounds) or policy.design == "anytime"
    if verdict is GateVerdict.INCONCLUSIVE:
        reasons = [_why_inconclusive(looks[-1], pair.rounds, n_complete, policy)]
    return Judgement(
        verdict=verdict,
        reasons=tuple(reasons),
        layers=(*before, shape, _accuracy_layer(looks[-1], verdict)),
        tasks=pair.tasks,
        rounds=pair.rounds,
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
    if delta + look.bound_fail * float(look.primary.se) < -margin and policy.design != "anytime":
        return f"a real loss, and larger than the margin of {policy.margin_pt:g}"
    return f"a real loss, perhaps smaller than the margin of {policy.margin_pt:g}"


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
