"""The verdict record: what verdict.json holds. Everything that is printed comes from it.

Points (`_pt`) are percentage points. docs/gate.md lists the fields.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

import g4eval
from g4eval.gating.arm import REFUSED, UNGRADED, Arm, ArmTask
from g4eval.gating.decide import Look, wide_noise
from g4eval.gating.layers import LayerOutcome
from g4eval.gating.next_steps import again_commands, grading_commands, missing_commands
from g4eval.gating.paired_scores import Reading
from g4eval.gating.pairing import Pairing, data_digest
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import next_round
from g4eval.gating.verdict import EXIT_CODES, GateVerdict, Judgement
from g4eval.records import Json
from g4eval.stats.accuracy import variances
from g4eval.stats.noise import Flags, PairNoise, SuperNoise
from g4eval.stats.paired import Difference, Floats, macro_difference
from g4eval.stats.score_test import lower_limit, score_limits, upper_limit
from g4eval.stats.sequential import confidence_sequence
from g4eval.store.verdicts import VerdictRecord

ONE_SIDED_95 = 1.6448536269514722
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
        "policy": policy.as_json(),
        "policy_fingerprint": policy.fingerprint,
        "policy_defaults": list(policy.defaults),
        "layers": [_layer(layer) for layer in judgement.layers],
        "not_run": [layer.layer for layer in judgement.layers if layer.says == "not run"],
        "calibration": _calibration(base, now),
        "next": _next(judgement, base, candidate),
    }
    if judgement.looks:
        assert judgement.pairing is not None
        record.update(_accuracy(judgement, judgement.pairing, (base, candidate)))
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
        return again_commands(base) if judgement.verdict is GateVerdict.INCONCLUSIVE else []
    assert judgement.pairing is not None
    rounds = judgement.pairing.plan.rounds
    if judgement.pairing.n_complete == len(rounds):  # anytime: one more
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


def _accuracy(judgement: Judgement, pairing: Pairing, arms: tuple[Arm, Arm]) -> dict[str, Any]:
    last, policy, plan = judgement.looks[-1], pairing.policy, pairing.plan
    n_used = last.round_index + 1
    n_samples = {task: len(pairing.base.tasks[task].sample_ids) for task in judgement.tasks}
    tasks = judgement.tasks if policy.primary == "macro" else (policy.primary,)
    scores = pairing.scores
    ends = {task: end for task, (_, end) in plan.rounds[n_used - 1].repeats.items()}
    wide = {task: wide_noise(scores[task], ends[task]) for task in judgement.tasks}
    values: dict[str, Any] = {
        "estimand": _estimand(policy, n_samples),
        "design": policy.design,
        "primary": _primary(last, [wide[t] for t in tasks], tasks, pairing),
        "tasks": {
            task: _task(task, last, wide[task], pairing, [a.tasks[task] for a in arms])
            for task in judgement.tasks
        },
        "looks": [_look(look, policy) for look in judgement.looks],
        "pairs_used": last.n_pairs,
        "pairs_planned": sum(
            round(n_samples[task] * end) for task, (_, end) in plan.rounds[-1].repeats.items()
        ),
        "rounds": [{t: list(r.repeats[t]) for t in r.repeats} for r in plan.rounds],
        "rounds_used": n_used,
        "can_continue": judgement.can_continue,
        "data": data_digest(pairing, n_used),
    }
    if plan.base_repeats:
        values["base_repeats"] = dict(plan.base_repeats)
    if plan.allocation:
        values["allocation"] = {task: list(counts) for task, counts in plan.allocation.items()}
    return values


def _estimand(policy: GatePolicy, n_samples: Mapping[str, int]) -> str:
    what = "the equal-weight mean over tasks" if policy.primary == "macro" else policy.primary
    counts = ", ".join(f"{task} {n}" for task, n in n_samples.items())
    where = "these samples" if policy.estimand == "fixed" else "samples like these"
    return f"candidate minus baseline accuracy, {what}, on {where} ({counts})"


def _primary(
    last: Look, wide: Sequence[SuperNoise], tasks: Sequence[str], pairing: Pairing
) -> dict[str, Json]:
    values = macro_json(wide)
    if pairing.policy.design == "anytime":
        scores, used = pairing.scores, pairing.plan.rounds[: last.round_index + 1]
        counts = [[scores[t].count(*r.repeats[t], Reading.LEFT_OUT) for t in tasks] for r in used]
        values["confidence_sequence_pt"] = [100 * edge for edge in confidence_sequence(counts)]
    else:
        noise = [last.noise[t] for t in tasks]
        values["lower_limit_pt"] = _pt(lower_limit([n.for_pass for n in noise], last.bound_pass))
        values["upper_limit_pt"] = _pt(upper_limit([n.for_fail for n in noise], last.bound_fail))
    return values


def _task(
    task: str, look: Look, wide: SuperNoise, pairing: Pairing, raw: Sequence[ArmTask]
) -> dict[str, Json]:
    """Return one task's numbers; `raw`: both arms before refused tries were given an outcome."""
    found, policy, n_used = look.tasks[task], pairing.policy, look.round_index + 1
    used = pairing.used(n_used, task)
    arms = pairing.base.tasks[task], pairing.candidate.tasks[task]
    scores = [np.where(u, arm.scores, np.nan) for u, arm in zip(used, arms, strict=True)]
    lowest = 100 * lower_limit([look.noise[task].for_pass], ONE_SIDED_95)
    copies = pairing.copies(n_used, task)
    return {
        "n_samples": len(arms[0].sample_ids),
        "n_samples_seen": look.n_seen[task],
        "repeats": math.ceil(_mean_repeats(used[1])),
        "baseline_repeats": math.ceil(_mean_repeats(used[0])),
        "baseline_pct": _mean_pct(scores[0]),
        "candidate_pct": _mean_pct(scores[1]),
        **difference_json(found, wide),
        "cannot_exclude_loss_pt": max(0.0, -lowest),
        "excludes_guardrail_margin": bool(lowest > -policy.guardrail_margin_pt),
        "guardrail_z": None if policy.design == "anytime" else _number(look.guardrails[task]),
        "rho": _rho(scores[0]),
        "ungraded": [
            int(np.isin(arm.outcomes[u], (UNGRADED, REFUSED)).sum())
            for u, arm in zip(used, raw, strict=True)
        ],
        "truncated_pct": [_pt(arm.truncated[u].mean()) for u, arm in zip(used, arms, strict=True)],
        "copied_pct": [
            100 * (c.long_share + c.short_share) if c.is_known else None for c in copies
        ],
    }


