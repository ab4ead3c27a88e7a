"""Differences between two runs of the same samples: estimates, standard errors and tests.

Scores are arrays [..., N, k]: N samples, k repeats, 1.0 right, 0.0 wrong, nan where nothing was
graded. Leading axes are independent comparisons, so that a simulation runs the gate's own code.
A difference is candidate minus baseline, as a fraction: negative is a loss.

Two questions, two errors. `se_fixed`: these samples, new tries (between-sample spread is no error).
`se_super`: samples like these. Sources: Miller 2024 (arXiv 2411.00640); Wang 2025 (2512.21326).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NORMAL = NormalDist()
EXACT_SIGN_FLIPS = 20  # up to so many samples, all 2^N sign patterns are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Candidate minus baseline; every field is an array over the leading axes (0-d for one)."""

    delta: Floats
    se_fixed: Floats  # nan unless every sample has two repeats or more in both arms
    se_super: Floats  # nan below two samples
    tau: Floats  # SD over samples of the true per-sample change, clipped at 0; nan like se_fixed
    expected_discordance: Floats  # from sampling alone; nan like se_fixed
    gains: Floats  # pairs (same sample, same repeat) only the candidate has right
    losses: Floats  # pairs only the baseline has right
    ties: Floats

    @property
    def n_pairs(self) -> Floats:
        """Pairs with a grade in both arms."""
        return self.gains + self.losses + self.ties

    @property
    def se(self) -> Floats:
        """`se_fixed`, or where one repeat gives none the larger `se_super`, an upper bound."""
        return np.where(np.isnan(self.se_fixed), self.se_super, self.se_fixed)


def paired_difference(base: Floats, candidate: Floats) -> Difference:
    """Compare two arms sample by sample.

    Args:
        base: [..., N, kA] scores, nan where not graded.
        candidate: [..., N, kB]; samples in the same order. Samples without a grade in either arm
            are left out of both.
    """
    k = min(base.shape[-1], candidate.shape[-1])
    step = candidate[..., :k] - base[..., :k]
    n_base, mean_base, var_base = sample_moments(base)
    n_cand, mean_cand, var_cand = sample_moments(candidate)
    change = mean_cand - mean_base  # nan where an arm has nothing
    used = ~np.isnan(change)
    n = used.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        delta = _sum(change) / n
        noise = var_base / n_base + var_cand / n_cand
        within = np.where(used, noise, 0.0).sum(axis=-1)  # nan if a used sample has one repeat
        spread = _sum((change - delta[..., None]) ** 2) / (n - 1)
        spread = np.where(n > 1, spread, np.nan)
        discordance = np.where(used, var_base + var_cand, 0.0).sum(axis=-1) / n
        return Difference(
            delta=delta,
            se_fixed=np.sqrt(within) / n,
            se_super=np.sqrt(spread / n),
            tau=np.sqrt(np.maximum(spread - within / n, 0.0)),
            expected_discordance=discordance,
            gains=(step > 0).sum(axis=(-2, -1)).astype(np.float64),
            losses=(step < 0).sum(axis=(-2, -1)).astype(np.float64),
            ties=(step == 0).sum(axis=(-2, -1)).astype(np.float64),
        )


