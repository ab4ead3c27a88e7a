"""Two arms under one plan: which pairs a decision consumes, what of them is there, their scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from g4eval.fingerprint import sha256_json
from g4eval.gating.arm import ABSENT, UNGRADED, Arm, ArmTask
from g4eval.gating.copies import Copies, clusters_of, find_copies, merged, subtasks_of
from g4eval.gating.paired_scores import PairedScores
from g4eval.gating.policy import GatePolicy
from g4eval.gating.schedule import FLOOR, Places, Round, inside, next_round, pair_places
from g4eval.stats.noise import Flags
from g4eval.stats.paired import Floats


@dataclass(frozen=True, kw_only=True)
class DecisionPlan:
    """What a decision will consume, fixed before its first look."""

    rounds: tuple[Round, ...]
    # Repeats of each sample, in the order of ids, by task; a task that isn't there: all alike.
    allocation: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # How many of the baseline's repeats count, by task, all from the first look on; a task that
    # isn't there: pair by pair with the candidate's.
    base_repeats: Mapping[str, int] = field(default_factory=dict)

    def until(self, n_rounds: int) -> "DecisionPlan":
        """Return the first rounds of it."""
        return self.of(self.rounds[:n_rounds])

    def of(self, rounds: Sequence[Round]) -> "DecisionPlan":
        """Return the same with other rounds."""
        return DecisionPlan(
            rounds=tuple(rounds), allocation=self.allocation, base_repeats=self.base_repeats
        )


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """A baseline, a candidate and the plan of their decision."""

    base: Arm
    candidate: Arm
    plan: DecisionPlan
    policy: GatePolicy

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the plan."""
        return tuple(self.plan.rounds[0].repeats)

    @cached_property
    def places(self) -> dict[str, Places]:
        """The order of each task's pairs, as long as the longest of plan and candidate."""
        return places_of(self.base, self.plan, self.policy)

    @cached_property
    def n_complete(self) -> int:
        """How many rounds, from the first on, are complete in both arms."""
        for index, round_ in enumerate(self.plan.rounds):
            if not all(self._is_complete(task, end) for task, (_, end) in round_.repeats.items()):
                return index
        return len(self.plan.rounds)

    def used(self, n_rounds: int, task: str) -> tuple[Flags, Flags]:
        """Return which tries of a task the first rounds consume, baseline's and candidate's."""
        end = self.plan.rounds[n_rounds - 1].repeats[task][1] if n_rounds else 0
        base, candidate = self.base.tasks[task], self.candidate.tasks[task]
        planned = _fitted(inside(self.places[task], 0, end), candidate.outcomes.shape[1])
        if task not in self.plan.base_repeats:
            return _fitted(inside(self.places[task], 0, end), base.outcomes.shape[1]), planned
        counted = np.arange(base.outcomes.shape[1]) < self.plan.base_repeats[task]
        return np.broadcast_to(counted, base.outcomes.shape), planned

    def copies(self, n_rounds: int, task: str) -> tuple[Copies, Copies]:
        """Return what the texts of the used tries show, baseline's and candidate's."""
        arms = self.base.tasks[task], self.candidate.tasks[task]
        base, candidate = (
            find_copies(arm, used)
            for arm, used in zip(arms, self.used(n_rounds, task), strict=True)
        )
        return base, candidate

    @cached_property
    def scores(self) -> dict[str, PairedScores]:
        """Both arms' scores by task; what is copied among all complete rounds is so at each."""
        return {task: self._scores(task) for task in self.tasks}

    def _scores(self, task: str) -> PairedScores:
        base, candidate = self.base.tasks[task], self.candidate.tasks[task]
        if task in self.plan.base_repeats:
            base = base.until(self.plan.base_repeats[task])
        copied = np.logical_or(*(c.samples for c in self.copies(self.n_complete, task)))
        groups = np.unique(subtasks_of(task, base), return_inverse=True)[1]
        return PairedScores(
            base=base.scores,
            candidate=candidate.scores,
            places=self.places[task],
            base_ungraded=base.outcomes == UNGRADED,
            candidate_ungraded=candidate.outcomes == UNGRADED,
            copied=copied if copied.any() else None,
            clusters=merged(clusters_of(base), clusters_of(candidate)),
            groups=groups,
            pair_base=task not in self.plan.base_repeats,
            weights=sample_variances(base) if task in self.plan.allocation else None,
        )

    def _is_complete(self, task: str, end: float) -> bool:
        base, candidate = self.base.tasks[task], self.candidate.tasks[task]
        needed = inside(self.places[task], 0, end)
        if not _has(candidate, needed):
            return False
        if task in self.plan.allocation:
            return base.n_repeats >= self.plan.base_repeats[task]
        return _has(base, needed)


def places_of(base: Arm, plan: DecisionPlan, policy: GatePolicy) -> dict[str, Places]:
    """Return the order of each task's pairs, as far as the plan goes."""
    found = {}
    for task, (_, end) in plan.rounds[-1].repeats.items():
        of = base.tasks[task]
        repeats: int | tuple[int, ...] = plan.allocation.get(task) or max(1, math.ceil(end))
        found[task] = pair_places(
            of.sample_ids, of.groups, repeats, decision_seed=policy.decision_seed
        )
    return found


