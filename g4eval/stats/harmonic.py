"""BBEH's headline: the harmonic mean over tasks, with 1 added to each task's percentage.

The 1 keeps a task without a right answer from making the whole mean 0. The mean is ruled by the
worst tasks: on a realistic profile 89 % of its variance comes from three of them. So its interval
comes from a posterior of the tasks' accuracies, not from resampling them: drawn again, a task
without a right answer never has one, and a task with one has none a third of the time.

Source: Kazemi et al., BIG-Bench Extra Hard (arXiv:2502.19187); statistics: docs/statistics.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from g4eval.records import Interval
from g4eval.stats.posterior import posterior


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMeans:
    """Summaries over groups of samples, all in fractions, with standard errors for new samples."""

    micro: float  # every sample counts alike
    macro: float  # every group counts alike
    macro_se: float | None  # None where a group has one sample alone
    harmonic: float  # adjusted; up to 1.01
    harmonic_se: float  # of the posterior
    harmonic_interval: Interval
    n_groups: int
    n_samples: int


def adjusted_harmonic_mean(accuracies: Sequence[float]) -> float:
    """Return K / sum(1 / (accuracy + 0.01)) of K accuracies in [0, 1]: percent plus 1, as given."""
    return len(accuracies) / sum(1 / (accuracy + 0.01) for accuracy in accuracies)


def harmonic_delta_se(accuracies: Sequence[float], variances: Sequence[float]) -> float:
    """Return the delta method's standard error of the adjusted harmonic mean.

    Args:
        accuracies: [K], fractions.
        variances: [K], of each accuracy.
    """
    mean = adjusted_harmonic_mean(accuracies)
    slopes = [mean**2 / (len(accuracies) * (a + 0.01) ** 2) for a in accuracies]
    return float(sum(slope**2 * v for slope, v in zip(slopes, variances, strict=True)) ** 0.5)


def group_means(scores: Mapping[str, Sequence[float]], *, seed: int = 0) -> GroupMeans:
    """Return micro average, macro average and adjusted harmonic mean of scores by group.

    Args:
        scores: group -> [n], a score in [0, 1] a sample, the mean over its repeats.
        seed: of the draws from the posterior.

    Raises ValueError for no group, or a group without a sample.
    """
    if not scores or not all(scores.values()):
        raise ValueError("every group needs a sample")
    groups = [np.asarray(scores[name], dtype=float) for name in sorted(scores)]
    means = [float(group.mean()) for group in groups]
    value = adjusted_harmonic_mean(means)
    drawn = _drawn_means(groups, np.random.default_rng(seed))
    harmonic = _harmonic(drawn)
    if_zero = _harmonic(np.where(np.array(means) == 0, 0.0, drawn))  # none right: maybe none ever
    low, high = float(np.quantile(if_zero, 0.025)), float(np.quantile(harmonic, 0.975))
    return GroupMeans(
        micro=float(np.concatenate(groups).mean()),
        macro=float(np.mean(means)),
        macro_se=_macro_se(groups),
        harmonic=value,
        harmonic_se=float(harmonic.std(ddof=1)),
        harmonic_interval=Interval(
            low=min(low, value), high=max(high, value), method="posterior of the groups' accuracies"
        ),
        n_groups=len(groups),
        n_samples=sum(len(group) for group in groups),
    )


def _harmonic(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the adjusted harmonic mean along the last axis."""
    return np.asarray(means.shape[-1] / (1 / (means + 0.01)).sum(axis=-1))


def _drawn_means(
    groups: Sequence[NDArray[np.float64]], random: np.random.Generator
) -> NDArray[np.float64]:
    """Return [draws, groups] accuracies for samples like these, drawn from their posterior.

    The groups' accuracies come from one Beta, whose mean and spread their counts update together.
    Several repeats of a sample count as the tries that its scores' variance shows them to be worth.
    """
    tries = np.array([_worth(group) for group in groups])
    right = np.array([round(group.mean() * n) for group, n in zip(groups, tries, strict=True)])
    return posterior(right, tries).draw_means(random, right, tries)


def _worth(group: NDArray[np.float64]) -> int:
    """Return how many independent tries tell as much of the mean as these samples do."""
    mean, n = float(group.mean()), len(group)
    spread = float(group.var(ddof=1)) if n > 1 else 0.0
    if spread == 0:
        return n
    return max(n, round(n * mean * (1 - mean) / spread))


def _macro_se(groups: Sequence[NDArray[np.float64]]) -> float | None:
    if any(len(group) < 2 for group in groups):
        return None
    variance = sum(float(group.var(ddof=1)) / len(group) for group in groups)
    return float(variance**0.5) / len(groups)
