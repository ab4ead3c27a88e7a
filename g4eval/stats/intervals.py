"""95 % intervals for one score: Wilson, Jeffreys, Clopper-Pearson, hierarchical Beta-Binomial.

Formulas and the choice between them: docs/statistics.md.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from g4eval.records import Interval
from g4eval.stats.posterior import posterior

LEVEL = 0.95


def wilson(successes: float, trials: int, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval for a proportion; `trials` > 0."""
    z = _normal_quantile(0.5 + level / 2)
    p = successes / trials
    scale = 1 + z * z / trials
    center = (p + z * z / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / scale
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == trials else center + half
    return Interval(low=low, high=high, method="wilson")


def wilson_lower(successes: float, trials: int, level: float = LEVEL) -> float:
    """Return the one-sided lower limit of Wilson's interval."""
    return wilson(successes, trials, 2 * level - 1).low


def jeffreys(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Return the equal-tailed interval of Beta(s + 1/2, n - s + 1/2)."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    a, b = successes + 0.5, trials - successes + 0.5
    return Interval(
        low=float(beta.ppf(tail, a, b)), high=float(beta.ppf(1 - tail, a, b)), method="jeffreys"
    )


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Return the exact interval: conservative, never too narrow."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = (
        1.0 if successes == trials else float(beta.ppf(1 - tail, successes + 1, trials - successes))
    )
    return Interval(low=low, high=high, method="clopper-pearson")


@dataclass(frozen=True, slots=True, kw_only=True)
class BothIntervals:
    """What one posterior says of these samples, and of samples like them."""

    samples: Interval
    like_these: Interval


def hierarchical(correct: NDArray[np.int64], graded: NDArray[np.int64]) -> Interval:
    """Return the interval of the mean success probability of these samples.

    posterior.py has the model. It doesn't collapse where most samples are all right, and pools
    instead of dragging each sample to a prior of its own.

    Args:
        correct: [N] counts c_i.
        graded: [N] counts k_i > 0.
    """
    return both_intervals(correct, graded).samples


def both_intervals(correct: NDArray[np.int64], graded: NDArray[np.int64]) -> BothIntervals:
    """Return the intervals of these samples' mean and of the mean of samples like these.

    Neither leaves out what was measured, and where every try is right (or none), no limit is short
    of 1 (or 0).
    """
    found = posterior(correct, graded)
    tail = (1 - LEVEL) / 2
    value = float((correct / graded).mean())
    return BothIntervals(
        samples=_around(value, found.limits_of_samples(tail), "hierarchical beta-binomial"),
        like_these=_around(
            value, found.limits_of_mean(tail), "hierarchical beta-binomial, samples like these"
        ),
    )


def _around(value: float, limits: tuple[float, float], method: str) -> Interval:
    return Interval(low=min(value, limits[0]), high=max(value, limits[1]), method=method)


def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
