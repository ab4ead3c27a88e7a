"""Two runs side by side: which samples flipped, the paired difference, lengths, the gate's verdict.

Samples are paired by id; what only one run has is counted and left out. The difference is
candidate minus baseline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from g4eval.records import Interval, Outcome
from g4eval.report import words
from g4eval.report.leaderboard import Tokens, short_model, token_summary
from g4eval.report.views import RunView, SampleView, TaskView
from g4eval.stats.noise import PairNoise, pair_noise
from g4eval.stats.paired import paired_difference
from g4eval.stats.score_test import score_limits
from g4eval.store.verdicts import VerdictRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A sample whose share of right tries differs between the runs."""

    sample_id: str
    base_right: int
    base_graded: int
    candidate_right: int
    candidate_graded: int

    @property
    def change(self) -> float:
        """Candidate's share minus the baseline's."""
        return self.candidate_right / self.candidate_graded - self.base_right / self.base_graded


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """Two runs on one task."""

    base: TaskView
    candidate: TaskView
    n_paired: int  # samples graded in both
    n_left_out: int  # samples that only one run has, or that one has not graded
    base_value: float  # over the paired samples
    candidate_value: float
    interval: Interval | None  # of the difference, 95 %; None without a pair
    tau: float | None  # SD over samples of the true change; None at one repeat
    flips: tuple[Flip, ...]  # largest loss first
    base_tokens: Tokens
    candidate_tokens: Tokens
    same_version: bool

    @property
    def delta(self) -> float:
        """Candidate minus baseline, as a fraction."""
        return self.candidate_value - self.base_value

    @property
    def n_lost(self) -> int:
        """Samples the candidate gets right less often."""
        return sum(flip.change < 0 for flip in self.flips)

    @property
    def n_gained(self) -> int:
        """Samples the candidate gets right more often."""
        return sum(flip.change > 0 for flip in self.flips)

    @property
    def reading(self) -> str:
        """The difference as words; never "no regression" for want of evidence."""
        if self.interval is None:
            return "no sample was graded in both runs"
        if self.interval.high < 0:
            return "a loss beyond the error"
        if self.interval.low > 0:
            return "a gain beyond the error"
        worst = words.percent(-self.interval.low)
        return f"no difference beyond the error; a loss of {worst} points can't be ruled out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A baseline and a candidate."""

    base: RunView
    candidate: RunView
    tasks: tuple[TaskComparison, ...]
    verdict: VerdictRecord | None  # the gate's, where it decided on this very pair

    @property
    def slug(self) -> str:
        """The pair as part of a file name."""
        return f"{self.base.slug}--{self.candidate.slug}"


def compare_runs(base: RunView, candidate: RunView) -> Comparison:
    """Compare two runs on the tasks that both have."""
    pairs = [
        (task, other) for task in base.tasks if (other := candidate.task(task.task_id)) is not None
    ]
    return Comparison(
        base=base,
        candidate=candidate,
        tasks=tuple(_compare_task(task, other) for task, other in pairs),
        verdict=_gate_verdict(base, candidate),
    )


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return what the page's charts and its table of flips are drawn from."""
    return {
        "base": {
            "label": short_model(comparison.base.model),
            "file": f"run-{comparison.base.slug}.html",
        },
        "candidate": {
            "label": short_model(comparison.candidate.model),
            "file": f"run-{comparison.candidate.slug}.html",
        },
        "tasks": [
            {
                "id": task.base.task_id,
                "title": task.base.title,
                "delta": None if task.interval is None else round(100 * task.delta, 3),
                "low": None if task.interval is None else round(100 * task.interval.low, 3),
                "high": None if task.interval is None else round(100 * task.interval.high, 3),
                "flips": [
                    [
                        flip.sample_id,
                        flip.base_right,
                        flip.base_graded,
                        flip.candidate_right,
                        flip.candidate_graded,
                    ]
                    for flip in task.flips
                ],
            }
            for task in comparison.tasks
        ],
    }


def _compare_task(base: TaskView, candidate: TaskView) -> TaskComparison:
    others = {sample.sample_id: sample for sample in candidate.samples}
    pairs = [
        (sample, others[sample.sample_id])
        for sample in base.samples
        if sample.sample_id in others and _graded(sample) and _graded(others[sample.sample_id])
    ]
    ids = {sample.sample_id for sample in base.samples} | others.keys()
    base_scores = _scores([sample for sample, _ in pairs])
    candidate_scores = _scores([other for _, other in pairs])
    difference = paired_difference(base_scores, candidate_scores) if pairs else None
    return TaskComparison(
        base=base,
        candidate=candidate,
        n_paired=len(pairs),
        n_left_out=len(ids) - len(pairs),
        base_value=_mean(base_scores),
        candidate_value=_mean(candidate_scores),
        interval=_interval(pair_noise(base_scores, candidate_scores)) if pairs else None,
        tau=None if difference is None or math.isnan(difference.tau) else float(difference.tau),
        flips=_flips(pairs),
        base_tokens=token_summary(base),
        candidate_tokens=token_summary(candidate),
        same_version=base.version == candidate.version,
    )


def _graded(sample: SampleView) -> list[bool]:
    return [
        r.outcome is Outcome.CORRECT for r in sample.repeats if r.outcome is not Outcome.UNGRADED
    ]


def _scores(samples: Sequence[SampleView]) -> NDArray[np.float64]:
    """Return [N, k] scores, nan where a try is missing or ungraded."""
    width = max((len(sample.repeats) for sample in samples), default=1)
    scores = np.full((len(samples), width), np.nan)
    for row, sample in enumerate(samples):
        for column, repeat in enumerate(sample.repeats):
            if repeat.outcome is not Outcome.UNGRADED:
                scores[row, column] = repeat.outcome is Outcome.CORRECT
    return scores


def _mean(scores: NDArray[np.float64]) -> float:
    return float(np.nanmean(scores, axis=1).mean()) if scores.size else math.nan


def _interval(noise: PairNoise) -> Interval | None:
    """Return the limits of the gate's own test: they have a width even where nothing differs."""
    if not math.isfinite(float(noise.delta)):
        return None
    low, high = score_limits([noise])
    return Interval(low=low, high=high, method="score, paired")


def _flips(pairs: Sequence[tuple[SampleView, SampleView]]) -> tuple[Flip, ...]:
    flips = []
    for base, candidate in pairs:
        ours, theirs = _graded(base), _graded(candidate)
        flip = Flip(
            sample_id=base.sample_id,
            base_right=sum(ours),
            base_graded=len(ours),
            candidate_right=sum(theirs),
            candidate_graded=len(theirs),
        )
        if flip.change:
            flips.append(flip)
    return tuple(sorted(flips, key=lambda flip: (flip.change, flip.sample_id)))


def _gate_verdict(base: RunView, candidate: RunView) -> VerdictRecord | None:
    for verdict in candidate.gate_verdicts:
        if verdict.baseline.run_id == base.run_id:
            return verdict
    return None
