"""What counts of right repeats say of a task: one posterior, of these samples and of their like.

The model: c_i ~ Binomial(k_i, p_i), p_i ~ Beta with a mean and an intraclass correlation (ICC), all
samples' counts updating both together. Nothing is drawn: the posterior stands on a grid that is
laid where it has its weight, however narrow that is, so the same counts give the same numbers and
4,520 samples cost what 13 do.

Why not a prior on each sample, and why no fixed grid: docs/statistics.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS = 10_000
COARSE, FINE = (18, 10), (32, 16)  # points of the grid along mean and ICC
_FARTHEST = (12.0, 7.0)  # logits of mean and ICC that the first grid covers
_DEPTH = 10.0  # log weight below the highest that is no part of the posterior
_PASSES = 6  # of the coarse grid at most: each shrinks it by a third or more
# Each limit is taken under weights leaning to its side, mean^-s below and (1 - mean)^-s above, and
# (1 - ICC)^t. Many data don't feel it; few data are covered by it: flat weights left 13 samples x 2
# at 98 % short of 93 % coverage. s and t were chosen on the cells of `nox -s gate-sim`.
_LEAN_SAMPLES, _LEAN_MEAN = (0.75, 1.0), (0.6, -0.5)  # (s, t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Weighted points; each has a mean of samples like these, and what it says of these samples."""

    log_weights: Floats  # [G], flat in mean and ICC
    means: Floats  # [G] of the Beta that samples come from
    iccs: Floats  # [G]
    sample_means: Floats  # [G] expected mean success probability of these very samples
    sample_variances: Floats  # [G] of that mean

    def limits_of_samples(self, tail: float) -> tuple[float, float]:
        """Return limits of the mean success probability of these samples, `tail` beyond each."""
        mean = np.clip(self.sample_means, 1e-12, 1 - 1e-12)
        largest = mean * (1 - mean)
        size = largest / np.clip(self.sample_variances, 1e-18, largest * (1 - 1e-9)) - 1
        shapes = mean * size, (1 - mean) * size
        low, high = (self._limit_of_samples(shapes, side, tail) for side in (-1, 1))
        return low, high

    def limits_of_mean(self, tail: float) -> tuple[float, float]:
        """Return limits of the mean of samples like these, `tail` beyond each."""
        order = np.argsort(self.means, kind="stable")
        limits = []
        for side in (-1, 1):
            weights = self._weights(side, *_LEAN_MEAN)[order]
            levels = np.cumsum(weights) - weights / 2
            limits.append(float(np.interp(_level(side, tail), levels, self.means[order])))
        return limits[0], limits[1]

    @property
    def icc(self) -> float:
        """The expected intraclass correlation."""
        return float(self._weights(-1, 0.0, 0.0) @ self.iccs)

    def draw_means(self, random: np.random.Generator, correct: Counts, graded: Counts) -> Floats:
        """Return [DRAWS, N] success probabilities drawn for each of the counts."""
        points = random.choice(len(self.means), DRAWS, p=self._weights(-1, 0.0, 0.0))
        total = 1 / self.iccs[points] - 1
        a = self.means[points] * total
        return random.beta(a[:, None] + correct, (total - a)[:, None] + graded - correct)

    def _limit_of_samples(self, shapes: tuple[Floats, Floats], side: int, tail: float) -> float:
        from scipy.optimize import brentq
        from scipy.special import betainc

        weights = self._weights(side, *_LEAN_SAMPLES)
        kept = weights > 1e-4 * weights.max()
        weights, a, b = weights[kept] / weights[kept].sum(), shapes[0][kept], shapes[1][kept]
        level = _level(side, tail)
        return float(brentq(lambda p: weights @ betainc(a, b, p) - level, 0.0, 1.0, xtol=1e-7))

    def _weights(self, side: int, lean: float, lean_icc: float) -> Floats:
        """Return normalised weights that lean to one side: -1 the lower, 1 the upper."""
        towards = self.means if side < 0 else 1 - self.means
        logs = self.log_weights - lean * np.log(towards) + lean_icc * np.log1p(-self.iccs)
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum())


