"""One task's scores in both arms, and what of them a look may use.

Arrays [..., N, k]; leading axes are independent comparisons, so that a simulation runs the gate's
own code. What isn't graded stands in three ways: left out for the value that is printed, against
the candidate where PASS is asked (its own wrong, the baseline's right), for it where FAIL is.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from g4eval.gating.schedule import Places, inside, uniform_places
from g4eval.stats.noise import Flags
from g4eval.stats.paired import Floats
from g4eval.stats.sequential import RoundCounts


class Reading(IntEnum):
    """How tries without a grade are read."""

    LEFT_OUT = 0
    AGAINST = 1  # the candidate
    FOR = 2


@dataclass(frozen=True, kw_only=True)
class PairedScores:
    """Scores of one task in both arms: 1.0 right, 0.0 wrong, nan for none; samples in one order."""

    base: Floats  # [..., N, kA]
    candidate: Floats  # [..., N, kB]
    places: Places | None = None  # [N, kB or more] the order of pairs; None: as they stand
    base_ungraded: Flags | None = None  # [..., N, kA] tries that were made and not graded
    candidate_ungraded: Flags | None = None
    copied: Flags | None = None  # [..., N] samples whose repeats count as one try: gating/copies.py
    clusters: NDArray[np.int64] | None = None  # [N] equal for samples that are one question
    groups: NDArray[np.int64] | None = None  # [N] subtasks, for samples like these
    pair_base: bool = False  # the baseline's repeats count only where the candidate has that one
    weights: Floats | None = None  # [N] variance of a try, as the allocation took it; None: equal

    @property
    def n_samples(self) -> int:
        """N."""
        return int(self.base.shape[-2])

    @cached_property
    def order(self) -> Places:
        """[N, kB] the place of each of the candidate's tries; -1: not planned."""
        k = self.candidate.shape[-1]
        places = self.places
        if places is None:
            return uniform_places(np.arange(self.n_samples), k)
        if places.shape[1] >= k:
            return places[:, :k]
        missing = np.full((len(places), k - places.shape[1]), -1)
        return np.concatenate([places, missing], axis=1)

    @property
    def has_ungraded(self) -> bool:
        """Whether how they are read makes a difference."""
        flags = (self.base_ungraded, self.candidate_ungraded)
        return any(f is not None and bool(f.any()) for f in flags)

    def until(self, end: float, reading: Reading) -> tuple[Floats, Floats]:
        """Return both arms' scores up to `end` repeats of the candidate."""
        base, candidate = self._read(reading)
        used = inside(self.order, 0, end)
        candidate = np.where(used, candidate, np.nan)
        if self.pair_base:
            base = np.where(_fitted(used, base.shape[-1]), base, np.nan)
        return base, candidate

    def count(self, start: float, end: float, reading: Reading) -> RoundCounts:
        """Return the signs of the pairs of a round: same sample, same repeat.

        Where repeats may be copies, only first repeats count; of samples that are one question,
        only the first sample. Both keep the pairs independent.
        """
        base, candidate = self._read(reading)
        k = min(base.shape[-1], candidate.shape[-1])
        stretch = inside(self.order[:, :k], start, end)
        step = np.where(stretch, candidate[..., :k] - base[..., :k], np.nan)
        if self.copied is not None:
            first = self.order[:, :k] < self.n_samples
            is_free = ~np.asarray(self.copied.any(axis=-1))
            step = np.where(first | is_free[..., None, None], step, np.nan)
        if self.clusters is not None:
            step = np.where(_is_first(self.clusters)[:, None], step, np.nan)
        return RoundCounts(
            gains=(step > 0).sum(axis=(-2, -1)).astype(np.float64),
            losses=(step < 0).sum(axis=(-2, -1)).astype(np.float64),
            ties=(step == 0).sum(axis=(-2, -1)).astype(np.float64),
            n_planned=max(1, int(stretch.sum())),
        )

    def _read(self, reading: Reading) -> tuple[Floats, Floats]:
        base, candidate = self.base, self.candidate
        if reading is Reading.LEFT_OUT:
            return base, candidate
        against = reading is Reading.AGAINST
        if self.base_ungraded is not None:
            base = np.where(self.base_ungraded, float(against), base)
        if self.candidate_ungraded is not None:
            candidate = np.where(self.candidate_ungraded, float(not against), candidate)
        return base, candidate


def _fitted(used: Flags, k: int) -> Flags:
    """Return the flags cut or filled up to k repeats."""
    if used.shape[-1] >= k:
        return used[:, :k]
    return np.concatenate([used, np.zeros((len(used), k - used.shape[-1]), np.bool_)], axis=1)


def _is_first(clusters: NDArray[np.int64]) -> Flags:
    first = np.zeros(len(clusters), np.bool_)
    first[np.unique(clusters, return_index=True)[1]] = True
    return first
