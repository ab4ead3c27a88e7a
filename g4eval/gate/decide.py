"""L4: paired accuracy at a round's end -> go on, PASS or FAIL.

The same code decides one gate and, over a leading axis, the thousands of the error-rate simulation.
Rules: statistics in docs/gate.md. PASS rejects "the loss is the margin or more"; FAIL rejects "the
difference is ok or better". Where one look rejects both, the loss is real and smaller than the
margin: a FAIL, and the report says so; a loss that is priced in belongs into `ok_pt`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import Round, information_fractions
from g4eval.stats.paired import (
    NORMAL,
    Difference,
    Floats,
    Macro,
    macro_difference,
    paired_difference,
    tango_error,
)
from g4eval.stats.sequential import RoundCounts, boundaries, log_e_fail, log_e_pass

EARLY_GUARDRAIL_Z = 3.6  # before the last look; so rare that looking costs next to nothing
FEW_DISCORDANT = 20  # below, a normal approximation needs the hypothesis' own variance
MANY_PAIRS = 500  # from here on, Tango's error and the plain one agree


class Says(IntEnum):
    """What a look says."""

    GO_ON = 0
    PASS = 1
    FAIL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedScores:
    """Scores of one task in both arms, [..., N, k], nan where not graded; samples in one order."""

    base: Floats
    candidate: Floats

    @property
    def n_samples(self) -> int:
        """N."""
        return int(self.base.shape[-2])

    def until(self, end: int) -> "PairedScores":
        """Return the first `end` repeats."""
        return PairedScores(base=self.base[..., :end], candidate=self.candidate[..., :end])


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One round end; arrays over the leading axes (0-d for one decision)."""

    round_index: int
    fraction: float  # of the planned information
    tasks: Mapping[str, Difference]
    primary: Macro
    statistic_pass: Floats  # z, or log e-value
    bound_pass: float
    statistic_fail: Floats
    bound_fail: float
    guardrails: Mapping[str, Floats]  # z of each task
    bound_guardrail: float  # a guardrail fails below its negative
    primary_says: NDArray[np.int8]  # the primary alone
    says: NDArray[np.int8]  # with guardrails
    n_pairs: int  # planned pairs consumed


def decide(
    scores: Mapping[str, PairedScores],
    rounds: Sequence[Round],
    policy: GatePolicy,
    *,
    n_complete: int | None = None,
) -> list[Look]:
    """Take looks at round ends until every comparison has its PASS or FAIL, or rounds run out.

    Args:
        scores: by task id; all with the same leading axes.
        rounds: the whole plan, which fixes the information fractions.
        policy: the rules.
        n_complete: how many of the rounds are complete in both arms; None: all.
    """
    looks: list[Look] = []
    undecided: NDArray[np.bool_] | None = None
    for index in range(len(rounds) if n_complete is None else n_complete):
        look = look_at(scores, rounds, index, policy)
        looks.append(look)
        still = look.says == Says.GO_ON
        undecided = still if undecided is None else undecided & still
        if not undecided.any():
            break
    return looks


def look_at(
    scores: Mapping[str, PairedScores], rounds: Sequence[Round], index: int, policy: GatePolicy
) -> Look:
    """Evaluate the end of round `index`; raises ValueError for repeats that aren't there."""
    ends = {task: rounds[index].repeats[task][1] for task in scores}
    for task, end in ends.items():
        if min(scores[task].base.shape[-1], scores[task].candidate.shape[-1]) < end:
            raise ValueError(f"round {index} of {task} needs {end} repeats in both arms")
    n_samples = {task: pair.n_samples for task, pair in scores.items()}
    until = {task: pair.until(ends[task]) for task, pair in scores.items()}
    found = {task: paired_difference(p.base, p.candidate) for task, p in until.items()}
    primary = [policy.primary] if policy.primary != "macro" else list(scores)
    macro = macro_difference(
        [found[t].delta for t in primary], [_estimand_error(found[t], policy) for t in primary]
    )
    fractions = information_fractions(rounds, {t: n_samples[t] for t in primary})
    if policy.design == "anytime":
        test = _bet(scores, rounds[: index + 1], primary, policy)
    else:
        test = _compare_z([found[t] for t in primary], fractions[: index + 1], policy)
    bound = _guardrail_bound(len(scores), policy, is_last=index == len(rounds) - 1)
    guardrails = {
        t: _ratio(d.delta - policy.ok, _error(d, policy, policy.ok)) for t, d in found.items()
    }
    broken = np.any([z < -bound for z in guardrails.values()], axis=0)
    return Look(
        round_index=index,
        fraction=fractions[index],
        tasks=found,
        primary=macro,
        statistic_pass=test.statistic_pass,
        bound_pass=test.bound_pass,
        statistic_fail=test.statistic_fail,
        bound_fail=test.bound_fail,
        guardrails=guardrails,
        bound_guardrail=bound,
        primary_says=test.says,
        says=np.where(broken, np.int8(Says.FAIL), test.says),
        n_pairs=sum(n_samples[t] * ends[t] for t in scores),
    )


