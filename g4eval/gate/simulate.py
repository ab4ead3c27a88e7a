"""Error rates of the gate, and of the rules in common use, on simulated pairs.

`benchmarks/gate_error_rates.py` (`nox -s gate-sim`) prints the tables of docs/gate.md from it. The
gate's own `decide` judges every simulated comparison. Samples have Beta-distributed difficulty with
a given intra-class correlation; the candidate's accuracy differs by a shift of every sample's
logit, chosen so that the mean over the very samples drawn changes by exactly the stated loss.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from g4eval.gate.decide import Look, PairedScores, Says, decide
from g4eval.gate.policy import GatePolicy
from g4eval.gate.schedule import plan_rounds
from g4eval.stats.paired import Floats

CHUNK = 250  # comparisons held in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTask:
    """A task as the simulation draws it."""

    n_samples: int
    accuracy: float  # of the baseline, in expectation
    repeats: int


# The accuracies Google reports for Gemma 4 31B; repeats of the plan "nightly".
SUITE: dict[str, SimulatedTask] = {
    "aime": SimulatedTask(n_samples=60, accuracy=0.892, repeats=16),
    "gpqa_diamond": SimulatedTask(n_samples=198, accuracy=0.843, repeats=8),
    "livecodebench_v6": SimulatedTask(n_samples=175, accuracy=0.80, repeats=8),
    "bbeh_mini": SimulatedTask(n_samples=460, accuracy=0.744, repeats=4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true of the candidate: its mean difference by task, in points, 0 unless named."""

    label: str
    delta_pt: Mapping[str, float] = field(default_factory=dict)
    noise: float = 0.0  # SD of the change of each sample's logit, beside the common shift


def everywhere(delta_pt: float) -> dict[str, float]:
    """Return the same difference for every task of the suite."""
    return dict.fromkeys(SUITE, delta_pt)


TRUTHS: tuple[Truth, ...] = (
    Truth(label="identical (A/A)"),
    Truth(label="0, samples shuffled (0.5 logits)", noise=0.5),
    Truth(label="-0.5 everywhere", delta_pt=everywhere(-0.5)),
    Truth(label="-1.0 everywhere", delta_pt=everywhere(-1.0)),
    Truth(label="-1.5 everywhere (the margin)", delta_pt=everywhere(-1.5)),
    Truth(label="-2 everywhere", delta_pt=everywhere(-2.0)),
    Truth(label="-3 everywhere", delta_pt=everywhere(-3.0)),
    Truth(label="only AIME, -6 (the margin)", delta_pt={"aime": -6.0}),
    Truth(label="only LiveCodeBench, -5", delta_pt={"livecodebench_v6": -5.0}),
)


