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

from g4eval.gating.arm import NO_ANSWER, UNGRADED, Arm, ArmTask
from g4eval.gating.decide import information
from g4eval.gating.layers import LayerOutcome
from g4eval.gating.paired_scores import PairedScores, Reading
from g4eval.gating.pairing import Pairing
from g4eval.stats.noise import Flags
from g4eval.stats.paired import NORMAL, Floats, macro_difference
from g4eval.stats.sequential import boundaries, log_e_pass


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


def check_shape(pairing: Pairing, n_rounds: int) -> LayerOutcome:
    """L3 at a round's end: how the answers behave, whatever they say."""
    policy, findings, warnings = pairing.policy, list[str](), list[str]()
    details: dict[str, Any] = {}
    limit = policy.shape.increase_pt / 100
    surely = -math.log(policy.shape.alpha)
    scores = pairing.scores
    for signal in RATE_SIGNALS:
        flags = {
            t: replace(
                scores[t],
                base=_flags(signal, pairing.base.tasks[t]),
                candidate=_flags(signal, pairing.candidate.tasks[t]),
            )
            for t in pairing.tasks
        }
        found = _rate_rise(flags, pairing, n_rounds, limit)
        details[signal.name.replace(" ", "_")] = found
        if found["log_e_value"] >= surely:
            findings.append(
                f"{signal.name}: the share rose by {found['increase']:+.1%}, surely more than "
                f"{policy.shape.increase_pt:g} points"
            )
        elif signal.warns and found["log_e_value_of_any"] >= surely:
            warnings.append(f"{signal.name}: the share surely rose, by {found['increase']:+.1%}")
    length = length_at(pairing, n_rounds)
    details["length"] = length
    if length is not None:
        change, limit = length["change_pct"], 100 * policy.shape.length_fail
        if length["least_pct"] > limit or length["most_pct"] < -limit / (1 + limit / 100):
            findings.append(f"length: {change:+.1f} %, surely beyond {limit:g} %")
        elif abs(change) > 100 * policy.shape.length_warn:
            warnings.append(f"length: {change:+.1f} %")
    says = "FAIL" if findings else ("advisory" if warnings else "ok")
    return LayerOutcome(
        layer="L3 shape", says=says, findings=tuple(findings + warnings), details=details
    )


def _flags(signal: _RateSignal, task: ArmTask) -> Floats:
    return np.where(task.outcomes >= UNGRADED, np.nan, signal.of(task).astype(np.float64))


def _rate_rise(
    flags: Mapping[str, PairedScores], pairing: Pairing, n_rounds: int, limit: float
) -> dict[str, float]:
    """Return a rate's mean over tasks in both arms, and the evidence that it rose, in pairs.

    Two log e-values: against a rise of `limit` or less, and against none.
    """
    rounds = pairing.plan.rounds[:n_rounds]
    counts = [[flags[t].count(*r.repeats[t], Reading.LEFT_OUT) for t in flags] for r in rounds]
    used = {t: pairing.used(n_rounds, t) for t in flags}
    shares = [
        sum(_share(getattr(f, arm), used[t][i]) for t, f in flags.items()) / len(flags)
        for i, arm in enumerate(("base", "candidate"))
    ]
    evidence = [float(log_e_pass(counts, -rise).reshape(())) for rise in (limit, 0.0)]
    return {
        "baseline": shares[0],
        "candidate": shares[1],
        "increase": shares[1] - shares[0],
        "log_e_value": evidence[0],
        "log_e_value_of_any": evidence[1],
    }


def _share(flags: Floats, used: Flags) -> float:
    seen = flags[used]
    seen = seen[~np.isnan(seen)]
    return float(seen.mean()) if seen.size else 0.0


