"""Ask g4eval about drawn runs: in process, on arrays of thousands of comparisons at once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate_sim.truths import Drawn, Floats, Ints, TaskTruth, draw
from g4eval.gating.decide import Says, decide
from g4eval.gating.paired_scores import PairedScores
from g4eval.gating.pairing import neyman
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import pair_places, plan_rounds

CHUNK_TRIES = 1_500_000  # held in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often a gate said what; shares in [0, 1]."""

    passed: float
    failed: float
    primary_failed: float  # had there been no guardrails
    guardrail_alone: float
    pairs: float  # the candidate's tries, on average
    count: int

    @property
    def inconclusive(self) -> float:
        """The rest."""
        return 1 - self.passed - self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Both error rates of a gate."""

    false_pass: float  # at a loss of exactly the margin
    false_fail: float  # the primary's, at no difference
    guardrail_alone: float  # FAIL by a guardrail alone, at no difference
    power: float  # PASS at no difference


def level_of(
    tasks: Mapping[str, TaskTruth], *, margin_pt: float, count: int, seed: int, **policy: Any
) -> Level:
    """Return the gate's error rates where the truth is the margin, and where it is 0."""
    lossy = {name: replace(t, delta=-margin_pt / 100) for name, t in tasks.items()}
    even = {name: replace(t, drawn=False, ungraded=0.0) for name, t in tasks.items()}
    rules = GatePolicy(margin_pt=margin_pt, **policy)
    bad = rates_of(lossy, rules, count=count, seed=seed)
    good = rates_of(even, rules, count=count, seed=seed + 1)
    return Level(
        false_pass=bad.passed,
        false_fail=good.primary_failed,
        guardrail_alone=good.guardrail_alone,
        power=good.passed,
    )


def rates_of(
    tasks: Mapping[str, TaskTruth],
    policy: GatePolicy,
    *,
    count: int,
    seed: int,
    allocated: bool = False,
) -> Rates:
    """Judge so many comparisons; `allocated`: each chunk's repeats go where its baseline varies."""
    rng = np.random.default_rng(seed)
    size = max(
        1, int(CHUNK_TRIES / sum(t.n * (t.base_repeats + t.repeats) for t in tasks.values()))
    )
    totals = np.zeros(5)
    done = 0
    while done < count:
        runs = 1 if allocated else min(size, count - done)
        totals += _judge(rng, tasks, policy, runs, allocated=allocated)
        done += runs
    passed, failed, primary, alone, pairs = totals / count
    return Rates(
        passed=passed,
        failed=failed,
        primary_failed=primary,
        guardrail_alone=alone,
        pairs=pairs,
        count=count,
    )


def _judge(
    rng: np.random.Generator,
    tasks: Mapping[str, TaskTruth],
    policy: GatePolicy,
    runs: int,
    *,
    allocated: bool,
) -> Floats:
    scores = {}
    for name, truth in tasks.items():
        if allocated:
            scores[name] = allocated_scores(rng, truth)
        else:
            scores[name] = paired_scores(draw(rng, truth, runs), truth)
    rounds = plan_rounds(
        {name: t.repeats for name, t in tasks.items()},
        design=policy.design,
        looks=policy.looks,
        n_samples={name: t.n for name, t in tasks.items()},
    )
    said = np.zeros(runs, np.int8)
    primary, pairs = said.copy(), np.zeros(runs)
    for look in decide(scores, rounds, policy):
        going = said == Says.GO_ON
        pairs = np.where(going, look.n_pairs, pairs)
        primary = np.where(going & (primary == 0), look.primary_says, primary)
        said = np.where(going, look.says, said)
    failed = said == Says.FAIL
    return np.array(
        [
            (said == Says.PASS).sum(),
            failed.sum(),
            (primary == Says.FAIL).sum(),
            (failed & (primary != Says.FAIL)).sum(),
            pairs.sum(),
        ],
        np.float64,
    )


def paired_scores(drawn: Drawn, truth: TaskTruth) -> PairedScores:
    """Return what the gate would make of these runs, its own copies and clusters found here."""
    copied = _repeats_itself(drawn.base_texts) | _repeats_itself(drawn.candidate_texts)
    return PairedScores(
        base=np.where(drawn.base_ungraded, np.nan, drawn.base),
        candidate=np.where(drawn.candidate_ungraded, np.nan, drawn.candidate),
        base_ungraded=drawn.base_ungraded if truth.ungraded else None,
        candidate_ungraded=drawn.candidate_ungraded if truth.ungraded else None,
        copied=copied if truth.copied or truth.letters else None,
        clusters=drawn.questions if truth.twice else None,
        groups=drawn.groups if truth.subtasks else None,
    )


def allocated_scores(rng: np.random.Generator, truth: TaskTruth) -> PairedScores:
    """Return one comparison whose candidate has its repeats where its baseline varies."""
    most = replace(truth, repeats=8 * truth.repeats)
    drawn = draw(rng, most, 1)
    share = drawn.base[0].sum(axis=1)
    mean = share.mean() / truth.base_repeats
    a, b = share + 2 * mean, truth.base_repeats - share + 2 * (1 - mean)
    variances = np.maximum(a * b / ((a + b) * (a + b + 1)), 1e-3)
    counts = np.minimum(neyman(variances, truth.n * truth.repeats), most.repeats)
    ids = [f"{i:05}" for i in range(truth.n)]
    places = pair_places(ids, [""] * truth.n, counts.tolist(), decision_seed=0)
    kept = drawn.candidate[..., : places.shape[1]]
    return PairedScores(base=drawn.base, candidate=kept, places=places, weights=variances)


def _repeats_itself(texts: Ints) -> NDArray[np.bool_]:
    ordered = np.sort(texts, axis=-1)
    return np.asarray((ordered[..., 1:] == ordered[..., :-1]).any(axis=-1))
