"""The verdict record: what verdict.json holds. Everything that is printed comes from it.

Points (`_pt`) are percentage points. docs/gate.md lists the fields.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

import g4eval
from g4eval.fingerprint import sha256_json
from g4eval.gate.arm import Arm, ArmTask, worst_case
from g4eval.gate.decide import Look, count_round
from g4eval.gate.layers import LayerOutcome
from g4eval.gate.next_steps import grading_commands, missing_commands
from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import Round, next_round
from g4eval.gate.verdict import (
    EXIT_CODES,
    GateVerdict,
    Judgement,
    complete_rounds,
    paired_scores,
)
from g4eval.records import Json
from g4eval.stats.accuracy import variances
from g4eval.stats.paired import Difference, Floats, macro_difference
from g4eval.stats.sequential import confidence_sequence
from g4eval.store.verdicts import VerdictRecord

TWO_SIDED_95 = 1.959964
MEANING_WITHOUT_LOOK = {
    GateVerdict.FAIL: "FAIL means: the candidate's next tokens alone show that it is broken; "
    "accuracies were not compared.",
    GateVerdict.INVALID: "INVALID means: the two runs don't measure the same thing; accuracies "
    "were not compared.",
}


def verdict_record(
    judgement: Judgement,
    base: Arm,
    candidate: Arm,
    policy: GatePolicy,
    *,
    now: datetime,
    continues: str | None = None,
) -> VerdictRecord:
    """Return the record of a judgement, with its hash.

    Args:
        judgement: what was judged.
        base: the baseline.
        candidate: the candidate.
        policy: the rules.
        now: the time of the decision.
        continues: the time of the first look, where this continues a decision.
    """
    verdict = judgement.verdict
    code = EXIT_CODES[verdict]
    if verdict is GateVerdict.INCONCLUSIVE and policy.on_inconclusive == "fail":
        code = EXIT_CODES[GateVerdict.FAIL]
    record: dict[str, Any] = {
        "g4eval_version": g4eval.__version__,
        "verdict": verdict.value,
        "exit_code": code,
        "reasons": list(judgement.reasons),
        "meaning": meaning(verdict, policy) if judgement.looks else MEANING_WITHOUT_LOOK[verdict],
        "decided_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "first_look_at": continues or now.astimezone(UTC).isoformat(timespec="seconds"),
        "baseline": _arm(base),
        "candidate": _arm(candidate),
        "policy": policy.model_dump(mode="json"),
        "policy_fingerprint": policy.fingerprint,
        "policy_defaults": sorted(set(type(policy).model_fields) - policy.model_fields_set),
        "layers": [_layer(layer) for layer in judgement.layers],
        "not_run": [layer.layer for layer in judgement.layers if layer.says == "not run"],
        "calibration": _calibration(base, now),
        "next": _next(judgement, base, candidate),
    }
    if judgement.looks:
        record.update(_accuracy(judgement, base, candidate, policy))
    return VerdictRecord.sealed(record)


def meaning(verdict: GateVerdict, policy: GatePolicy) -> str:
    """Return the sentence that says what a verdict claims and what it doesn't."""
    where = "on these samples" if policy.estimand == "fixed" else "on samples like these"
    match verdict:
        case GateVerdict.PASS:
            return (
                f"PASS means: at most a {policy.alpha_pass:.0%} chance of this verdict had the "
                f"true loss {where} been {policy.margin_pt:g} points or more."
            )
        case GateVerdict.FAIL:
            return (
                f"FAIL means: at most a {policy.alpha_fail:.0%} chance of the primary's verdict "
                f"had the true difference {where} been {policy.ok_pt:g} points or better; a "
                f"guardrail or a layer may add {policy.guardrail_alpha:.0%} each."
            )
        case GateVerdict.INCONCLUSIVE:
            return (
                f"INCONCLUSIVE means: the data exclude neither a loss of {policy.margin_pt:g} "
                f"points {where} nor a difference of {policy.ok_pt:g}. It is no sign of safety."
            )
        case GateVerdict.INVALID:
            return MEANING_WITHOUT_LOOK[verdict]