def sample_moments(scores: Floats) -> tuple[Floats, Floats, Floats]:
    """Return per sample: number of grades, mean (nan at 0 grades), variance (nan below 2)."""
    graded = ~np.isnan(scores)
    n = graded.sum(axis=-1).astype(np.float64)
    filled = np.where(graded, scores, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / n
        squares = np.where(graded, (filled - mean[..., None]) ** 2, 0.0).sum(axis=-1)
        variance = np.where(n > 1, squares / (n - 1), np.nan)
    return n, mean, variance


def _sum(values: Floats) -> Floats:
    return np.asarray(np.nansum(values, axis=-1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Macro:
    """The equal-weight mean of the tasks' differences: the gate's primary endpoint."""

    delta: Floats
    se: Floats


def macro_difference(deltas: Sequence[Floats], errors: Sequence[Floats]) -> Macro:
    """Return the mean over B tasks and its error: sqrt(sum of squared errors) / B."""
    count = len(deltas)
    return Macro(
        delta=np.asarray(sum(deltas) / count),
        se=np.asarray(np.sqrt(sum(error**2 for error in errors)) / count),
    )


# One repeat, right or wrong: 2 x 2 tables. `losses`: only the baseline right; `gains`: only the
# candidate right.


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """P-values on the discordant pairs; "is there a change?", never "is it safe?"."""

    exact: float  # two-sided
    mid_p: float  # two-sided
    one_sided: float  # P(this many losses or more | no change)


def mcnemar(losses: int, gains: int) -> McNemar:
    """Test losses = gains by the binomial distribution of the discordant pairs."""
    n = losses + gains
    if n == 0:
        return McNemar(exact=1.0, mid_p=1.0, one_sided=1.0)
    weights = [math.comb(n, i) / 2**n for i in range(n + 1)]
    low = min(losses, gains)
    tail = sum(weights[: low + 1])
    return McNemar(
        exact=min(1.0, 2 * tail),
        mid_p=min(1.0, 2 * tail - weights[low]),
        one_sided=sum(weights[losses:]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedInterval:
    """A 95 % two-sided interval of the difference and its one-sided 95 % lower limit."""

    low: float
    high: float
    lower: float


def wald_error(n: int, losses: int, gains: int) -> float:
    """Return the Wald standard error of (gains - losses) / n."""
    return math.sqrt(losses + gains - (gains - losses) ** 2 / n) / n


def wald_interval(n: int, losses: int, gains: int) -> PairedInterval:
    """Return the Wald limits; for n of 500 or more, where Tango's agree with them."""
    delta, error = (gains - losses) / n, wald_error(n, losses, gains)
    two, one = NORMAL.inv_cdf(0.975), NORMAL.inv_cdf(0.95)
    return PairedInterval(
        low=delta - two * error, high=delta + two * error, lower=delta - one * error
    )


def tango_error(n: Floats, losses: Floats, gains: Floats, delta: float) -> Floats:
    """Return the standard error of (gains - losses) / n were the true difference `delta`.

    The probability of a loss takes its maximum-likelihood value under that hypothesis. Arrays of
    any one shape. Source: Tango 1998, Statistics in Medicine 17, 891-908.
    """
    a = 2.0 * n
    b = (2 * n - gains + losses) * delta - losses - gains
    c = -losses * delta * (1 - delta)
    loss_rate = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    return np.asarray(np.sqrt(np.maximum(2 * loss_rate + delta * (1 - delta), 0.0) / n))


def tango_z(n: int, losses: int, gains: int, delta: float) -> float:
    """Return Tango's score statistic of the hypothesis that the difference is `delta`."""
    total, lost, gained = (np.asarray(float(count)) for count in (n, losses, gains))
    error = float(tango_error(total, lost, gained, delta))
    distance = (gains - losses) / n - delta
    if error == 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / error


def tango_interval(n: int, losses: int, gains: int) -> PairedInterval:
    """Return the score limits: the differences that Tango's statistic doesn't reject."""
    two, one = NORMAL.inv_cdf(0.975), NORMAL.inv_cdf(0.95)

    def limit(z: float) -> float:
        low, high = -1.0, 1.0  # the statistic falls as delta rises
        for _ in range(60):
            middle = (low + high) / 2
            if tango_z(n, losses, gains, middle) > z:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return PairedInterval(low=limit(two), high=limit(-two), lower=limit(one))


def non_inferiority_p(delta: float, error: float, margin: float) -> float:
    """Return the one-sided p-value against "the loss is `margin` or more"."""
    if error == 0:
        return 0.0 if delta > -margin else 1.0
    return NORMAL.cdf(-(delta + margin) / error)


def sign_flip_p(changes: Floats, *, seed: int = 0, draws: int = 100_000) -> float:
    """Return the one-sided permutation p-value of a loss, over samples (super-population).

    Under "no change" each sample's change is as likely to be its negative. All sign patterns of
    the samples that changed are counted up to `EXACT_SIGN_FLIPS` of them; else `draws` are drawn.

    Args:
        changes: [N] candidate minus baseline per sample.
        seed: of the draws.
        draws: how many; the p-value then counts the observed pattern too.
    """
    moved = np.abs(changes[changes != 0])  # an unchanged sample has no sign to flip
    limit = float(changes.sum()) + 1e-12
    if len(moved) <= EXACT_SIGN_FLIPS:
        sums = np.zeros(1)
        for size in moved:
            sums = np.concatenate([sums + size, sums - size])
        return float((sums <= limit).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for chunk in _chunks(draws, 2000):
        signs = rng.integers(0, 2, size=(chunk, len(moved)), dtype=np.int8) * 2 - 1
        hits += int((signs @ moved <= limit).sum())
    return (hits + 1) / (draws + 1)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: reject those at or under alpha."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
