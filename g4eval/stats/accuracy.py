"""Outcomes of one task to an Estimate: avg@k with both standard errors, intervals and the band.

The samples are questions i = 1..N with k_i graded repeats each. "Fixed" errors are about these
questions and new tries, "super" errors about questions like these. Source of the formulas: Miller
2024 (arXiv 2411.00640); docs/statistics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from g4eval.records import Estimate, Interval, Outcome
from g4eval.stats.intervals import both_intervals, wilson


class Scored(NamedTuple):
    """One (sample, repeat) as statistics see it."""

    sample: int  # index of the sample
    outcome: Outcome
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Variances:
    """Variance components of binary outcomes, N samples with at least two repeats."""

    within: float  # mean over samples of the variance between repeats
    between: float  # of the samples' true means, never below 0
    icc: float  # between / (between + within); nan where both are 0


def estimate(rows: Sequence[Scored], n_missing: int = 0) -> Estimate:
    """Return the estimate of one task, or of one split of it.

    Args:
        rows: every stored (sample, repeat), in any order.
        n_missing: requests that failed for good; they count as ungraded.
    """
    graded = [r for r in rows if r.outcome is not Outcome.UNGRADED]
    n_ungraded = len(rows) - len(graded) + n_missing
    correct, counts = _counts(graded)
    n_truncated = sum(r.truncated for r in rows)
    value = _mean(correct, counts)
    interval, interval_super = _intervals(correct, counts)
    return Estimate(
        value=value,
        se_fixed=se_fixed(correct, counts),
        se_super=se_super(correct, counts),
        interval=interval,
        interval_super=interval_super,
        n_samples=int(counts.size),
        n_repeats=int(counts.max(initial=0)),
        n_graded=len(graded),
        n_truncated=n_truncated,
        n_no_answer=sum(r.outcome is Outcome.NO_ANSWER for r in graded),
        n_ungraded=n_ungraded,
        if_truncated_right=_mean(*_counts(graded, truncated_right=True)),
        if_truncated_left_out=_mean(*_counts([r for r in graded if not r.truncated])),
    )


def value_of(rows: Sequence[Scored]) -> float:
    """Return the value of an estimate alone, which takes a fraction of its time."""
    return _mean(*_counts([r for r in rows if r.outcome is not Outcome.UNGRADED]))


def se_fixed(correct: NDArray[np.int64], counts: NDArray[np.int64]) -> float | None:
    """Return the standard error for these samples and new tries; None with a sample at k = 1.

    SE² = (1/N²) Σ s_i² / k_i, with s_i² the variance between a sample's repeats (ddof 1).
    """
    if counts.size == 0 or counts.min() < 2:
        return None
    p = correct / counts
    per_sample = p * (1 - p) / (counts - 1)  # s_i² / k_i
    return float(math.sqrt(per_sample.sum()) / counts.size)


def se_super(correct: NDArray[np.int64], counts: NDArray[np.int64]) -> float | None:
    """Return the standard error for samples like these; None with fewer than two samples."""
    if counts.size < 2:
        return None
    return float((correct / counts).std(ddof=1) / math.sqrt(counts.size))


def variances(correct: NDArray[np.int64], counts: NDArray[np.int64]) -> Variances | None:
    """Return the variance components; None unless N >= 2 and every k_i >= 2."""
    if counts.size < 2 or counts.min() < 2:
        return None
    p = correct / counts
    s2 = p * (1 - p) * counts / (counts - 1)
    within = float(s2.mean())
    between = max(0.0, float(p.var(ddof=1) - (s2 / counts).mean()))
    total = within + between
    return Variances(within=within, between=between, icc=between / total if total else math.nan)


def _counts(
    rows: Sequence[Scored], *, truncated_right: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return right and graded repeats of each sample that has any, in order of sample."""
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    samples = np.array([r.sample for r in rows])
    right = np.array(
        [r.outcome is Outcome.CORRECT or (truncated_right and r.truncated) for r in rows]
    )
    counts = np.bincount(samples)
    correct = np.bincount(samples, weights=right).astype(np.int64)
    there = counts > 0
    return correct[there], counts[there]


def _mean(correct: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    return float((correct / counts).mean()) if counts.size else math.nan


def _intervals(
    correct: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[Interval | None, Interval | None]:
    """Return the intervals for these samples and for samples like these.

    At k = 1 both are Wilson's: about samples like these, so for these samples wider than need be.
    """
    if not counts.size:
        return None, None
    if counts.max() == 1:
        both = wilson(float(correct.sum()), int(counts.size))
        return both, both if counts.size > 1 else None
    found = both_intervals(correct, counts)
    return found.samples, found.like_these if counts.size > 1 else None