def data_digest(base: Arm, candidate: Arm, rounds: Sequence[Round]) -> str:
    """Return a hash of all that the given rounds hold in both arms."""
    repeats = {task: (0, end) for task, (_, end) in rounds[-1].repeats.items()} if rounds else {}
    return sha256_json([base.digest(repeats), candidate.digest(repeats)])


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "run_id": arm.run_id,
        "seed": arm.seed,
        "engine": dict(arm.facts),
        "declared": list(arm.declared),
    }


def _layer(layer: LayerOutcome) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "says": layer.says,
        "findings": list(layer.findings),
        "details": dict(layer.details),
    }


def _next(judgement: Judgement, base: Arm, candidate: Arm) -> list[str]:
    """Return the commands after which the same gate command can say more."""
    if judgement.verdict is GateVerdict.INVALID:
        return grading_commands(base, candidate, judgement.tasks)
    if not judgement.can_continue:
        return []
    rounds = judgement.rounds
    if complete_rounds(rounds, base, candidate) == len(rounds):  # anytime: one more
        rounds = (*rounds, next_round(rounds[-1]))
    return missing_commands(rounds, (base, candidate))


def _calibration(base: Arm, now: datetime) -> dict[str, Any] | None:
    if base.calibration is None:
        return None
    made = datetime.fromisoformat(base.calibration.created)
    return {
        "id": base.calibration.id,
        "created": base.calibration.created,
        "age_days": round((now.astimezone(UTC) - made).total_seconds() / 86400, 1),
    }


def _accuracy(
    judgement: Judgement, base: Arm, candidate: Arm, policy: GatePolicy
) -> dict[str, Any]:
    last = judgement.looks[-1]
    used = judgement.rounds[: last.round_index + 1]
    n_samples = {task: len(base.tasks[task].sample_ids) for task in judgement.tasks}
    ends = {task: end for task, (_, end) in used[-1].repeats.items()}
    judged = worst_case(base, candidate)
    return {
        "estimand": _estimand(policy, n_samples),
        "design": policy.design,
        "primary": _primary(judgement, *judged, policy),
        "tasks": {
            task: _task(
                task,
                last,
                policy,
                [a.tasks[task].until(ends[task]) for a in judged],
                [a.tasks[task].until(ends[task]).n_ungraded for a in (base, candidate)],
            )
            for task in judgement.tasks
        },
        "looks": [_look(look, policy) for look in judgement.looks],
        "pairs_used": last.n_pairs,
        "pairs_planned": sum(
            n_samples[task] * end for task, (_, end) in judgement.rounds[-1].repeats.items()
        ),
        "rounds": [{t: list(r.repeats[t]) for t in r.repeats} for r in judgement.rounds],
        "rounds_used": len(used),
        "can_continue": judgement.can_continue,
        "data": data_digest(base, candidate, used),
    }


def _estimand(policy: GatePolicy, n_samples: Mapping[str, int]) -> str:
    what = "the equal-weight mean over tasks" if policy.primary == "macro" else policy.primary
    counts = ", ".join(f"{task} {n}" for task, n in n_samples.items())
    where = "these samples" if policy.estimand == "fixed" else "samples like these"
    return f"candidate minus baseline accuracy, {what}, on {where} ({counts})"


def _primary(
    judgement: Judgement, base: Arm, candidate: Arm, policy: GatePolicy
) -> dict[str, Json]:
    last = judgement.looks[-1]
    tasks = judgement.tasks if policy.primary == "macro" else (policy.primary,)
    values = macro_json([last.tasks[task] for task in tasks])
    if policy.design == "anytime":
        scores = paired_scores(base, candidate, tasks)
        used = judgement.rounds[: last.round_index + 1]
        counts = [[count_round(scores[t], *r.repeats[t]) for t in tasks] for r in used]
        values["confidence_sequence_pt"] = [100 * edge for edge in confidence_sequence(counts)]
    else:
        delta, error = float(last.primary.delta), float(last.primary.se)
        values["lower_limit_pt"] = _pt(delta - last.bound_pass * error)
        values["upper_limit_pt"] = _pt(delta + last.bound_fail * error)
    return values