def simulate(
    suite: Mapping[str, SimulatedTask], truth: Truth, *, rho: float, count: int, seed: int
) -> Iterator[dict[str, PairedScores]]:
    """Yield chunks of simulated comparisons, each task [chunk, N, repeats] in both arms."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        yield {
            name: _draw(
                rng, task, rho, size, delta=truth.delta_pt.get(name, 0.0) / 100, noise=truth.noise
            )
            for name, task in suite.items()
        }


def _draw(
    rng: np.random.Generator,
    task: SimulatedTask,
    rho: float,
    size: int,
    *,
    delta: float,
    noise: float,
) -> PairedScores:
    strength = 1 / rho - 1
    shape = (size, task.n_samples)
    base = rng.beta(task.accuracy * strength, (1 - task.accuracy) * strength, shape)
    base = np.clip(base, 1e-12, 1 - 1e-12)
    moved = _shifted(base, rng.normal(0, noise, shape) if noise else np.zeros(shape), delta)
    draws = [
        (rng.random((*shape, task.repeats)) < p[..., None]).astype(np.float64)
        for p in (base, moved if noise or delta else base)
    ]
    return PairedScores(base=draws[0], candidate=draws[1])


def _shifted(base: Floats, extra: Floats, delta: float) -> Floats:
    """Return probabilities whose mean over samples is the baseline's plus `delta`, by bisection."""
    logits = np.log(base) - np.log1p(-base) + extra
    target = base.mean(axis=-1) + delta
    low, high = np.full(len(base), -60.0), np.full(len(base), 60.0)
    for _ in range(60):
        middle = (low + high) / 2
        mean = (1 / (1 + np.exp(-(logits + middle[:, None])))).mean(axis=-1)
        low, high = np.where(mean < target, middle, low), np.where(mean < target, high, middle)
    return np.asarray(1 / (1 + np.exp(-(logits + low[:, None]))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How a gate did over simulated comparisons; shares in [0, 1]."""

    passed: float
    failed: float
    inconclusive: float
    primary_failed: float  # FAIL of the primary alone, had there been no guardrails
    mean_pairs: float
    count: int


def gate_rates(
    suite: Mapping[str, SimulatedTask],
    truth: Truth,
    policies: Sequence[GatePolicy],
    *,
    rho: float,
    count: int,
    seed: int,
) -> list[Rates]:
    """Judge the same simulated comparisons by several policies."""
    repeats = {name: task.repeats for name, task in suite.items()}
    plans = [plan_rounds(repeats, design=p.design, looks=p.looks) for p in policies]
    totals = np.zeros((len(policies), 4))
    for chunk in simulate(suite, truth, rho=rho, count=count, seed=seed):
        for i, (policy, plan) in enumerate(zip(policies, plans, strict=True)):
            looks = decide(chunk, plan, policy)
            says, pairs = first_decisions(looks, lambda look: look.says)
            primary, _ = first_decisions(looks, lambda look: look.primary_says)
            totals[i] += [
                (says == Says.PASS).sum(),
                (says == Says.FAIL).sum(),
                (primary == Says.FAIL).sum(),
                pairs.sum(),
            ]
    return [
        Rates(
            passed=float(t[0]) / count,
            failed=float(t[1]) / count,
            inconclusive=1 - float(t[0] + t[1]) / count,
            primary_failed=float(t[2]) / count,
            mean_pairs=float(t[3]) / count,
            count=count,
        )
        for t in totals
    ]


def first_decisions(
    looks: Sequence[Look], says_of: Callable[[Look], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what each comparison's first decisive look said, and the pairs used by then."""
    said = np.zeros_like(np.asarray(says_of(looks[0])))
    pairs = np.zeros(said.shape)
    for look in looks:
        going = said == Says.GO_ON
        pairs = np.where(going, look.n_pairs, pairs)
        said = np.where(going, says_of(look), said)
    return said, pairs


# The rules in common use, on one benchmark like GPQA Diamond.

ONE_TASK: dict[str, SimulatedTask] = {
    "gpqa_diamond": SimulatedTask(n_samples=198, accuracy=0.843, repeats=8)
}


def common_rules(pair: PairedScores) -> dict[str, np.ndarray]:
    """Return, for each rule in common use, which comparisons it lets pass; [chunk] bool each."""
    from scipy.stats import binom

    base, candidate = pair.base.mean(axis=(-2, -1)), pair.candidate.mean(axis=(-2, -1))
    n = pair.base.shape[-1] * pair.base.shape[-2]
    error = np.sqrt((base * (1 - base) + candidate * (1 - candidate)) / n)
    step = pair.candidate - pair.base
    gains, losses = (step > 0).sum(axis=(-2, -1)), (step < 0).sum(axis=(-2, -1))
    exact = np.minimum(1, 2 * binom.cdf(np.minimum(gains, losses), gains + losses, 0.5))
    return {
        "within 5 points of the baseline": candidate >= base - 0.05,
        "99 % recovery": candidate >= 0.99 * base,
        "unpaired z, p >= .05": np.abs(candidate - base) <= 1.959964 * error,
        "McNemar, p >= .05": exact >= 0.05,
    }


def side_by_side(delta_pt: float, repeats: int, *, count: int, seed: int) -> dict[str, Rates]:
    """Return pass and fail rates of the common rules and of the gate on the same pairs."""
    task = ONE_TASK["gpqa_diamond"]
    suite = {
        "gpqa_diamond": SimulatedTask(
            n_samples=task.n_samples, accuracy=task.accuracy, repeats=repeats
        )
    }
    truth = Truth(label=f"{delta_pt:+g}", delta_pt={"gpqa_diamond": delta_pt})
    passed: dict[str, float] = {}
    for chunk in simulate(suite, truth, rho=0.5, count=count, seed=seed):
        for rule, fine in common_rules(chunk["gpqa_diamond"]).items():
            passed[rule] = passed.get(rule, 0.0) + float(fine.sum())
    n_pairs = float(task.n_samples * repeats)
    rates = {
        rule: Rates(
            passed=total / count,
            failed=1 - total / count,
            inconclusive=0.0,
            primary_failed=1 - total / count,
            mean_pairs=n_pairs,
            count=count,
        )
        for rule, total in passed.items()
    }
    gate = GatePolicy(margin_pt=3.0)
    rates["this gate, margin 3"] = gate_rates(
        suite, truth, [gate], rho=0.5, count=count, seed=seed
    )[0]
    return rates


def monte_carlo_error(rate: float, count: int) -> float:
    """Return the standard error of a simulated rate."""
    return math.sqrt(max(rate * (1 - rate), 1 / count) / count)
