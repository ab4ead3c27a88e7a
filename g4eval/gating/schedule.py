"""The order in which a decision consumes tries: whole rounds, never as they finish.

Short generations finish first and are right more often, so a look at whatever has finished is
biased. A round holds, of each task, its share of (sample, repeat) pairs; looks are at round ends.

A task's pairs stand in one order: all samples' first repeats, then all second ones, and so on; the
samples inside such a pass in the order of SHA-256(decision seed, sample id), subtasks balanced. A
round is a stretch of that order, written in repeats: [0, 0.5) is half of the samples once, a simple
random part of them; [1, 2) every sample's second repeat.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from g4eval.fingerprint import hash_order

Places = NDArray[np.int64]  # [N, k] of each pair in its task's order; -1: not planned

FLOOR = 2  # repeats that every sample gets before the rest goes where the variance is
LEAST_PAIRS = 30  # of each task in a round: fewer can't be judged by a normal approximation
WHOLE_ROUNDS = 2  # anytime: from so many whole repeats on, no pass is cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The repeats of each task that one round adds, as [start, end); parts of a pass are decimals.

    With unequal repeats they are those of the average sample.
    """

    repeats: Mapping[str, tuple[float, float]]

    def share(self, task_id: str) -> float:
        """Return how many tries a sample of this task gets in this round."""
        start, end = self.repeats[task_id]
        return end - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One (task, sample, repeat) of a round."""

    task_id: str
    sample_id: str
    repeat: int


def plan_rounds(
    repeats: Mapping[str, float],
    *,
    design: Literal["gst", "anytime", "fixed"],
    looks: int,
    n_samples: Mapping[str, int] | None = None,
) -> tuple[Round, ...]:
    """Cut the planned repeats of every task into rounds.

    gst: `looks` equal rounds, fewer where a task has few pairs. anytime: of whole repeats where
    every task has several, else as gst; all with the same shares, so that more repeats later add
    rounds and change none. fixed: one.

    Args:
        repeats: by task, of the average sample.
        design: the policy's.
        looks: the policy's.
        n_samples: by task; None: every round holds every sample, as before 0.2.0.
    """
    whole = [round(k) for k in repeats.values()]
    if design == "fixed":
        count = 1
    elif design == "anytime" and (n_samples is None or math.gcd(*whole) >= WHOLE_ROUNDS):
        count = math.gcd(*whole)
    elif n_samples is None:
        count = min(looks, *whole)
    else:
        fewest = min(n_samples[t] * k for t, k in repeats.items())
        count = max(1, min(looks, int(fewest // LEAST_PAIRS)))

    def cut(k: float, i: int) -> float:
        return round(k) * i // count if n_samples is None else _plain(k * i / count)

    return tuple(
        Round(repeats={t: (cut(k, i), cut(k, i + 1)) for t, k in repeats.items()})
        for i in range(count)
    )


def _plain(value: float) -> float:
    """Return a whole number as an int, which is how it was written before there were parts."""
    return int(value) if float(value).is_integer() else value


def next_round(last: Round) -> Round:
    """Return the round after `last`, with its shares."""
    return Round(
        repeats={t: (end, _plain(2 * end - start)) for t, (start, end) in last.repeats.items()}
    )


def pair_places(
    sample_ids: Sequence[str],
    groups: Sequence[str],
    repeats: int | Sequence[int],
    *,
    decision_seed: int,
) -> Places:
    """Return the place of each (sample, repeat) in a task's order.

    Args:
        sample_ids: [N].
        groups: [N] subtasks, "" without; each has its share of every stretch.
        repeats: of every sample, or [N] of each one: after `FLOOR` passes those that are left are
            spread evenly over what is left of the order.
        decision_seed: the policy's.
    """
    rank = np.empty(len(sample_ids), np.int64)
    rank[_question_order(sample_ids, groups, decision_seed)] = np.arange(len(sample_ids))
    if isinstance(repeats, int):
        return uniform_places(rank, repeats)
    counts = np.asarray(repeats, np.int64)
    places = uniform_places(rank, int(counts.max()))
    n, later = len(rank), np.arange(places.shape[1]) - FLOOR
    places[later[None, :] + FLOOR >= counts[:, None]] = -1
    spread = (later[None, :] + (rank[:, None] + 0.5) / n) / np.maximum(counts[:, None] - FLOOR, 1)
    rest = np.argwhere((later >= 0)[None, :] & (places >= 0))
    order = np.argsort(spread[rest[:, 0], rest[:, 1]], kind="stable")
    places[rest[order, 0], rest[order, 1]] = FLOOR * n + np.arange(len(rest))
    return places


def uniform_places(rank: NDArray[np.int64], repeats: int) -> Places:
    """Return places where every sample has so many repeats, from the samples' order in a pass."""
    return np.asarray(rank[:, None] + len(rank) * np.arange(repeats)[None, :])