def repeats_until(
    base: Arm, plan: DecisionPlan, policy: GatePolicy, index: int
) -> dict[str, NDArray[np.int64]]:
    """Return how many repeats each sample of each task has by the end of a round, [N] by task."""
    places, round_ = places_of(base, plan, policy), plan.rounds[index]
    return {
        task: inside(places[task], 0, end).sum(axis=1) for task, (_, end) in round_.repeats.items()
    }


def allocated(base: Arm, plan: DecisionPlan, policy: GatePolicy) -> DecisionPlan:
    """Put the plan's repeats where the baseline's own vary, as many in all (Neyman 1934).

    Every sample keeps `FLOOR`: what the baseline always gets right is where damage first shows. Not
    for `anytime`, whose bets take every sample equally often, nor from a baseline with one repeat
    or with copies, which shows no variance.
    """
    if policy.allocation == "equal" or policy.design == "anytime" or not plan.base_repeats:
        return plan
    found: dict[str, tuple[int, ...]] = {}
    for task, (_, end) in plan.rounds[-1].repeats.items():
        of = base.tasks[task]
        copies = find_copies(of, np.ones(of.outcomes.shape, np.bool_))
        if end > FLOOR and of.n_repeats >= FLOOR and not copies.samples.any():
            found[task] = tuple(neyman(sample_variances(of), round(end * len(of.sample_ids))))
    return DecisionPlan(rounds=plan.rounds, allocation=found, base_repeats=plan.base_repeats)


def neyman(variances: Floats, total: int) -> list[int]:
    """Return [N] whole repeats, `total` in all, by deviation, none under FLOOR."""
    spread = np.sqrt(variances)
    counts = np.full(len(spread), float(FLOOR))
    is_free = np.ones(len(spread), np.bool_)
    for _ in range(len(spread)):
        share = (total - counts[~is_free].sum()) * spread / spread[is_free].sum()
        below = is_free & (share < FLOOR)
        if not below.any():
            counts[is_free] = share[is_free]
            break
        is_free &= ~below
    whole = np.floor(counts).astype(np.int64)
    rest = np.argsort(-(counts - whole), kind="stable")[: max(0, total - int(whole.sum()))]
    whole[rest] += 1
    return [int(k) for k in whole]


def sample_variances(task: ArmTask) -> Floats:
    """Return [N] the variance p (1 - p) of a try at each sample, as a baseline lets it be expected.

    The share of right repeats is drawn towards the mean of all samples by two tries' weight, so
    that a sample that was always right still counts.
    """
    scores = task.scores
    n = (~np.isnan(scores)).sum(axis=1)
    right = np.nansum(scores, axis=1)
    mean = right.sum() / max(1, n.sum())
    a, b = right + 2 * mean, n - right + 2 * (1 - mean)
    return np.asarray(np.maximum(a * b / ((a + b) * (a + b + 1)), 1e-3))


def extended(pairing: Pairing) -> Pairing:
    """Add rounds of the last one's shares for as long as both arms have them."""
    rounds = list(pairing.plan.rounds)
    while True:
        longer = pairing.plan.of([*rounds, next_round(rounds[-1])])
        found = Pairing(
            base=pairing.base, candidate=pairing.candidate, plan=longer, policy=pairing.policy
        )
        if found.n_complete < len(longer.rounds):
            return Pairing(
                base=pairing.base,
                candidate=pairing.candidate,
                plan=pairing.plan.of(rounds),
                policy=pairing.policy,
            )
        rounds.append(longer.rounds[-1])


def data_digest(pairing: Pairing, n_rounds: int) -> str:
    """Return a hash of all outcomes that the first rounds consume in both arms."""
    last = pairing.plan.rounds[n_rounds - 1]
    is_whole = all(float(end).is_integer() for _, end in last.repeats.values())
    if is_whole and not pairing.plan.base_repeats:  # as decisions were written before 0.2.0
        ends = {task: (0, int(end)) for task, (_, end) in last.repeats.items()}
        return sha256_json([pairing.base.digest(ends), pairing.candidate.digest(ends)])
    used = {task: pairing.used(n_rounds, task) for task in pairing.tasks}
    return sha256_json(
        [
            pairing.base.digest_of({task: u[0] for task, u in used.items()}),
            pairing.candidate.digest_of({task: u[1] for task, u in used.items()}),
        ]
    )


def _has(task: ArmTask, needed: NDArray[np.bool_]) -> bool:
    k = task.outcomes.shape[1]
    if needed[:, k:].any():
        return False
    return bool((task.outcomes[:, : needed.shape[1]] != ABSENT)[needed[:, :k]].all())


def _fitted(flags: Flags, k: int) -> Flags:
    """Return flags [N, k], cut or filled up."""
    missing = max(0, k - flags.shape[1])
    return np.pad(flags, ((0, 0), (0, missing)))[:, :k]
