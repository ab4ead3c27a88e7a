"""L4: paired accuracy at a round's end -> go on, PASS or FAIL.

The same code decides one gate and, over a leading axis, the thousands of the error-rate simulation.
Rules: statistics in docs/gate.md. PASS rejects "the loss is the margin or more"; FAIL rejects "the
difference is ok or better". Where one look rejects both, the loss is real and smaller than the
margin: a FAIL, and the report says so; a loss that is priced in belongs into `ok_pt`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from g4eval.gating.paired_scores import PairedScores, Reading
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import Round, fractions_of, inside
from g4eval.stats.noise import PairNoise, SuperNoise, pair_noise, super_noise
from g4eval.stats.paired import Difference, Floats, Macro, macro_difference, paired_difference
from g4eval.stats.score_test import z_of
from g4eval.stats.sequential import RoundCounts, boundaries, log_e_fail, log_e_pass


class Says(IntEnum):
    """What a look says."""

    GO_ON = 0
    PASS = 1
    FAIL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNoise:
    """One task's difference, as it is printed and as either verdict takes it."""

    shown: PairNoise | SuperNoise  # what isn't graded is left out
    for_pass: PairNoise | SuperNoise  # and here against the candidate
    for_fail: PairNoise | SuperNoise  # and here for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One round end; arrays over the leading axes (0-d for one decision)."""

    round_index: int
    fraction: float  # of the planned information
    tasks: Mapping[str, Difference]
    noise: Mapping[str, TaskNoise]
    n_seen: Mapping[str, int]  # samples of each task that had a try by then
    primary: Macro  # its error is that of the observed difference itself
    statistic_pass: Floats  # z, or log e-value
    bound_pass: float
    statistic_fail: Floats
    bound_fail: float
    guardrails: Mapping[str, Floats]  # of each task: z, or minus the log e-value
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
    scores = _as_paired(scores, policy)
    _check_repeats(scores, ends, index, policy)
    noise = {t: _task_noise(pair, ends[t], policy) for t, pair in scores.items()}
    found = {
        t: paired_difference(*pair.until(ends[t], Reading.LEFT_OUT)) for t, pair in scores.items()
    }
    primary = [policy.primary] if policy.primary != "macro" else list(scores)
    fractions = information(scores, rounds, primary)
    if policy.design == "anytime":
        test = _bet(scores, rounds[: index + 1], primary, policy)
    else:
        test = _compare_z([noise[t] for t in primary], fractions[: index + 1], policy)
    guardrails, bound = _guardrails(scores, noise, rounds, index, policy)
    broken = np.any([z < -bound for z in guardrails.values()], axis=0)
    return Look(
        round_index=index,
        fraction=fractions[index],
        tasks=found,
        noise=noise,
        n_seen={t: int((inside(p.order, 0, ends[t]).any(axis=1)).sum()) for t, p in scores.items()},
        primary=macro_difference(
            [noise[t].shown.delta for t in primary], [noise[t].shown.own_error() for t in primary]
        ),
        statistic_pass=test.statistic_pass,
        bound_pass=test.bound_pass,
        statistic_fail=test.statistic_fail,
        bound_fail=test.bound_fail,
        guardrails=guardrails,
        bound_guardrail=bound,
        primary_says=test.says,
        says=np.where(broken, np.int8(Says.FAIL), test.says),
        n_pairs=sum(int(inside(p.order, 0, ends[t]).sum()) for t, p in scores.items()),
    )


def _as_paired(
    scores: Mapping[str, PairedScores], policy: GatePolicy
) -> Mapping[str, PairedScores]:
    """Take the baseline pair by pair where the policy says so."""
    if policy.baseline_repeats == "all":
        return scores
    return {t: p if p.pair_base else replace(p, pair_base=True) for t, p in scores.items()}


def information(
    scores: Mapping[str, PairedScores], rounds: Sequence[Round], tasks: Sequence[str]
) -> list[float]:
    """Return each round end's share of the plan's information about the mean over some tasks.

    From the numbers of repeats alone, and what the baseline said of each sample's variance, so
    that the fractions are known before any of the candidate's outcomes.
    """
    return fractions_of(
        [sum(_planned_variance(scores[t], r.repeats[t][1]) for t in tasks) for r in rounds]
    )


def _planned_variance(pair: PairedScores, end: float) -> float:
    k = inside(pair.order, 0, end).sum(axis=1)
    if end > 1 and k.max(initial=0) < end - 1:  # rounds past what is there: as if it went on
        k = np.full(len(k), end)
    seen = k > 0
    candidate = 1 / np.maximum(k, 1)
    base = candidate if pair.pair_base else np.full(len(k), 1 / pair.base.shape[-1])
    weights = np.ones(len(k)) if pair.weights is None else pair.weights
    share = weights * len(k) / weights.sum()
    return float((share * (base + candidate))[seen].sum() / seen.sum() ** 2)