def _estimand_error(found: Difference, policy: GatePolicy) -> Floats:
    return found.se_super if policy.estimand == "super" else found.se


def _error(found: Difference, policy: GatePolicy, hypothesis: float) -> Floats:
    """Return the standard error of a task's difference, to test `hypothesis`.

    With one repeat and few samples it is Tango's, which holds its level. With more repeats but few
    discordant pairs the sample variance says too little, so a loss of the margin's size is the
    least that is assumed.
    """
    error = _estimand_error(found, policy)
    n = np.maximum(found.n_pairs, 1)
    implied = np.sqrt(policy.margin * (1 - policy.margin) / n)
    few = found.gains + found.losses < FEW_DISCORDANT
    error = np.where(few, np.fmax(error, implied), error)
    if policy.estimand == "super":
        return error
    score = tango_error(n, found.losses, found.gains, hypothesis)
    single = np.isnan(found.se_fixed) & (n < MANY_PAIRS)
    return np.where(single, np.where(few, np.fmax(score, implied), score), error)


def _ratio(distance: Floats, error: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(distance == 0, 0.0, distance / error))


def _guardrail_bound(n_tasks: int, policy: GatePolicy, *, is_last: bool) -> float:
    if policy.guardrail_alpha == 0 or n_tasks == 1:  # one task is the primary itself
        return math.inf
    last = NORMAL.inv_cdf(1 - policy.guardrail_alpha / n_tasks)
    return last if is_last else max(last, EARLY_GUARDRAIL_Z)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    statistic_pass: Floats
    bound_pass: float
    statistic_fail: Floats
    bound_fail: float
    says: NDArray[np.int8]


def _compare_z(
    found: Sequence[Difference], fractions: Sequence[float], policy: GatePolicy
) -> _Test:
    """Test by z against the boundaries of the looks taken so far."""

    def z(hypothesis: float) -> Floats:
        errors = [_error(d, policy, hypothesis) for d in found]
        macro = macro_difference([d.delta for d in found], errors)
        return _ratio(macro.delta - hypothesis, macro.se)

    z_pass, z_fail = z(-policy.margin), -z(policy.ok)
    alpha_fail = policy.alpha_fail
    if policy.equivalence:
        z_pass = np.minimum(z_pass, -z(policy.margin))
        z_fail = np.maximum(z_fail, z(-policy.ok))
        alpha_fail /= 2
    bound_pass = boundaries(fractions, policy.alpha_pass)[-1]
    bound_fail = boundaries(fractions, alpha_fail)[-1]
    return _Test(
        statistic_pass=z_pass,
        bound_pass=bound_pass,
        statistic_fail=z_fail,
        bound_fail=bound_fail,
        says=_combine(z_pass > bound_pass, z_fail > bound_fail),
    )


def _bet(
    scores: Mapping[str, PairedScores],
    rounds: Sequence[Round],
    primary: Sequence[str],
    policy: GatePolicy,
) -> _Test:
    """Test by e-values of the rounds so far."""
    counts = [[count_round(scores[t], *r.repeats[t]) for t in primary] for r in rounds]
    e_pass, e_fail = log_e_pass(counts, policy.margin), log_e_fail(counts, policy.ok)
    alpha_fail = policy.alpha_fail
    if policy.equivalence:
        other = [[_swapped(c) for c in tasks] for tasks in counts]
        e_pass = np.minimum(e_pass, log_e_pass(other, policy.margin))
        e_fail = np.maximum(e_fail, log_e_fail(other, policy.ok))
        alpha_fail /= 2
    bound_pass, bound_fail = -math.log(policy.alpha_pass), -math.log(alpha_fail)
    return _Test(
        statistic_pass=e_pass,
        bound_pass=bound_pass,
        statistic_fail=e_fail,
        bound_fail=bound_fail,
        says=_combine(e_pass >= bound_pass, e_fail >= bound_fail),
    )


def count_round(pair: PairedScores, start: int, end: int) -> RoundCounts:
    """Return the signs of a task's pairs in repeats [start, end)."""
    step = pair.candidate[..., start:end] - pair.base[..., start:end]
    return RoundCounts(
        gains=(step > 0).sum(axis=(-2, -1)).astype(np.float64),
        losses=(step < 0).sum(axis=(-2, -1)).astype(np.float64),
        ties=(step == 0).sum(axis=(-2, -1)).astype(np.float64),
        n_planned=pair.n_samples * (end - start),
    )


def _swapped(counts: RoundCounts) -> RoundCounts:
    return RoundCounts(
        gains=counts.losses, losses=counts.gains, ties=counts.ties, n_planned=counts.n_planned
    )


def _combine(passes: NDArray[np.bool_], fails: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(fails, np.int8(Says.FAIL), np.where(passes, np.int8(Says.PASS), np.int8(0)))