def _mean_repeats(used: Flags) -> float:
    """Return the repeats of the average sample that has any."""
    counts = used.sum(axis=1)
    return float(counts[counts > 0].mean()) if counts.any() else 0.0


def _mean_pct(scores: Floats) -> Json:
    """Return the mean over samples of the mean over repeats, in percent."""
    graded = ~np.isnan(scores)
    counts = graded.sum(axis=1)
    right = np.where(graded, scores, 0.0).sum(axis=1)
    seen = counts > 0
    return _pt((right[seen] / counts[seen]).mean()) if seen.any() else None


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


def _pt(value: Any) -> Json:
    return _number(100 * float(value))


def _number(value: Any) -> Json:
    """Return a float that JSON can hold: None for nan and infinities."""
    number = float(value)
    return number if math.isfinite(number) else None


def macro_json(wide: Sequence[SuperNoise]) -> dict[str, Json]:
    """Return the equal-weight mean over tasks, under both estimands."""
    fixed = [w.fixed for w in wide]
    narrow = macro_difference([n.delta for n in fixed], [n.own_error() for n in fixed])
    broad = macro_difference([n.delta for n in fixed], [w.own_error() for w in wide])
    return {
        "delta_pt": _pt(narrow.delta),
        "se_fixed_pt": _pt(narrow.se),
        "se_super_pt": _pt(broad.se),
        "interval_fixed_pt": _limits(fixed),
        "interval_super_pt": _limits(wide),
    }


def difference_json(found: Difference, wide: SuperNoise) -> dict[str, Json]:
    """Return a difference as `g4eval compare --json` prints it."""
    return {
        "delta_pt": _pt(found.delta),
        "se_fixed_pt": _pt(found.se_fixed),
        "se_super_pt": _pt(found.se_super),
        "interval_fixed_pt": _limits([wide.fixed]),
        "interval_super_pt": _limits([wide]),
        "tau_pt": _pt(found.tau),
        "n_pairs": int(found.n_pairs),
        "gains": int(found.gains),
        "losses": int(found.losses),
        "discordance_pct": _pt((found.gains + found.losses) / np.maximum(found.n_pairs, 1)),
        "expected_discordance_pct": _pt(found.expected_discordance),
    }


def _limits(noise: Sequence[PairNoise | SuperNoise]) -> Json:
    """Return the 95 % limits of the test itself; None without a pair, or a second cluster."""
    if any(not math.isfinite(float(n.delta)) for n in noise):
        return None
    if any(isinstance(n, SuperNoise) and n.clusters < 2 for n in noise):
        return None
    return [100 * edge for edge in score_limits(noise)]