def _check_repeats(
    scores: Mapping[str, PairedScores], ends: Mapping[str, float], index: int, policy: GatePolicy
) -> None:
    for task, end in ends.items():
        pair = scores[task]
        arms = [pair.candidate.shape[-1]]
        if pair.pair_base or policy.design == "anytime":
            arms.append(pair.base.shape[-1])
        is_unequal = pair.places is not None and (pair.places < 0).any()
        if min(arms) < math.ceil(end) and not is_unequal:
            raise ValueError(f"round {index} of {task} needs {end} repeats in both arms")


def _task_noise(pair: PairedScores, end: float, policy: GatePolicy) -> TaskNoise:
    def read(reading: Reading) -> PairNoise | SuperNoise:
        arms = pair.until(end, reading)
        fixed = pair_noise(*arms, copied=pair.copied, clusters=pair.clusters)
        if policy.estimand == "fixed":
            return fixed
        return super_noise(*arms, fixed, groups=pair.groups, clusters=pair.clusters)

    shown = read(Reading.LEFT_OUT)
    if not pair.has_ungraded:
        return TaskNoise(shown=shown, for_pass=shown, for_fail=shown)
    return TaskNoise(shown=shown, for_pass=read(Reading.AGAINST), for_fail=read(Reading.FOR))


def wide_noise(pair: PairedScores, end: float) -> SuperNoise:
    """Return a task's noise for samples like these, as it is printed beside the other."""
    arms = pair.until(end, Reading.LEFT_OUT)
    fixed = pair_noise(*arms, copied=pair.copied, clusters=pair.clusters)
    return super_noise(*arms, fixed, groups=pair.groups, clusters=pair.clusters)


def _guardrails(
    scores: Mapping[str, PairedScores],
    noise: Mapping[str, TaskNoise],
    rounds: Sequence[Round],
    index: int,
    policy: GatePolicy,
) -> tuple[dict[str, Floats], float]:
    """Return each task's statistic, and what none may lie below the negative of.

    guardrail_alpha is shared out over tasks, and over looks as little as can be before the last;
    `anytime` has no last look, so there each task has an e-value of its own.
    """
    is_off = policy.guardrail_alpha == 0 or len(scores) == 1  # one task is the primary itself
    alpha = policy.guardrail_alpha / len(scores)
    if policy.design == "anytime":
        values = {
            t: -log_e_fail(
                [[p.count(*r.repeats[t], Reading.FOR)] for r in rounds[: index + 1]], policy.ok
            )
            for t, p in scores.items()
        }
        return values, math.inf if is_off else -math.log(alpha)
    values = {t: z_of([n.for_fail], policy.ok) for t, n in noise.items()}
    if is_off:
        return values, math.inf
    fractions = information(scores, rounds, list(scores))
    return values, boundaries(fractions[: index + 1], alpha)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    statistic_pass: Floats
    bound_pass: float
    statistic_fail: Floats
    bound_fail: float
    says: NDArray[np.int8]


def _compare_z(noise: Sequence[TaskNoise], fractions: Sequence[float], policy: GatePolicy) -> _Test:
    """Test by z against the boundaries of the looks taken so far."""
    for_pass, for_fail = [n.for_pass for n in noise], [n.for_fail for n in noise]
    z_pass, z_fail = z_of(for_pass, -policy.margin), -z_of(for_fail, policy.ok)
    alpha_fail = policy.alpha_fail
    if policy.equivalence:
        z_pass = np.minimum(z_pass, -z_of(for_fail, policy.margin))
        z_fail = np.maximum(z_fail, z_of(for_pass, -policy.ok))
        alpha_fail /= 2
    bound_pass = boundaries(fractions, policy.alpha_pass, policy.spending)[-1]
    bound_fail = boundaries(fractions, alpha_fail, policy.spending)[-1]
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

    def count(reading: Reading) -> list[list[RoundCounts]]:
        return [[scores[t].count(*r.repeats[t], reading) for t in primary] for r in rounds]

    against, in_favour = count(Reading.AGAINST), count(Reading.FOR)
    e_pass, e_fail = log_e_pass(against, policy.margin), log_e_fail(in_favour, policy.ok)
    alpha_fail = policy.alpha_fail
    if policy.equivalence:
        e_pass = np.minimum(e_pass, log_e_pass(_swapped(in_favour), policy.margin))
        e_fail = np.maximum(e_fail, log_e_fail(_swapped(against), policy.ok))
        alpha_fail /= 2
    bound_pass, bound_fail = -math.log(policy.alpha_pass), -math.log(alpha_fail)
    return _Test(
        statistic_pass=e_pass,
        bound_pass=bound_pass,
        statistic_fail=e_fail,
        bound_fail=bound_fail,
        says=_combine(e_pass >= bound_pass, e_fail >= bound_fail),
    )


def _swapped(rounds: Sequence[Sequence[RoundCounts]]) -> list[list[RoundCounts]]:
    return [
        [
            RoundCounts(gains=c.losses, losses=c.gains, ties=c.ties, n_planned=c.n_planned)
            for c in tasks
        ]
        for tasks in rounds
    ]


def _combine(passes: NDArray[np.bool_], fails: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(fails, np.int8(Says.FAIL), np.where(passes, np.int8(Says.PASS), np.int8(0)))
