"""How far the mean of paired differences may be from the truth, under a hypothesis about it.

A standard error from the observed variance alone is smallest just when a loss stayed unseen, so a
small or saturated task passes too often. Tango's score error asks instead what the variance would
be were the hypothesis true. Here it is carried over to any number of repeats, to more repeats in
one arm than in the other, to repeats that are copies and to questions that stand twice.

Source: Tango 1998, Statistics in Medicine 17, 891-908; at one repeat in each arm this equals it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from g4eval.stats.paired import Floats, sample_moments, tango_error

FEW = 50.0  # discordant pairs, up to which the variance between repeats is not trusted alone

FEW_CLUSTERS = 20.0  # the same, of clusters, for samples like these

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairNoise:
    """What the error of one task's difference is made of; arrays over independent comparisons."""

    delta: Floats
    plain: Floats  # variance of delta from the spread between repeats; nan where one has a single
    losses: Floats  # rate of pairs that only the baseline has right, over all pairings of repeats
    gains: Floats
    n_pairs: Floats  # independent pairs that these repeats are worth
    saved: Floats  # variance that the longer arm's further repeats take off that of so many pairs
    least: Floats  # 1 / pairs, had both arms as many repeats as the longer one

    def error(self, hypothesis: float) -> Floats:
        """Return the standard error of delta were the true difference `hypothesis`."""
        assumed = self.assumed(hypothesis)
        variance = self.seen_variance() + (assumed - self.seen) / self.n_pairs
        return np.asarray(np.sqrt(np.maximum(variance, assumed * self.least)))

    def own_error(self) -> Floats:
        """Return the standard error of delta at what was seen: 0 only where no pair differs."""
        return np.asarray(np.sqrt(np.maximum(self.seen_variance(), self.seen * self.least)))

    @property
    def seen(self) -> Floats:
        """The variance of one pair."""
        return np.maximum(self.losses + self.gains - self.delta**2, 0.0)

    def assumed(self, hypothesis: float) -> Floats:
        """Return the variance of one pair were the true difference `hypothesis`."""
        one = np.ones_like(self.delta)
        return tango_error(one, self.losses, self.gains, hypothesis) ** 2

    def seen_variance(self) -> Floats:
        """Return the variance of delta from the spread between repeats, with distrust in few."""
        by_pairs = np.maximum(self.seen / self.n_pairs - self.saved, 0.0)
        plain = np.where(np.isnan(self.plain), by_pairs, self.plain)
        discordant = np.maximum(self.n_pairs * (self.losses + self.gains), 1e-9)
        distrust = np.minimum(1.0, FEW / discordant)
        return np.asarray(plain + distrust * np.maximum(by_pairs - plain, 0.0))


