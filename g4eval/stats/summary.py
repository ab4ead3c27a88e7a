"""A run's store to the numbers of its table: per task an estimate, pass@k, maj@k and what is odd.

A function of stored completions and grades alone: the same rows, the same numbers to the last bit.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from g4eval.records import Estimate, Grade, Outcome, StopReason, Thought
from g4eval.stats.accuracy import Scored, Variances, estimate, value_of, variances
from g4eval.stats.harmonic import GroupMeans, group_means
from g4eval.stats.pass_at_k import maj_at_k, mean_pass_at_k
from g4eval.store.reader import RunReader
from g4eval.store.rows import StoredRow
from g4eval.store.stored import StoredPlan

SUSPECTS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A completion whose grade a person should look at: `g4eval show RUN SAMPLE_ID`."""

    sample_id: str
    repeat: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a reader should know beside the score."""

    n_not_extracted: int  # right by the second reading, not by the scoring one
    n_right_by_first_alone: int
    second_score: float | None  # had the second reading scored; None: there is none
    n_readings_differ: int  # the two readings extracted different answers
    n_ended_unanswered: int  # ended by themselves, and no answer was found in them
    n_without_box: int  # scored by a number outside any box
    n_duplicates: int  # repeats whose text equals an earlier repeat's of the same sample
    n_missing: int  # planned, not stored and not failed
    failed: int  # requests that failed for good; sent again by the next session
    n_refused: int = 0  # requests that can never succeed
    finish_words: dict[str, int] = field(default_factory=dict)  # servers' words of no table
    suspects: tuple[Suspect, ...] = ()  # the most suspicious ones, first


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """All numbers of one task in one run."""

    task_id: str
    plan: StoredPlan  # what was planned, as stored
    estimate: Estimate
    splits: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    pass_at: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    maj_at: dict[int, float] = field(default_factory=dict)
    groups: GroupMeans | None = None  # over the first split, for tasks whose metrics ask for it
    variances: Variances | None = None
    audit: Audit
    is_partial: bool  # not all of the task's samples: never compared with a published score
    refused_band: tuple[float, float] | None = None  # what is refused all wrong, all right
    mean_completion_tokens: float | None
    share_with_thought: float | None  # of all completions; None: there are none


def summarise(run: RunReader) -> list[TaskSummary]:
    """Return the numbers of each task of a run, in order of task id."""
    never_as = run.never_as
    return [_summarise_task(run, task_id, p, never_as) for task_id, p in run.tasks().items()]


def _summarise_task(
    run: RunReader, task_id: str, plan: StoredPlan, never_as: object
) -> TaskSummary:
    samples = run.samples(task_id)
    index = {s.sample_id: i for i, s in enumerate(samples)}
    rows = list(run.rows(task_id))
    failed = run.failed(task_id)
    refused = run.refused(task_id).keys()
    n_missing = len(failed) + len(refused)
    stored = rows
    if never_as == "wrong":
        rows, n_missing = [*rows, *map(_without_answer, sorted(refused))], len(failed)
    scored = [_scored(row, index) for row in rows]
    groups = {name: [s.groups.get(name, "") for s in samples] for name in plan.splits}
    correct, counts, by_sample = _per_sample(rows)
    planned = len(samples) * plan.repeats if plan.is_generated else len(stored)
    if plan.is_uneven:  # laid out by a gate, which stopped when it knew: each sample once at least
        planned = len(stored) + len(failed) + len(refused) + len(samples) - len(counts)
    # Imported completions may cover part of the task, or unequal repeats.
    is_short = plan.is_uneven and len(counts) < len(samples)
    is_uneven = not plan.is_generated and len(rows) < len(samples) * plan.repeats
    return TaskSummary(
        task_id=task_id,
        plan=plan,
        estimate=estimate(scored, n_missing=n_missing),
        splits={name: _split(scored, values) for name, values in groups.items() if any(values)},
        pass_at={k: mean_pass_at_k(correct, counts, k) for k in range(1, _least(counts) + 1)}
        if "pass@k" in plan.metrics
        else {},
        maj_at=_maj_at(by_sample, counts) if "maj@k" in plan.metrics else {},
        groups=_group_means(rows, groups, index, plan),
        variances=variances(correct, counts) if counts.size else None,
        audit=replace(
            _audit(
                stored,
                scored[: len(stored)],
                failed=len(failed),
                n_missing=planned - len(stored) - len(failed) - len(refused),
            ),
            n_refused=len(refused),
            finish_words=run.finish_words(task_id),
        ),
        is_partial=plan.data_is_partial
        or len(samples) < plan.n_selected
        or is_uneven
        or is_short
        or bool(refused),
        refused_band=_refused_band(scored[: len(stored)], refused, index),
        mean_completion_tokens=_mean(r.completion_tokens for r in stored),
        share_with_thought=_mean(int(r.thought is not Thought.NONE) for r in stored),
    )


def _refused_band(
    scored: list[Scored], refused: Iterable[tuple[str, int]], index: dict[str, int]
) -> tuple[float, float] | None:
    """Return the score with what is refused all wrong, and all right; None: nothing is."""
    places = [index[sample_id] for sample_id, _ in sorted(refused)]
    if not places:
        return None
    low, high = (
        value_of([*scored, *(Scored(sample=p, outcome=o, truncated=False) for p in places)])
        for o in (Outcome.INCORRECT, Outcome.CORRECT)
    )
    return low, high


def _without_answer(place: tuple[str, int]) -> StoredRow:
    """Return a row that scores 0, for a request that can never succeed."""
    sample_id, repeat = place
    grade = Grade(key="", grader="never-as", grader_version=1, outcome=Outcome.NO_ANSWER)
    return StoredRow(
        key="",
        sample_id=sample_id,
        repeat=repeat,
        stop_reason=StopReason.FILTERED,
        thought=Thought.NONE,
        text_hash="",
        prompt_hash=None,
        prompt_tokens=None,
        reasoning_tokens=None,
        completion_tokens=None,
        started_at=0.0,
        finished_at=0.0,
        grade=grade,
    )


def _least(counts: np.ndarray[Any, Any]) -> int:
    """Return the repeats that every sample has: beyond them pass@k would be about a part."""
    return int(counts.min()) if counts.size else 0


def _scored(row: StoredRow, index: dict[str, int]) -> Scored:
    return Scored(index[row.sample_id], row.outcome, row.stop_reason is StopReason.LENGTH)


def _split(scored: list[Scored], values: list[str]) -> dict[str, Estimate]:
    parts: dict[str, list[Scored]] = defaultdict(list)
    for row in scored:
        parts[values[row.sample]].append(row)
    return {value: estimate(part) for value, part in sorted(parts.items())}


def _group_means(
    rows: list[StoredRow],
    groups: dict[str, list[str]],
    index: dict[str, int],
    plan: StoredPlan,
) -> GroupMeans | None:
    """Return macro average and harmonic mean over the first split; None: no metric asks for it."""
    if not {"macro", "adjusted_harmonic_mean"} & set(plan.metrics) or not groups:
        return None
    values = groups[plan.splits[0]]
    tries: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.outcome is not Outcome.UNGRADED:
            tries[row.sample_id].append(row.outcome is Outcome.CORRECT)
    scores: dict[str, list[float]] = defaultdict(list)
    for sample_id, right in tries.items():
        scores[values[index[sample_id]]].append(sum(right) / len(right))
    return group_means(scores) if scores else None


def _per_sample(
    rows: list[StoredRow],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[list[tuple[str | None, bool]]]]:
    """Return right and graded repeats of each sample, and its (answer, is right) list."""
    answers: dict[str, list[tuple[str | None, bool]]] = defaultdict(list)
    for row in rows:
        if row.outcome is not Outcome.UNGRADED:
            assert row.grade is not None
            answers[row.sample_id].append((_vote(row), row.outcome is Outcome.CORRECT))
    by_sample = list(answers.values())
    correct = np.array([sum(right for _, right in a) for a in by_sample], dtype=np.int64)
    counts = np.array([len(a) for a in by_sample], dtype=np.int64)
    return correct, counts, by_sample


def _vote(row: StoredRow) -> str | None:
    """Return what a majority counts: all right answers are one, however they are written."""
    assert row.grade is not None
    if row.outcome is Outcome.CORRECT:
        return "(right)"
    return row.grade.extraction


def _maj_at(
    by_sample: list[list[tuple[str | None, bool]]], counts: np.ndarray[Any, Any]
) -> dict[int, float]:
    most = _least(counts)
    sizes = [k for k in (1, 2, 4, 8, 16, 32, 64) if k < most] + ([most] if most else [])
    return {
        k: float(np.mean([maj_at_k(a, k, seed=i) for i, a in enumerate(by_sample) if len(a) >= k]))
        for k in sizes
    }


def _audit(rows: list[StoredRow], scored: list[Scored], *, failed: int, n_missing: int) -> Audit:
    seen: set[tuple[str, str]] = set()
    duplicates = 0
    for row in rows:
        duplicates += (row.sample_id, row.text_hash) in seen
        seen.add((row.sample_id, row.text_hash))
    grades = [row.grade for row in rows if row.grade is not None]
    return Audit(
        n_not_extracted=sum(
            g.lenient_outcome is Outcome.CORRECT and g.outcome is not Outcome.CORRECT
            for g in grades
        ),
        n_right_by_first_alone=sum(
            g.lenient_outcome is Outcome.INCORRECT and g.outcome is Outcome.CORRECT for g in grades
        ),
        second_score=_second_score(rows, scored),
        n_readings_differ=sum(
            g.lenient_outcome is not None and g.lenient_extraction != g.extraction for g in grades
        ),
        n_ended_unanswered=sum(_ended_unanswered(row) for row in rows),
        n_without_box=sum(g.details.get("reading") == "last_number" for g in grades),
        n_duplicates=duplicates,
        n_missing=max(0, n_missing),
        failed=failed,
        suspects=tuple(_suspects(rows)),
    )


def _second_score(rows: list[StoredRow], scored: list[Scored]) -> float | None:
    """Return the score by the second reading, by the first where it gave no answer."""
    if not any(row.grade and row.grade.lenient_outcome for row in rows):
        return None
    second = [
        one._replace(outcome=row.grade.lenient_outcome)
        if row.grade and row.grade.lenient_outcome not in (None, one.outcome)
        else one
        for row, one in zip(rows, scored, strict=True)
    ]
    return value_of(second)


def _ended_unanswered(row: StoredRow) -> bool:
    return (
        row.outcome is Outcome.NO_ANSWER
        and row.stop_reason is StopReason.STOP
        and row.thought is not Thought.OPEN
    )


def _suspects(rows: list[StoredRow]) -> list[Suspect]:
    """Return the completions whose reading is in doubt, the ones that cost a right answer first."""
    ranked = []
    for row in rows:
        grade = row.grade
        if grade is None:
            continue
        if grade.lenient_outcome is Outcome.CORRECT and grade.outcome is not Outcome.CORRECT:
            ranked.append((0, row, "right by the second reading alone"))
        elif grade.outcome is Outcome.CORRECT and grade.lenient_outcome is Outcome.INCORRECT:
            ranked.append((1, row, "right by the first reading alone"))
        elif _ended_unanswered(row):
            ranked.append((2, row, "ended by itself, and no answer was found"))
        elif grade.lenient_outcome and grade.lenient_extraction != grade.extraction:
            ranked.append((3, row, "the two readings found different answers"))
    ranked.sort(key=lambda item: (item[0], item[1].sample_id, item[1].repeat))
    return [
        Suspect(sample_id=row.sample_id, repeat=row.repeat, reason=reason)
        for _, row, reason in ranked[:SUSPECTS_SHOWN]
    ]


def _mean(values: Iterable[int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
