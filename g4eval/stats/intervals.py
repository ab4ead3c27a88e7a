"""95 % intervals for one score: Wilson, Jeffreys, Clopper-Pearson, hierarchical Beta-Binomial.

Formulas and the choice between them: docs/statistics.md.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from g4eval.records import Interval

LEVEL = 0.95
POSTERIOR_DRAWS = 20_000
GRID_MEANS = 40
GRID_ICCS = 19
# Above so many samples SE_fixed and a normal quantile do as well (coverage 94 % at 198 x 4).
HIERARCHICAL_MAX_SAMPLES = 600


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


def student(value: float, standard_error: float, degrees: int, method: str) -> Interval:
    """Return value plus and minus t times SE, cut to [0, 1]."""
    from scipy.stats import t

    half = float(t.ppf(0.5 + LEVEL / 2, degrees)) * standard_error
    return Interval(low=max(0.0, value - half), high=min(1.0, value + half), method=method)


def hierarchical(correct: NDArray[np.int64], graded: NDArray[np.int64]) -> Interval:
    """Return the interval of the mean success probability of these samples.

    The model: c_i ~ Binomial(k_i, p_i), p_i ~ Beta with mean and ICC on a grid of flat weights that
    all samples' counts update together. Then p_i are drawn from their posteriors and averaged. It
    doesn't collapse where most samples are all right, and pools instead of dragging each sample to
    a prior of its own (docs/statistics.md shows what that does).

    Args:
        correct: [N] counts c_i.
        graded: [N] counts k_i > 0.
    """
    means = (np.arange(GRID_MEANS) + 0.5) / GRID_MEANS
    iccs = (np.arange(GRID_ICCS) + 1.0) / (GRID_ICCS + 1)
    mean, icc = (axis.ravel() for axis in np.meshgrid(means, iccs, indexing="ij"))
    total = 1 / icc - 1  # a + b of a Beta with this intraclass correlation
    a, b = mean * total, (1 - mean) * total
    weights = _grid_weights(a, b, correct, graded)

    generator = np.random.default_rng(20_260_402)  # fixed: the same counts, the same interval
    points = generator.choice(a.size, size=POSTERIOR_DRAWS, p=weights)
    draws = np.zeros(POSTERIOR_DRAWS)
    pairs, repeats = np.unique(np.stack([correct, graded]), axis=1, return_counts=True)
    for (c, k), count in zip(pairs.T, repeats, strict=True):
        shape = (POSTERIOR_DRAWS, int(count))
        alpha, beta = (a[points] + c)[:, None], (b[points] + k - c)[:, None]
        draws += generator.beta(alpha, beta, size=shape).sum(axis=1)
    low, high = np.quantile(draws / correct.size, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(low=float(low), high=float(high), method="hierarchical beta-binomial")


def _grid_weights(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    correct: NDArray[np.int64],
    graded: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return each grid point's posterior weight: the product of Beta-Binomial likelihoods."""
    from scipy.special import betaln

    log_weights = np.zeros(a.size)
    pairs, repeats = np.unique(np.stack([correct, graded]), axis=1, return_counts=True)
    for (c, k), count in zip(pairs.T, repeats, strict=True):
        log_weights += count * (betaln(a + c, b + k - c) - betaln(a, b))
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _normal_quantile(probability: float) -> float:

    return NormalDist().inv_cdf(probability)