def _question_order(sample_ids: Sequence[str], groups: Sequence[str], seed: int) -> list[int]:
    hashed = sorted(range(len(sample_ids)), key=lambda i: hash_order(seed, sample_ids[i]))
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    seen: dict[str, int] = {}
    keys: list[tuple[float, int]] = []
    for at, i in enumerate(hashed):
        seen[groups[i]] = seen.get(groups[i], 0) + 1
        keys.append(((seen[groups[i]] - 0.5) / sizes[groups[i]], at))
    return [hashed[at] for _, at in sorted(keys)]


def inside(places: Places, start: float, end: float) -> NDArray[np.bool_]:
    """Return which pairs lie in the stretch [start, end) of a task's order."""
    n = len(places)
    return np.asarray((places >= round(start * n)) & (places < round(end * n)) & (places >= 0))


def tries_in_order(
    round_: Round,
    sample_ids: Mapping[str, Sequence[str]],
    decision_seed: int,
    places: Mapping[str, Places] | None = None,
) -> Iterator[Try]:
    """Yield a round's tries in the one order that depends on nothing that happens.

    places: of each task, its rows in the order of `sample_ids`; None: no pass is cut.
    """
    tries = []
    for task_id, (start, end) in round_.repeats.items():
        ids = sample_ids[task_id]
        at = places[task_id] if places else uniform_places(np.arange(len(ids)), math.ceil(end))
        tries += [
            Try(task_id=task_id, sample_id=ids[i], repeat=int(j))
            for i, j in np.argwhere(inside(at, start, end))
        ]
    tries.sort(key=lambda t: (hash_order(decision_seed, t.sample_id, t.repeat), t.task_id))
    yield from tries


def information_fractions(
    rounds: Sequence[Round],
    n_samples: Mapping[str, int],
    base_repeats: Mapping[str, float] | None = None,
) -> list[float]:
    """Return each round end's share of the plan's information about the mean over some tasks.

    Information is 1 / variance; variances per pair are taken as equal over tasks, so that the
    fractions are known before any outcome is.

    Args:
        rounds: the whole plan.
        n_samples: of each task that the mean is over.
        base_repeats: by task, of the baseline, all of which count from the first look on; None: as
            many as the candidate has by then.
    """
    ends = [
        sum(
            _pair_noise(r.repeats[task][1], None if base_repeats is None else base_repeats[task])
            / n
            for task, n in n_samples.items()
        )
        for r in rounds
    ]
    return fractions_of(ends)


def fractions_of(variances: Sequence[float]) -> list[float]:
    """Return the last variance over each, made to rise: what a later look can't have less of."""
    found: list[float] = []
    for v in variances:
        fraction = 1.0 if v == variances[-1] else round(variances[-1] / v, 12)
        found.append(max(fraction, found[-1] + 1e-6) if found else fraction)
    found[-1] = 1.0
    return [min(f, 1 - 1e-6 * (len(found) - 1 - i)) for i, f in enumerate(found)]


def _pair_noise(end: float, base_repeats: float | None) -> float:
    """Return the variance of the mean difference over N samples, times N, in units of one try's."""
    if end < 1:  # a part of the samples, once each
        return (1 + (1 if base_repeats is None else 1 / base_repeats)) / end
    passes, rest = math.floor(end), end - math.floor(end)
    of_candidate = (1 - rest) / passes + rest / (passes + 1)
    return of_candidate + (of_candidate if base_repeats is None else 1 / base_repeats)
