"""Models by tasks: every score with its error, the published one beside it, and no false ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from g4eval.errors import MissingExtraError
from g4eval.output import visible
from g4eval.records import Interval
from g4eval.report import words
from g4eval.report.diagnosis import Cause, diagnose
from g4eval.report.published import PublishedScore, primary_score, protocol_of
from g4eval.report.reproduction import (
    Reproduction,
    ReproductionResult,
    other_set,
    reproduce,
    wilson_interval,
)
from g4eval.report.views import RunView, TaskView

if TYPE_CHECKING:
    import pandas as pd

REFERENCE_MODEL = "google/gemma-3-27b-it"
REFERENCE_NAME = "Gemma 3 27B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens an answer, over the completions whose count is known."""

    mean: float | None
    median: float | None
    p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One run on one task."""

    run: RunView
    task: TaskView
    result: ReproductionResult
    causes: tuple[Cause, ...]
    tokens: Tokens
    reference: PublishedScore | None  # Gemma 3 27B's published score
    in_front: bool  # can't be told apart from the column's highest; False alone in the column

    @property
    def anchor(self) -> str:
        """The id of this row's explanation in the page."""
        return f"{self.run.slug}--{words.slug(self.task.task_id)}"

    @property
    def over_reference(self) -> float | None:
        """Our value minus the reference's, as a fraction; None: not the same questions."""
        value = self.task.measurement.estimate.value
        if self.reference is None or math.isnan(value) or self.part:
            return None
        if other_set(self.task.measurement, protocol_of(self.reference)):
            return None
        return value - self.reference.value

    @property
    def part(self) -> str:
        """How much of the task was measured, where it wasn't all: "5 of 30"; "" where it was."""
        measured = self.task.measurement
        n, full = measured.estimate.n_samples, measured.n_samples_full
        if n < full:
            return f"{n:,} of {full:,}"
        return "partial" if measured.is_partial else ""

    @property
    def is_other_set(self) -> bool:
        """Whether the published score is of other questions."""
        return bool(other_set(self.task.measurement, self.result.protocol))

    @property
    def caveats(self) -> tuple[str, ...]:
        """What stands beside the number wherever it is shown."""
        part = self.part if self.part in ("", "partial") else f"partial: {self.part}"
        other = "another question set than the published" if self.is_other_set else ""
        return tuple(text for text in (part, other) if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One task of the leaderboard."""

    task_id: str
    title: str
    subtitle: str
    reference: PublishedScore | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Everything the first page shows."""

    columns: tuple[Column, ...]
    runs: tuple[RunView, ...]
    rows: tuple[ScoreRow, ...]

    def cell(self, run: RunView, task_id: str) -> ScoreRow | None:
        """Return the score of a run on a task; None: not measured."""
        for row in self.rows:
            if row.run is run and row.task.task_id == task_id:
                return row
        return None

    @property
    def headline(self) -> str:
        """What the page says, in a sentence."""
        judged = [r for r in self.rows if r.result.verdict is not Reproduction.NOT_COMPARABLE]
        if not judged:
            return f"{_number(len(self.rows), 'score')}, none comparable with a published one"
        consistent = [r for r in judged if r.result.verdict is Reproduction.CONSISTENT]
        return (
            f"{len(consistent)} of {_number(len(judged), 'comparable score')} "
            f"{'is' if len(consistent) == 1 else 'are'} consistent with the published one"
            f"{'' if len(judged) == 1 else 's'}"
        )


def build_leaderboard(runs: Sequence[RunView]) -> Leaderboard:
    """Judge every score of every run, and find who leads each column."""
    tasks: dict[str, TaskView] = {}
    for run in runs:
        for task in run.tasks:
            tasks.setdefault(task.task_id, task)
    front = {task_id: _front(runs, task_id) for task_id in tasks}
    rows = tuple(
        _score_row(run, task, in_front=run.slug in front[task.task_id])
        for run in runs
        for task in run.tasks
    )
    columns = tuple(
        Column(
            task_id=task_id,
            title=task.title,
            subtitle=f"{task.measurement.metric}, {_questions(rows, task_id)}",
            reference=_reference(task),
        )
        for task_id, task in tasks.items()
    )
    return Leaderboard(columns=columns, runs=tuple(runs), rows=rows)


def _questions(rows: Sequence[ScoreRow], task_id: str) -> str:
    """Say how many questions a column is about: those that were measured, of how many."""
    measured = [row.task.measurement for row in rows if row.task.task_id == task_id]
    if len({(m.n_samples_full, m.release) for m in measured}) > 1:
        return "different question sets"
    counts = sorted({m.estimate.n_samples for m in measured})
    full = measured[0].n_samples_full
    if counts[0] >= full:
        return f"{full:,} questions"
    some = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{some} of {full:,} questions"


def score_table(leaderboard: Leaderboard) -> "pd.DataFrame":
    """Return one row a run and task, as fractions: what leaderboard.csv holds."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError(
            "the report needs pandas, which is not installed", hint="pip install 'g4eval[report]'"
        ) from error
    return pd.DataFrame([_csv_row(row) for row in leaderboard.rows])


def chart_data(leaderboard: Leaderboard) -> dict[str, Any]:
    """Return what the forest plots draw: a panel a task, values in percent."""
    return {"panels": [_panel(leaderboard, column) for column in leaderboard.columns]}


def interval_or_point(value: float, interval: Interval | None) -> Interval:
    """Return the interval, or the bare value where there is none."""
    return interval or Interval(low=value, high=value, method="none")


def token_summary(task: TaskView) -> Tokens:
    """Return mean, median and 95th percentile of tokens a completion."""
    known = [
        r.completion_tokens
        for sample in task.samples
        for r in sample.repeats
        if r.completion_tokens is not None
    ]
    if not known:
        return Tokens(mean=None, median=None, p95=None)
    values = np.asarray(known, dtype=np.float64)
    median, p95 = np.quantile(values, [0.5, 0.95])
    return Tokens(mean=float(values.mean()), median=float(median), p95=float(p95))


def _score_row(run: RunView, task: TaskView, *, in_front: bool) -> ScoreRow:
    result = reproduce(task.measurement)
    return ScoreRow(
        run=run,
        task=task,
        result=result,
        causes=diagnose(result),
        tokens=token_summary(task),
        reference=_reference(task),
        in_front=in_front,
    )


def _reference(task: TaskView) -> PublishedScore | None:
    benchmark = task.measurement.benchmark
    return None if benchmark is None else primary_score(REFERENCE_MODEL, benchmark)


def _front(runs: Sequence[RunView], task_id: str) -> set[str]:
    """Return the runs that can't be told apart from the highest; empty for a single one.

    The two intervals are combined as in a reproduction; partial and scripted runs don't lead.
    """
    measured = [
        (run.slug, task.measurement)
        for run in runs
        if (task := run.task(task_id)) is not None
        and not task.measurement.is_partial
        and not math.isnan(task.measurement.estimate.value)
    ]
    scores = [(name, measurement.estimate) for name, measurement in measured]
    if len(scores) < 2 or len({(m.n_samples_full, m.release) for _, m in measured}) > 1:
        return set()  # a single one, or scores on different questions
    _, best = max(scores, key=lambda pair: pair[1].value)
    top = interval_or_point(best.value, best.interval)
    tied = set()
    for run_id, estimate in scores:
        own = interval_or_point(estimate.value, estimate.interval)
        reach = math.hypot(best.value - top.low, own.high - estimate.value)
        if best.value - estimate.value <= reach:
            tied.add(run_id)
    return tied


def _panel(leaderboard: Leaderboard, column: Column) -> dict[str, Any]:
    rows = [row for row in leaderboard.rows if row.task.task_id == column.task_id]
    same = any(
        not other_set(r.task.measurement, protocol_of(r.reference)) for r in rows if r.reference
    )
    reference = column.reference if same else None
    names = [short_model(row.run.model) for row in rows]
    return {
        "task": column.title,
        "subtitle": column.subtitle,
        "reference": None
        if reference is None
        else {"label": REFERENCE_NAME, "value": 100 * reference.value},
        "rows": [
            _chart_row(row, name if names.count(name) == 1 else row.run.label)
            for row, name in zip(rows, names, strict=True)
        ],
    }


def _chart_row(row: ScoreRow, label: str) -> dict[str, Any]:
    estimate, published = row.task.measurement.estimate, row.result.published
    own = interval_or_point(estimate.value, estimate.interval)
    wide = interval_or_point(estimate.value, estimate.interval_super)
    theirs = row.result.published_interval
    if row.is_other_set:  # no point of comparison
        published = theirs = None
    values = {
        "value": estimate.value,
        "low": own.low,
        "high": own.high,
        "wideLow": min(own.low, wide.low),
        "wideHigh": max(own.high, wide.high),
        "published": None if published is None else published.value,
        "publishedLow": None if theirs is None else theirs.low,
        "publishedHigh": None if theirs is None else theirs.high,
    }
    return {
        "run": row.run.run_id,
        "label": f"{label} ({', '.join(row.caveats)})" if row.caveats else label,
        "verdict": row.result.verdict.value,
        **{name: _finite_percent(value) for name, value in values.items()},
    }


def short_model(model: str) -> str:
    """google/gemma-4-31B-it -> gemma-4-31B-it; a path keeps its last part."""
    return model.rstrip("/").rpartition("/")[2] or model


def _finite_percent(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(100 * value, 3)


def _csv_row(row: ScoreRow) -> dict[str, Any]:
    measured = row.task.measurement
    estimate = measured.estimate
    own, wide = estimate.interval, estimate.interval_super
    cells = {
        "run_id": row.run.label,
        "model": row.run.model,
        "engine": row.run.engine,
        "task": row.task.task_id,
        "task_version": row.task.version,
        "metric": measured.metric,
        "score": estimate.value,
        "low_95": own and own.low,
        "high_95": own and own.high,
        "interval_method": own and own.method,
        "se_fixed": estimate.se_fixed,
        "se_super": estimate.se_super,
        "low_95_samples_like_these": wide and wide.low,
        "high_95_samples_like_these": wide and wide.high,
        "n_samples": estimate.n_samples,
        "n_repeats": estimate.n_repeats,
        "n_graded": estimate.n_graded,
        "n_truncated": estimate.n_truncated,
        "n_no_answer": estimate.n_no_answer,
        "n_ungraded": estimate.n_ungraded,
        "if_truncated_right": estimate.if_truncated_right,
        "if_truncated_left_out": estimate.if_truncated_left_out,
        **_csv_comparison(row.result),
        "questions_of_the_task": measured.n_samples_full,
        "caveats": "; ".join(row.caveats),
        "gemma_3_27b_published": None
        if row.reference is None or row.over_reference is None
        else row.reference.value,
        "tokens_mean": row.tokens.mean,
        "tokens_median": row.tokens.median,
        "tokens_p95": row.tokens.p95,
        "tokens_per_second": row.task.tokens_per_second,
        "hours": row.task.hours,
    }  # fmt: skip
    return {name: _inert(value) for name, value in cells.items()}


def _inert(value: Any) -> Any:
    """Keep a spreadsheet from taking a text for a formula."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else shown


def _csv_comparison(result: ReproductionResult) -> dict[str, Any]:
    published, theirs, difference = result.published, result.published_interval, result.difference
    protocol = None if published is None else protocol_of(published)
    gap = (
        None
        if difference is None or published is None
        else result.measurement.estimate.value - published.value
    )
    return {
        "published": published and published.value,
        "published_low_95": theirs and theirs.low,
        "published_high_95": theirs and theirs.high,
        "published_source": published and published.source_id,
        "published_protocol": protocol and ("inferred" if protocol.inferred else "stated"),
        "verdict": result.verdict.value,
        "difference": gap,
        "difference_low_95": difference and difference.low,
        "difference_high_95": difference and difference.high,
    }


def reference_interval(score: PublishedScore) -> Interval | None:
    """Return a published score's own 95 % interval; None where its answers can't be counted."""
    protocol = protocol_of(score)
    if protocol is None or protocol.n_answers is None:
        return None
    return wilson_interval(score.value, protocol.n_answers)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
