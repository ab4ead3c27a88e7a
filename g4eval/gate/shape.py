"""L3: how the candidate's answers behave, whatever they say: truncation, loops, scripts, length.

Rates are compared pair by pair with the e-process of `anytime`, so they may be looked at after
every round. A damaged model often shows here first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from g4eval.gate.arm import NO_ANSWER, UNGRADED, Arm, ArmTask
from g4eval.gate.decide import PairedScores, count_round
from g4eval.gate.layers import LayerOutcome
from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import Round
from g4eval.stats.paired import Floats, macro_difference
from g4eval.stats.sequential import log_e_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _RateSignal:
    """A share of tries that a sound candidate doesn't raise."""

    name: str
    of: Callable[[ArmTask], NDArray[np.bool_]]
    warns: bool = True  # where any rise is sure; counted as wrong already, so accuracy tells: False


RATE_SIGNALS = (
    _RateSignal(name="truncated", of=lambda task: task.truncated, warns=False),
    _RateSignal(name="no answer", of=lambda task: task.outcomes == NO_ANSWER, warns=False),
    _RateSignal(name="open thought", of=lambda task: task.open_thoughts),
    _RateSignal(name="looping", of=lambda task: task.looping),
    _RateSignal(name="other script", of=lambda task: task.other_script),
)


def check_shape(
    base: Arm, candidate: Arm, tasks: Sequence[str], rounds: Sequence[Round], policy: GatePolicy
) -> LayerOutcome:
    """L3 at a round's end: how the answers behave, whatever they say."""
    findings: list[str] = []
    warnings: list[str] = []
    details: dict[str, Any] = {}
    limit = policy.shape.increase_pt / 100
    surely = -math.log(policy.shape.alpha)
    for signal in RATE_SIGNALS:
        flags = {
            t: PairedScores(
                base=_flags(signal, base.tasks[t]), candidate=_flags(signal, candidate.tasks[t])
            )
            for t in tasks
        }
        found = _rate_rise(flags, rounds, limit)
        details[signal.name.replace(" ", "_")] = found
        if found["log_e_value"] >= surely:
            findings.append(
                f"{signal.name}: the share rose by {found['increase']:+.1%}, surely more than "
                f"{policy.shape.increase_pt:g} points"
            )
        elif signal.warns and found["log_e_value_of_any"] >= surely:
            warnings.append(f"{signal.name}: the share surely rose, by {found['increase']:+.1%}")
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


def _flags(signal: _RateSignal, task: ArmTask) -> Floats:
    return np.where(task.outcomes >= UNGRADED, np.nan, signal.of(task).astype(np.float64))


def _rate_rise(
    flags: Mapping[str, PairedScores], rounds: Sequence[Round], limit: float
) -> dict[str, float]:
    """Return a rate's mean over tasks in both arms, and the evidence that it rose, in pairs.

    Two log e-values: against a rise of `limit` or less, and against none.
    """
    counts = [[count_round(flags[t], *r.repeats[t]) for t in flags] for r in rounds]
    shares = [
        sum(
            float(np.nanmean(scores[:, : rounds[-1].repeats[t][1]]))
            for t, scores in ((t, getattr(f, arm)) for t, f in flags.items())
        )
        / len(flags)
        for arm in ("base", "candidate")
    ]
    evidence = [float(log_e_pass(counts, -rise).reshape(())) for rise in (limit, 0.0)]
    return {
        "baseline": shares[0],
        "candidate": shares[1],
        "increase": shares[1] - shares[0],
        "log_e_value": evidence[0],
        "log_e_value_of_any": evidence[1],
    }


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