def length_at(pairing: Pairing, n_rounds: int) -> dict[str, float] | None:
    """Return the change of the mean length at a round's end, with limits for a FAIL.

    `least_pct` and `most_pct` are wrong, each, with probability `shape.alpha` over all looks
    together: it is spent on them as the accuracies' is, and where there is no last look by
    1 / (j (j + 1)) at look j.
    """
    policy, arms = pairing.policy, []
    for i, arm in enumerate((pairing.base, pairing.candidate)):
        used = {t: pairing.used(n_rounds, t)[i] for t in pairing.tasks}
        arms.append({t: np.where(u, arm.tasks[t].tokens, np.nan) for t, u in used.items()})
    clusters = {t: p.clusters for t, p in pairing.scores.items()}
    found = _mean_log_ratio(arms[0], arms[1], clusters)
    if found is None:
        return None
    alpha = policy.shape.alpha
    if policy.design == "anytime":
        z = NORMAL.inv_cdf(1 - alpha / (n_rounds * (n_rounds + 1)))
    else:
        scores = pairing.scores
        fractions = information(scores, pairing.plan.rounds, pairing.tasks)
        z = boundaries(fractions[:n_rounds], alpha, policy.spending)[-1]
    least, most = found.limits(z)
    return found.as_json() | {"least_pct": 100 * least, "most_pct": 100 * most}


def length_change(base: Arm, candidate: Arm, tasks: Sequence[str]) -> dict[str, float] | None:
    """Return the change of the mean length, candidate to baseline, in percent and 95 % limits.

    The mean over tasks of the mean log ratio, clustered by sample; None where lengths are unknown.
    """
    arms = [{t: arm.tasks[t].tokens for t in tasks} for arm in (base, candidate)]
    found = _mean_log_ratio(arms[0], arms[1], {})
    return None if found is None else found.as_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class _LogRatio:
    """A mean log ratio of lengths, its error and that error's degrees of freedom."""

    mean: float
    error: float
    degrees: float

    def limits(self, z: float) -> tuple[float, float]:
        """Return relative changes at the t of a z's probability below and above."""
        from scipy.special import ndtr, stdtrit

        half = float(stdtrit(self.degrees, float(ndtr(z)))) * self.error
        return math.expm1(self.mean - half), math.expm1(self.mean + half)

    def as_json(self) -> dict[str, float]:
        """Return the change and its 95 % limits, in percent."""
        low, high = self.limits(1.959964)
        return {
            "change_pct": 100 * math.expm1(self.mean),
            "low_pct": 100 * low,
            "high_pct": 100 * high,
        }


def _mean_log_ratio(
    base: Mapping[str, Floats],
    candidate: Mapping[str, Floats],
    clusters: Mapping[str, NDArray[np.int64] | None],
) -> _LogRatio | None:
    """Return the mean over tasks; None where fewer than two samples' lengths are known in each."""
    means, errors, degrees = [], [], []
    for task_id, tokens in base.items():
        known = [tokens, candidate[task_id]]
        usable = ~np.isnan(known[0]).all(axis=1) & ~np.isnan(known[1]).all(axis=1)
        if usable.sum() < 2:
            continue
        lengths = [np.fmax(np.nanmean(k[usable], axis=1), 1.0) for k in known]
        ratios = np.log(lengths[1] / lengths[0])
        of = clusters.get(task_id)
        if of is not None:
            _, names = np.unique(of[usable], return_inverse=True)
            ratios = np.bincount(names, weights=ratios) / np.bincount(names)
        means.append(np.asarray(ratios.mean()))
        errors.append(np.asarray(ratios.std(ddof=1) / np.sqrt(len(ratios))))
        degrees.append(len(ratios) - 1)
    if not means:
        return None
    macro = macro_difference(means, errors)
    fourth = sum(float(e) ** 4 / d for e, d in zip(errors, degrees, strict=True))
    total = sum(float(e) ** 2 for e in errors)
    return _LogRatio(
        mean=float(macro.delta),
        error=float(macro.se),
        degrees=total**2 / fourth if fourth > 0 else float(min(degrees)),
    )
