"""Tests that may stop early: group-sequential boundaries and a betting e-process.

Both are one-sided. Group-sequential: alpha is spent at whatever information fractions the looks
really have (Lan and DeMets 1983), by one of two functions: O'Brien-Fleming's type, which keeps
nearly all for the last look, or that of Hwang, Shih and DeCani (1990), which stops earlier.
E-process: Waudby-Smith and Ramdas (arXiv 2010.09686), a mixture over a fixed grid of bets; Ville's
inequality makes it valid however often one looks.

The e-process takes whole rounds only. A round holds every sample equally often, and bets don't
change inside it, so the expected factor of a round is at most 1 when the mean loss is the margin or
more (inequality of the means); that argument fails inside a round, and a fixed order with stops
inside a round was seen to pass 8 % of bad candidates at alpha 5 %. So there is no way to feed it
single pairs.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from g4eval.stats.paired import NORMAL

Floats = NDArray[np.float64]

BETS: Floats = np.geomspace(0.01, 0.6, 12)  # the grid of lambda; below 1 / (1 + margin)
_REACH = 8.5  # standard deviations of Brownian motion that the integration covers
_NODES_PER_SD = 12.0  # Gauss-Legendre nodes per standard deviation of a step: error under 1e-7


GAMMA = -2.0  # of Hwang, Shih and DeCani: between Pocock (1) and O'Brien-Fleming (about -4)

Spending = Literal["hsd", "obf"]


def spent_alpha(alpha: float, fraction: float, spending: Spending = "obf") -> float:
    """Return the one-sided alpha spent up to an information fraction in (0, 1]."""
    if fraction >= 1:
        return alpha
    if spending == "hsd":
        return alpha * math.expm1(-GAMMA * fraction) / math.expm1(-GAMMA)
    z = NORMAL.inv_cdf(1 - alpha / 2) / math.sqrt(fraction)
    return math.erfc(z / math.sqrt(2))  # 2 - 2 Phi(z)


def boundaries(fractions: Sequence[float], alpha: float, spending: Spending = "obf") -> list[float]:
    """Return the z a look must exceed to reject, one for each information fraction.

    Each is computed as if no other stopping rule existed (non-binding futility).

    Args:
        fractions: rising, in (0, 1]; the looks really taken, so a late or skipped one is simply
            what it is.
        alpha: one-sided, spent by the last look at fraction 1.
        spending: the function that spends it.
    """
    _check_fractions(fractions)
    return list(_boundaries(tuple(fractions), alpha, spending))


@functools.lru_cache(maxsize=256)
def _boundaries(
    fractions: tuple[float, ...], alpha: float, spending: Spending
) -> tuple[float, ...]:
    limits: list[float] = []
    at, density, before, spent = np.zeros(1), np.ones(1), 0.0, 0.0  # Brownian motion, unrejected
    for fraction in fractions:
        total = spent_alpha(alpha, fraction, spending)
        sd = math.sqrt(fraction - before)
        z = _solve_boundary(at, density, sd, math.sqrt(fraction), total - spent)
        limits.append(z)
        at, density = _carry_on(at, density, sd, z * math.sqrt(fraction), fraction)
        before, spent = fraction, total
    return tuple(limits)


def _solve_boundary(at: Floats, density: Floats, sd: float, root: float, spend: float) -> float:
    """Return the z that the next step exceeds with probability `spend`."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def excess(z: float) -> float:
        return float(density @ ndtr((at - z * root) / sd)) - spend

    highest = 37.0  # beyond it the normal tail underflows: so early, nothing can be rejected
    if excess(highest) >= 0:
        return highest
    return float(brentq(excess, -_REACH, highest, xtol=1e-10))


def _check_fractions(fractions: Sequence[float]) -> None:
    rising = all(a < b for a, b in itertools.pairwise(fractions))
    if not fractions or not rising or fractions[0] <= 0 or fractions[-1] > 1:
        raise ValueError(f"information fractions {list(fractions)} don't rise inside (0, 1]")


def _carry_on(
    at: Floats, density: Floats, sd: float, limit: float, fraction: float
) -> tuple[Floats, Floats]:
    """Integrate the density of Brownian motion one step on, below the limit just set."""
    low = -_REACH * math.sqrt(fraction)
    high = min(limit, _REACH * math.sqrt(fraction))
    count = min(4000, max(64, math.ceil((high - low) / sd * _NODES_PER_SD)))
    nodes, weights = np.polynomial.legendre.leggauss(count) if count <= 200 else _panels(count)
    places = low + (nodes + 1) * (high - low) / 2
    kernel = np.exp(-0.5 * ((places[:, None] - at[None, :]) / sd) ** 2) / (
        sd * math.sqrt(2 * math.pi)
    )
    return places, (kernel @ density) * weights * (high - low) / 2


