"""A run folder to what the report shows of it. Texts are read only when they are asked for."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path

from g4eval.profile import Profile
from g4eval.records import Json, Outcome, StopReason
from g4eval.report.manifest_words import facts_of, summary_of
from g4eval.report.measuring import measure, profile_of_run
from g4eval.report.views import (
    GroupView,
    JudgedTest,
    MetricView,
    RepeatTexts,
    RepeatView,
    RunView,
    SampleTexts,
    SampleView,
    TaskView,
)
from g4eval.stats.summary import TaskSummary, summarise
from g4eval.store.reader import RunReader
from g4eval.store.rows import StoredRow, StoredTexts
from g4eval.store.stored import Manifest
from g4eval.store.verdicts import VerdictRecord

MOST_SECONDS = 366 * 86_400  # an answer that took longer only had a clock that jumped


def view_run(folder: Path) -> RunView:
    """Return the view of a run folder; raises StoreError where it can't be read."""
    with RunReader(folder) as run:
        manifest = run.manifest()
        profile = profile_of_run(manifest)
        summaries = summarise(run)
        rows = {s.task_id: list(run.rows(s.task_id)) for s in summaries}
        tasks = tuple(
            _task(run, summary, rows[summary.task_id], manifest, profile) for summary in summaries
        )
        return RunView(
            run_id=run.run_id,
            model=manifest.engine.model,
            engine=manifest.engine.engine,
            summary=summary_of(manifest),
            facts=facts_of(manifest),
            tasks=tasks,
            command="g4eval run --from manifest.json",
            updated_at=max((r.finished_at for task in rows.values() for r in task), default=0.0),
            is_finished=not any(s.audit.n_missing or s.audit.failed for s in summaries),
            gate_verdicts=_gate_verdicts(folder),
            read_texts=partial(_read_texts, folder),
        )


def _task(
    run: RunReader,
    summary: TaskSummary,
    rows: list[StoredRow],
    manifest: Manifest,
    profile: Profile | None,
) -> TaskView:
    plan = summary.plan
    busy = _busy_seconds(rows)
    tokens = sum(row.completion_tokens or 0 for row in rows)
    repeats: dict[str, list[RepeatView]] = defaultdict(list)
    for row in rows:
        repeats[row.sample_id].append(_repeat(row))
    stored = run.samples(summary.task_id)
    return TaskView(
        task_id=summary.task_id,
        title=plan.title,
        version=plan.version,
        measurement=measure(summary, manifest, profile),
        is_gated=plan.gated,
        metrics=_metrics(summary),
        groups=tuple(
            GroupView(group=name, value=value, estimate=estimate)
            for name, parts in summary.splits.items()
            for value, estimate in parts.items()
        ),
        samples=tuple(
            SampleView(
                sample_id=sample.sample_id,
                groups={name: sample.groups.get(name, "") for name in plan.splits},
                repeats=tuple(repeats[sample.sample_id]),
            )
            for sample in stored
        ),
        n_planned=len(stored) * plan.repeats if plan.is_generated else len(rows),
        tokens_per_second=tokens / busy if busy and tokens else None,
        hours=busy / 3600 if busy else None,
        cautions=tuple(_cautions(summary)),
    )


def _repeat(row: StoredRow) -> RepeatView:
    grade = row.grade
    return RepeatView(
        repeat=row.repeat,
        outcome=row.outcome,
        is_truncated=row.stop_reason is StopReason.LENGTH,
        readings_disagree=grade is not None
        and grade.lenient_outcome is not None
        and grade.lenient_outcome is not grade.outcome
        and Outcome.CORRECT in (grade.outcome, grade.lenient_outcome),
        completion_tokens=row.completion_tokens,
    )


def _metrics(summary: TaskSummary) -> tuple[MetricView, ...]:
    """Return pass@k at the powers of two and at the most, the majority's share, group means."""
    metrics = [
        MetricView(name=f"pass@{k}", value=value)
        for k, (value, _) in summary.pass_at.items()
        if k > 1 and (k & (k - 1) == 0 or k == max(summary.pass_at))
    ]
    metrics += [MetricView(name=f"maj@{k}", value=v) for k, v in summary.maj_at.items() if k > 1]
    means, stated = summary.groups, summary.plan.metrics
    if means is not None and "macro" in stated:
        metrics.append(MetricView(name="macro average", value=means.macro))
    if means is not None and "adjusted_harmonic_mean" in stated:
        harmonic = MetricView(
            name="adjusted harmonic mean", value=means.harmonic, interval=means.harmonic_interval
        )
        metrics.append(harmonic)
    return tuple(metrics)