def _level(side: int, tail: float) -> float:
    return tail if side < 0 else 1 - tail


def posterior(correct: Counts, graded: Counts) -> Posterior:
    """Return the posterior of counts c_i of k_i > 0, [N] each."""
    pairs, repeats = np.unique(np.stack([correct, graded]), axis=1, return_counts=True)
    c, k = pairs
    x, y, log_weights = _grid(c, k, repeats.astype(np.float64))
    kept = log_weights > log_weights.max() - _DEPTH
    log_weights, x, y = log_weights[kept], x[kept], y[kept]
    a, b = _shape(x, y)
    n = float(repeats.sum())
    right, wrong = a[:, None] + c, b[:, None] + k - c
    total = right + wrong
    return Posterior(
        log_weights=log_weights,
        means=_expit(x),
        iccs=_expit(y),
        sample_means=(right / total) @ repeats / n,
        sample_variances=(right * wrong / (total**2 * (total + 1))) @ repeats / n**2,
    )


def _grid(c: Counts, k: Counts, repeats: Floats) -> tuple[Floats, Floats, Floats]:
    """Return logit mean, logit ICC and log weight of a grid that fits the posterior, [G] each."""
    edges = np.array([[-f, f] for f in _FARTHEST])
    for _ in range(_PASSES):
        axes = _axes(edges, COARSE)
        log_weights = _log_weights(axes[0], axes[1], c, k, repeats)
        inside = log_weights > log_weights.max() - _DEPTH
        found = np.array([_bounds(axis, inside.any(axis=1 - i)) for i, axis in enumerate(axes)])
        shrunk = (found[:, 1] - found[:, 0]) / (edges[:, 1] - edges[:, 0])
        edges = found
        if shrunk.min() > 2 / 3:
            break
    axes = _axes(edges, FINE)
    x, y = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    return x, y, _log_weights(axes[0], axes[1], c, k, repeats).ravel()


def _axes(edges: Floats, sizes: tuple[int, int]) -> list[Floats]:
    return [
        np.linspace(float(low), float(high), size)
        for (low, high), size in zip(edges, sizes, strict=True)
    ]


def _bounds(axis: Floats, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the span of an axis that holds the posterior, one point more on each side."""
    places = np.flatnonzero(inside)
    return float(axis[max(places[0] - 1, 0)]), float(axis[min(places[-1] + 1, len(axis) - 1)])


def _log_weights(x: Floats, y: Floats, c: Counts, k: Counts, repeats: Floats) -> Floats:
    """Return the log posterior [X, Y] over two axes, flat in mean and ICC, per unit of logits."""
    a, b = _shape(x[:, None], y[None, :])
    total = np.exp(-y)
    logs = [_log_rising(v, int(n.max(initial=0))) for v, n in ((a, c), (b, k - c), (total, k))]
    right, wrong, all_ = (log[..., n] @ repeats for log, n in zip(logs, (c, k - c, k), strict=True))
    likelihood = right + wrong - all_
    return np.asarray(likelihood + _log_logistic(x)[:, None] + _log_logistic(y)[None, :])


def _log_rising(start: Floats, most: int) -> Floats:
    """Return log of start (start + 1) ... (start + j - 1) for j = 0..most, along a last axis."""
    terms = np.log(start[..., None] + np.arange(most))
    return np.concatenate([np.zeros((*start.shape, 1)), np.cumsum(terms, axis=-1)], axis=-1)


def _log_logistic(x: Floats) -> Floats:
    return np.asarray(-np.abs(x) - 2 * np.log1p(np.exp(-np.abs(x))))


def _shape(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return a and b of the Beta with these logits of mean and ICC."""
    total = np.exp(-y)  # a + b = 1 / ICC - 1
    return _expit(x) * total, _expit(-x) * total


def _expit(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
