"""Planning: how many pairs a margin needs, and what margin a plan can prove.

For the fixed-sample paired comparison: the variance of one pair's difference is 2 p (1 - p)
(1 - rho), with rho the intra-class correlation: the share of a score's variance that lies between
samples and therefore cancels in pairs. Plan with 0.5 (cautious), 0.6 to 0.65 (likely with thinking
at temperature 1), or what `gate-calibrate` measured.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from g4eval.stats.paired import NORMAL

GROUP_SEQUENTIAL_COST = 1.04  # the largest n of a group-sequential plan, over the fixed one


def pair_variance(accuracy: float, rho: float) -> float:
    """Return the variance of one pair's difference between equally good arms."""
    return 2 * accuracy * (1 - accuracy) * (1 - rho)


def pairs_needed(
    accuracy: float, rho: float, margin: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the pairs that prove "the loss is under `margin`" with this power, if there is none.

    `margin` is the distance between the two anchors, as a fraction.
    """
    return (_reach(alpha, power) / margin) ** 2 * pair_variance(accuracy, rho)


def provable_margin(error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest margin that a difference with this standard error can prove."""
    return _reach(alpha, power) * error


def _reach(alpha: float, power: float) -> float:
    return NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(power)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """What planning knows of one task."""

    n_samples: int
    accuracy: float
    repeats: int
    rho: float

    @property
    def n_pairs(self) -> int:
        """Tries per arm."""
        return self.n_samples * self.repeats

    @property
    def error(self) -> float:
        """Standard error of the difference on these samples."""
        return math.sqrt(pair_variance(self.accuracy, self.rho) / self.n_pairs)


def macro_error(plan: Mapping[str, PlannedTask]) -> float:
    """Return the standard error of the equal-weight mean difference over tasks."""
    return math.sqrt(sum(task.error**2 for task in plan.values())) / len(plan)


def scale_for_margin(
    plan: Mapping[str, PlannedTask], margin: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the factor on every task's repeats that makes `margin` provable."""
    return (provable_margin(macro_error(plan), alpha=alpha, power=power) / margin) ** 2


def super_population_floor(tau: float, n_samples: int, *, alpha: float = 0.05) -> float:
    """Return the smallest provable drop "on samples like these" that no repeats can improve.

    Args:
        tau: SD over samples of the true per-sample change.
        n_samples: of the task.
        alpha: one-sided.
    """
    return provable_margin(tau / math.sqrt(n_samples), alpha=alpha, power=0.8)