def _cautions(summary: TaskSummary) -> Iterator[str]:
    plan, audit = summary.plan, summary.audit
    if plan.invented:
        yield "its samples are invented, so the score means nothing outside g4eval"
    if plan.incomplete:
        yield f"partial: its data has {plan.incomplete}"
    elif summary.refused_band is not None:
        low, high = (f"{100 * edge:.1f}" for edge in summary.refused_band)
        yield (
            f"partial: {_are(audit.n_refused, 'request')} refused for good; {low} with all of them "
            f"wrong, {high} with all of them right"
        )
    elif summary.is_partial:
        yield f"partial: {summary.estimate.n_samples:,} of {plan.rows_stated:,} samples"
    if audit.n_missing:
        yield f"{_are(audit.n_missing, 'request')} still to be sent"
    if audit.failed:
        yield f"{_are(audit.failed, 'failed request')} to be sent again"
    if audit.n_not_extracted:
        yield f"{_are(audit.n_not_extracted, 'right answer')} found by the second reading only"
    if audit.n_duplicates:
        yield f"{_are(audit.n_duplicates, 'answer')} equal to an earlier try's, word for word"
    yield f"data from {plan.source}, text {plan.text}"


def _are(count: int, noun: str) -> str:
    """1, "request" -> "1 request is"; 2 -> "2 requests are"."""
    return f"{count} {noun} is" if count == 1 else f"{count:,} {noun}s are"


def _busy_seconds(rows: Iterable[StoredRow]) -> float:
    """Return the time in which at least one of these requests was under way."""
    busy, end = 0.0, 0.0
    for row in sorted(rows, key=lambda row: row.started_at):
        if row.started_at and end < row.finished_at < row.started_at + MOST_SECONDS:
            busy += row.finished_at - max(row.started_at, end)
            end = row.finished_at
    return busy


def _gate_verdicts(folder: Path) -> tuple[VerdictRecord, ...]:
    """Return the gate's decisions with this run as the candidate."""
    return tuple(VerdictRecord.read(path) for path in sorted(folder.glob("verdict*.json")))


def _read_texts(folder: Path, task_id: str) -> Iterator[SampleTexts]:
    with RunReader(folder) as run:
        targets = {sample.sample_id: sample.target for sample in run.samples(task_id)}
        for sample_id, rows in groupby(run.texts(task_id), key=lambda row: row.sample_id):
            prompts: dict[str | None, bytes | None] = {None: None}
            repeats = []
            for row in rows:
                if row.prompt_hash not in prompts:
                    assert row.prompt_hash is not None
                    prompts[row.prompt_hash] = run.packed_prompt(row.prompt_hash)
                repeats.append(_repeat_texts(row, prompts[row.prompt_hash]))
            yield SampleTexts(
                sample_id=sample_id, target=targets.get(sample_id), repeats=tuple(repeats)
            )


def _repeat_texts(row: StoredTexts, prompt: bytes | None) -> RepeatTexts:
    grade = row.grade
    details = {} if grade is None else grade.details
    seconds = row.finished_at - row.started_at
    return RepeatTexts(
        repeat=row.repeat,
        prompt=prompt,
        text=row.text,
        reasoning=row.reasoning,
        stop_reason=row.stop_reason.value,
        extraction=None if grade is None else grade.extraction,
        lenient_extraction=None if grade is None else grade.lenient_extraction,
        verdict=None if grade is None else grade.verdict,
        notes=tuple(_notes(details)),
        tests=tuple(_tests(details)),
        prompt_tokens=row.prompt_tokens,
        reasoning_tokens=row.reasoning_tokens,
        seconds=seconds if 0 < seconds < MOST_SECONDS else None,
    )


def _notes(details: Mapping[str, Json]) -> Iterator[str]:
    """Yield what a grader says of its reading, but for the tests, which have a table."""
    for name, value in details.items():
        if name == "error" and "failed_test" in details:
            continue
        if isinstance(value, str | int | float):
            yield str(value) if name in ("reason", "error") else f"{name.replace('_', ' ')} {value}"


def _tests(details: Mapping[str, Json]) -> Iterator[JudgedTest]:
    """Yield one row a test that ran, with texts the one that failed: the last, as judging stops.

    What the program gave instead is the judge's own words.
    """
    verdicts = details.get("results", ())
    failed = details.get("failed_test", {})
    for number, verdict in enumerate(verdicts, start=1):
        texts = failed if number == len(verdicts) else {}
        yield JudgedTest(
            verdict=verdict,
            input=texts.get("input"),
            expected=texts.get("expected"),
            got=details.get("error") if texts else None,
        )