def pair_noise(
    base: Floats,
    candidate: Floats,
    *,
    copied: Flags | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> PairNoise:
    """Return the noise of two arms' difference on these samples.

    Args:
        base: [..., N, kA] scores, nan where there is none.
        candidate: [..., N, kB]; samples in the same order.
        copied: [..., N] samples whose repeats may be copies of each other: they count as one try.
        clusters: [N] equal for samples that are one question: together they count as one try.
    """
    n_base, mean_base, var_base = sample_moments(base)
    n_cand, mean_cand, var_cand = sample_moments(candidate)
    change = mean_cand - mean_base
    used = ~np.isnan(change)
    alone = _of_several(clusters, used)  # [..., N] samples inside a larger cluster
    whole = alone if copied is None else alone | copied
    n = used.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        fewer, more = np.minimum(n_base, n_cand), np.maximum(n_base, n_cand)
        between_repeats = var_base / n_base + var_cand / n_cand
        spread = np.where(whole, change**2, between_repeats)
        saved = _times(var_base, 1 / fewer - 1 / n_base) + _times(var_cand, 1 / fewer - 1 / n_cand)
        losses = _mean(mean_base * (1 - mean_cand), used, n)
        gains = _mean(mean_cand * (1 - mean_base), used, n)
        noise = _total(spread, used & ~alone) + _cluster_powers(change, clusters, alone & used)
        weight = _total(np.where(whole, 1.0, 1 / fewer), used & ~alone)
        least = _total(np.where(whole, 1.0, 1 / more), used & ~alone)
        together = _cluster_powers(np.ones_like(change), clusters, alone & used)
        return PairNoise(
            delta=_mean(change, used, n),
            plain=noise / n**2,
            losses=losses,
            gains=gains,
            n_pairs=n**2 / (weight + together),
            saved=_total(np.where(whole, 0.0, saved), used) / n**2,
            least=(least + together) / n**2,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperNoise:
    """What the error of a difference on samples like these is made of."""

    fixed: PairNoise
    variance: Floats  # of delta, from the spread between clusters of samples
    third: Floats  # central moment of delta, from the same
    clusters: int  # that samples like these are drawn in

    @property
    def degrees(self) -> float:
        """Degrees of freedom."""
        return float(max(self.clusters - 1, 1))

    @property
    def delta(self) -> Floats:
        """The difference, as on these samples."""
        return self.fixed.delta

    def error(self, hypothesis: float) -> Floats:
        """Return the standard error of delta were the true difference `hypothesis`.

        What the hypothesis adds to a pair's variance comes in whole samples: as many pairs at once
        as the spread between samples shows, and where few differ all of a sample's.
        """
        fixed = self.fixed
        by_pairs = np.maximum(fixed.seen / fixed.n_pairs, 1e-12)
        discordant = np.maximum(self.clusters * (fixed.losses + fixed.gains), 1e-9)
        distrust = np.minimum(1.0, FEW_CLUSTERS / discordant)
        at_most = 1 + (np.maximum(fixed.n_pairs / self.clusters, 1.0) - 1) * distrust
        together = np.maximum(self.variance / by_pairs, at_most)
        more = (fixed.assumed(hypothesis) - fixed.seen) / fixed.n_pairs
        at_least = fixed.error(hypothesis)
        variance = self.own_error() ** 2 + together * np.maximum(more, 0.0)
        return np.asarray(np.maximum(np.sqrt(variance), at_least))

    def own_error(self) -> Floats:
        """Return the standard error of delta at what was seen."""
        return np.asarray(np.sqrt(np.maximum(self.variance, self.fixed.seen_variance())))


def super_noise(
    base: Floats,
    candidate: Floats,
    fixed: PairNoise,
    *,
    groups: NDArray[np.int64] | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> SuperNoise:
    """Return the noise of two arms' difference on samples like these.

    Whole clusters are drawn: subtasks where there are several, else questions. Source: the
    cluster-robust variance of a mean (Liang and Zeger 1986) with its small-sample factor.
    """
    change = sample_moments(candidate)[1] - sample_moments(base)[1]
    used = ~np.isnan(change)
    n = used.sum(axis=-1)
    names = _drawn_together(groups, clusters, change.shape[-1])
    count = len(np.unique(names))
    left = np.where(used, change - fixed.delta[..., None], 0.0)
    squares = _cluster_powers(left, names, used, 2)
    cubes = _cluster_powers(left, names, used, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = squares / n**2 * count / max(count - 1, 1)
        third = cubes / n**3
    return SuperNoise(fixed=fixed, variance=variance, third=third, clusters=count)


def _drawn_together(
    groups: NDArray[np.int64] | None, clusters: NDArray[np.int64] | None, n: int
) -> NDArray[np.int64]:
    if groups is not None and len(np.unique(groups)) > 1:
        return groups
    return np.arange(n) if clusters is None else clusters


def _of_several(clusters: NDArray[np.int64] | None, used: Flags) -> Flags:
    if clusters is None:
        return np.zeros(used.shape, np.bool_)
    sizes = np.bincount(clusters)[clusters]
    return np.broadcast_to(sizes > 1, used.shape)


def _cluster_powers(
    values: Floats, clusters: NDArray[np.int64] | None, inside: Flags, power: int = 2
) -> Floats:
    """Return the sum over clusters of a power of the sum of their values."""
    if clusters is None or not inside.any():
        return np.zeros(values.shape[:-1])
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=clusters[order[0]] - 1))
    sums = np.add.reduceat(np.where(inside, values, 0.0)[..., order], starts, axis=-1)
    return np.asarray((sums**power).sum(axis=-1))


def _times(variance: Floats, factor: Floats) -> Floats:
    """Return their product, 0 where the factor is: a single repeat's variance is unknown."""
    return np.where(factor > 0, variance * factor, 0.0)


def _total(values: Floats, where: Flags) -> Floats:
    return np.asarray(np.where(where, values, 0.0).sum(axis=-1))


def _mean(values: Floats, used: Flags, n: NDArray[np.int64]) -> Floats:
    return _total(values, used) / n