def _panels(count: int) -> tuple[Floats, Floats]:
    """Return Gauss-Legendre nodes in equal panels of 20, which is cheap for any count."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    panels = math.ceil(count / 20)
    starts = -1 + 2 * np.arange(panels) / panels
    places = (starts[:, None] + (nodes[None, :] + 1) / panels).ravel()
    return places, np.tile(weights / panels, panels)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCounts:
    """What one task showed in one round; arrays over independent comparisons (0-d for one).

    The scheduler makes them, and only when every pair of the round is complete in both arms.
    """

    gains: Floats  # pairs only the candidate has right
    losses: Floats
    ties: Floats
    n_planned: int  # pairs the round holds; those of them without a grade bet nothing


def round_weights(rounds: Sequence[RoundCounts]) -> list[float]:
    """Return c_b = (1/n_b) / max(1/n_b) for the tasks of one round.

    Weighted so, the product over all pairs tests the equal-weight mean over tasks; without, the
    task with the most pairs would decide.
    """
    smallest = min(counts.n_planned for counts in rounds)
    return [smallest / counts.n_planned for counts in rounds]


def log_wealth(rounds: Sequence[Sequence[RoundCounts]], shift: float, bets: Floats) -> Floats:
    """Return the log of each bet's wealth at the last round's end, [..., len(bets)].

    Args:
        rounds: [rounds][tasks].
        shift: the factor of a pair is 1 + bet * c * (X + shift). PASS side: the margin with
            positive bets; FAIL side: minus the tolerated difference, with negative bets.
        bets: [L]; those that could lose more than everything are left out.
    """
    bets = bets[np.abs(bets) * (1 + abs(shift)) < 1]
    total: Floats = np.zeros(1)
    for tasks in rounds:
        for counts, weight in zip(tasks, round_weights(tasks), strict=True):
            stake = bets * weight
            for seen, step in ((counts.gains, 1.0), (counts.ties, 0.0), (counts.losses, -1.0)):
                total = total + np.asarray(seen)[..., None] * np.log1p(stake * (step + shift))
    return total


def e_value(rounds: Sequence[Sequence[RoundCounts]], shift: float, bets: Floats = BETS) -> Floats:
    """Return the log of the mixture over the bets, an e-process at round ends."""
    from scipy.special import logsumexp

    wealth = log_wealth(rounds, shift, bets)
    return np.asarray(logsumexp(wealth, axis=-1) - math.log(wealth.shape[-1]))


def log_e_pass(rounds: Sequence[Sequence[RoundCounts]], margin: float) -> Floats:
    """Return the log e-value against "the mean loss is `margin` or more"."""
    return e_value(rounds, margin)


def log_e_fail(rounds: Sequence[Sequence[RoundCounts]], ok: float) -> Floats:
    """Return the log e-value against "the mean difference is `ok` or better"."""
    return e_value(rounds, -ok, -BETS)


def confidence_sequence(
    rounds: Sequence[Sequence[RoundCounts]], alpha: float = 0.05
) -> tuple[float, float]:
    """Return the differences that neither one-sided e-process rejects at alpha / 2.

    Valid at every round end at once. For one comparison.
    """
    threshold = math.log(2 / alpha)

    def edge(*, upward: bool) -> float:
        inside, outside = _most_likely(rounds), (1.0 if upward else -1.0)
        for _ in range(50):
            middle = (inside + outside) / 2
            side = log_e_fail(rounds, middle) if upward else log_e_pass(rounds, -middle)
            if float(side) >= threshold:
                outside = middle
            else:
                inside = middle
        return outside

    return edge(upward=False), edge(upward=True)


def _most_likely(rounds: Sequence[Sequence[RoundCounts]]) -> float:
    """Return the equal-weight mean difference over tasks, which no one-sided process rejects."""
    tasks = list(zip(*rounds, strict=True))
    means = [
        sum(float(c.gains) - float(c.losses) for c in task)
        / max(1.0, sum(float(c.gains) + float(c.losses) + float(c.ties) for c in task))
        for task in tasks
    ]
    return sum(means) / len(means)
