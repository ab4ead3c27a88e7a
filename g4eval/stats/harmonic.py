"""BBEH's headline: the harmonic mean over tasks, with 1 added to each task's percentage.

The 1 keeps a task without a right answer from making the whole mean 0. The mean is ruled by the
worst tasks: on a realistic profile 89 % of its variance comes from three of them. Report it on the
full set only, with its bootstrap; on 20 samples a task the delta method fails and the bias is
several points.

Source: Kazemi et al., BIG-Bench Extra Hard (arXiv:2502.19187); statistics: docs/statistics.md.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from g4eval.records import Interval

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMeans:
    """Summaries over groups of samples, all in fractions, with standard errors for new samples."""

    micro: float  # every sample counts alike
    macro: float  # every group counts alike
    macro_se: float | None  # None where a group has one sample alone
    harmonic: float  # adjusted; up to 1.01
    harmonic_se: float  # by bootstrap within each group
    harmonic_bias: float  # of the plug-in value, by the same bootstrap
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


def group_means(
    scores: Mapping[str, Sequence[float]], *, seed: int = 0, resamples: int = RESAMPLES
) -> GroupMeans:
    """Return micro average, macro average and adjusted harmonic mean of scores by group.

    Args:
        scores: group -> [n], a score in [0, 1] a sample, the mean over its repeats.
        seed: of the bootstrap, which draws whole samples within each group.
        resamples: draws of the bootstrap.

    Raises ValueError for no group, or a group without a sample.
    """
    if not scores or not all(scores.values()):
        raise ValueError("every group needs a sample")
    groups = [np.asarray(scores[name], dtype=float) for name in sorted(scores)]
    means = [float(group.mean()) for group in groups]
    random = np.random.default_rng(seed)
    drawn = np.stack([_resampled_means(group, random, resamples) for group in groups])
    harmonic = len(groups) / (1 / (drawn + 0.01)).sum(axis=0)
    value = adjusted_harmonic_mean(means)
    low, high = np.quantile(harmonic, [0.025, 0.975])
    return GroupMeans(
        micro=float(np.concatenate(groups).mean()),
        macro=float(np.mean(means)),
        macro_se=_macro_se(groups),
        harmonic=value,
        harmonic_se=float(harmonic.std(ddof=1)),
        harmonic_bias=float(harmonic.mean() - value),
        harmonic_interval=Interval(
            low=float(low), high=float(high), method="bootstrap within groups"
        ),
        n_groups=len(groups),
        n_samples=sum(len(group) for group in groups),
    )


def _resampled_means(
    group: NDArray[np.float64], random: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return [resamples] means of samples drawn with replacement, by counts of equal scores."""
    counts = Counter(group.tolist())
    values = np.array(list(counts))
    drawn = random.multinomial(len(group), np.array(list(counts.values())) / len(group), resamples)
    means: NDArray[np.float64] = drawn @ values / len(group)
    return means


def _macro_se(groups: Sequence[NDArray[np.float64]]) -> float | None:
    if any(len(group) < 2 for group in groups):
        return None
    variance = sum(float(group.var(ddof=1)) / len(group) for group in groups)
    return float(variance**0.5) / len(groups)
