"""The order in which a decision consumes tries: whole rounds, never as they finish.

Short generations finish first and are right more often, so a look at whatever has finished is
biased. A round holds every sample of every task with its share of repeats; looks are at round ends.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from g4eval.fingerprint import hash_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The repeats of each task that one round adds, as [start, end)."""

    repeats: Mapping[str, tuple[int, int]]

    def share(self, task_id: str) -> int:
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
    repeats: Mapping[str, int], *, design: Literal["gst", "anytime", "fixed"], looks: int
) -> tuple[Round, ...]:
    """Cut the planned repeats of every task into rounds that each hold every sample.

    gst: `looks` rounds, fewer where some task has fewer repeats. anytime: as many as possible, all
    with the same shares, so that more repeats later add rounds and change none. fixed: one.
    """
    if design == "fixed":
        count = 1
    elif design == "anytime":
        count = math.gcd(*repeats.values())
    else:
        count = min(looks, *repeats.values())
    return tuple(
        Round(repeats={t: (k * i // count, k * (i + 1) // count) for t, k in repeats.items()})
        for i in range(count)
    )


def next_round(last: Round) -> Round:
    """Return the round after `last`, with its shares."""
    return Round(repeats={t: (end, 2 * end - start) for t, (start, end) in last.repeats.items()})


def tries_in_order(
    round_: Round, sample_ids: Mapping[str, Sequence[str]], decision_seed: int
) -> Iterator[Try]:
    """Yield a round's tries in the one order that depends on nothing that happens."""
    tries = [
        Try(task_id=task_id, sample_id=sample_id, repeat=repeat)
        for task_id, (start, end) in round_.repeats.items()
        for sample_id in sample_ids[task_id]
        for repeat in range(start, end)
    ]
    tries.sort(key=lambda t: (hash_order(decision_seed, t.sample_id, t.repeat), t.task_id))
    yield from tries


def information_fractions(rounds: Sequence[Round], n_samples: Mapping[str, int]) -> list[float]:
    """Return each round end's share of the plan's information about the mean over some tasks.

    Information is 1 / variance; variances per pair are taken as equal over tasks, so that the
    fractions are known before any outcome is.

    Args:
        rounds: the whole plan.
        n_samples: of each task that the mean is over.
    """
    ends = [sum(1 / (n * r.repeats[task][1]) for task, n in n_samples.items()) for r in rounds]
    return [1.0 if e == ends[-1] else ends[-1] / e for e in ends]