def _task(
    task: str, look: Look, policy: GatePolicy, arms: Sequence[ArmTask], n_ungraded: Sequence[int]
) -> dict[str, Json]:
    found = look.tasks[task]
    half = 1.644854 * float(found.se)
    return {
        "n_samples": len(arms[0].sample_ids),
        "repeats": arms[0].outcomes.shape[1],
        "baseline_pct": _pt(np.nanmean(arms[0].scores)),
        "candidate_pct": _pt(np.nanmean(arms[1].scores)),
        "delta_pt": _pt(found.delta),
        "se_fixed_pt": _pt(found.se_fixed),
        "se_super_pt": _pt(found.se_super),
        "tau_pt": _pt(found.tau),
        "cannot_exclude_loss_pt": max(0.0, 100 * (half - float(found.delta))),
        "excludes_guardrail_margin": bool(
            float(found.delta) - half > -policy.guardrail_margin_pt / 100
        ),
        "guardrail_z": _number(look.guardrails[task]),
        "n_pairs": int(found.n_pairs),
        "gains": int(found.gains),
        "losses": int(found.losses),
        "discordance_pct": _pt((found.gains + found.losses) / np.maximum(found.n_pairs, 1)),
        "expected_discordance_pct": _pt(found.expected_discordance),
        "rho": _rho(arms[0].scores),
        "ungraded": list(n_ungraded),
        "truncated_pct": [_pt(arm.truncated.mean()) for arm in arms],
    }


def _rho(scores: Floats) -> Json:
    graded = ~np.isnan(scores)
    counts = graded.sum(axis=1)
    correct = np.where(graded, scores, 0.0).sum(axis=1).astype(np.int64)
    found = variances(correct[counts > 0], counts[counts > 0])
    return None if found is None else _number(found.icc)


def _look(look: Look, policy: GatePolicy) -> dict[str, Json]:
    kind = "log_e" if policy.design == "anytime" else "z"
    return {
        "round": look.round_index + 1,
        "information_fraction": look.fraction,
        "pairs": look.n_pairs,
        "delta_pt": _pt(look.primary.delta),
        "se_pt": _pt(look.primary.se),
        f"{kind}_pass": _number(look.statistic_pass),
        "bound_pass": look.bound_pass,
        f"{kind}_fail": _number(look.statistic_fail),
        "bound_fail": look.bound_fail,
        "guardrail_bound": _number(-look.bound_guardrail),
    }


def _interval(delta: Floats, error: Floats) -> Json:
    if math.isnan(float(error)):
        return None
    half = TWO_SIDED_95 * float(error)
    return [100 * (float(delta) - half), 100 * (float(delta) + half)]


def _pt(value: Any) -> Json:
    return _number(100 * float(value))


def _number(value: Any) -> Json:
    """Return a float that JSON can hold: None for nan and infinities."""
    number = float(value)
    return number if math.isfinite(number) else None


def macro_json(found: Sequence[Difference]) -> dict[str, Json]:
    """Return the equal-weight mean over tasks, under both estimands."""
    fixed = macro_difference([d.delta for d in found], [d.se for d in found])
    wide = macro_difference([d.delta for d in found], [d.se_super for d in found])
    return {
        "delta_pt": _pt(fixed.delta),
        "se_fixed_pt": _pt(fixed.se),
        "se_super_pt": _pt(wide.se),
        "interval_fixed_pt": _interval(fixed.delta, fixed.se),
        "interval_super_pt": _interval(wide.delta, wide.se),
    }


def difference_json(found: Difference) -> dict[str, Json]:
    """Return a difference as `g4eval compare --json` prints it."""
    return {
        "delta_pt": _pt(found.delta),
        "se_fixed_pt": _pt(found.se_fixed),
        "se_super_pt": _pt(found.se_super),
        "interval_fixed_pt": _interval(found.delta, found.se),
        "interval_super_pt": _interval(found.delta, found.se_super),
        "tau_pt": _pt(found.tau),
        "n_pairs": int(found.n_pairs),
        "gains": int(found.gains),
        "losses": int(found.losses),
        "discordance_pct": _pt((found.gains + found.losses) / np.maximum(found.n_pairs, 1)),
        "expected_discordance_pct": _pt(found.expected_discordance),
    }
