"""The table of a run as text and as JSON: what `g4eval run` and `g4eval show` print.

The table is a function of the store alone; rates and hours stand in a block of their own.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from g4eval.records import Estimate, Interval
from g4eval.stats.summary import TaskSummary
from g4eval.store.reader import RunReader
from g4eval.store.schema import ANSWERING_MODEL
from g4eval.store.stored import Manifest, StoredEngine

SUSPECTS_PRINTED = 3  # of a task; --json has more
# Repeats with the very text of another repeat of their sample, before that is a warning.
DUPLICATE_SHARE_WARNED = 0.02
DUPLICATE_SHARE_OF_SHORT_WARNED = 0.5
LONG_ENOUGH_TO_DIFFER_TOKENS = 50

HEADER = (
    "task",
    "score",
    "se fixed",
    "se super",
    "95 % these samples",
    "95 % samples like these",
    "n x k",
    "truncated",
    "no answer",
    "ungraded",
)


def render_table(run: RunReader, summaries: list[TaskSummary]) -> str:
    """Return the whole table: a heading, a line a task, what stands behind each, the warnings."""
    manifest = run.manifest()
    lines = [_heading(run.run_id, manifest.engine), ""]
    rows = [HEADER, *(_cells(s.task_id, s.estimate) for s in summaries)]
    for summary in summaries:
        for name, parts in summary.splits.items():
            rows += [_cells(f"  {name} {value}", e) for value, e in parts.items()]
    lines += _aligned(_in_task_order(rows, summaries))
    for summary in summaries:
        lines += ["", *_behind(summary)]
    warnings = [w for s in summaries for w in _warnings(s, manifest.engine)]
    lines += ["", *(f"! {w}" for w in _run_warnings(run, manifest) + warnings)]
    return "\n".join(lines).rstrip() + "\n"


def table_json(run: RunReader, summaries: list[TaskSummary]) -> dict[str, Any]:
    """Return the same numbers for machines; fractions, not percentages."""
    manifest = run.manifest()
    return {
        "run_id": run.run_id,
        "engine": manifest.engine.as_json(),
        "declared": list(manifest.engine_declared),
        "tasks": {s.task_id: _task_json(s, manifest.engine) for s in summaries},
        "warnings": _run_warnings(run, manifest)
        + [w for s in summaries for w in _warnings(s, manifest.engine)],
    }


def render_rates(run: RunReader) -> str:
    """Return time and tokens of the sessions so far: measured on this machine, not scores."""
    sessions = run.sessions()
    seconds = sum(s["ended_at"] - s["started_at"] for s in sessions)
    completions = sum(s["completions"] for s in sessions)
    tokens = sum(s["completion_tokens"] for s in sessions)
    if not seconds:
        return ""
    if run.manifest().engine.engine == "import":  # reading a file is no speed of a model's
        return f"{completions:,} completions read and graded in {_duration(seconds)}"
    return (
        f"{completions:,} completions and {tokens:,} tokens in {_duration(seconds)} of "
        f"{len(sessions)} session{'s' * (len(sessions) != 1)}: {completions / seconds:,.1f} "
        f"completions/s, {tokens / seconds:,.0f} tokens/s"
    )


def _heading(run_id: str, engine: StoredEngine) -> str:
    facts = [f"{engine.engine} {engine.engine_version}", engine.model]
    facts += [
        f"{name.replace('_', ' ')} {engine.fact(name)}"
        for name in ("dtype", "quantization", "thinking")
        if engine.fact(name) not in ("none", "unknown")
    ]
    return f"{run_id}: {', '.join(facts)}"


def _cells(name: str, estimate: Estimate) -> tuple[str, ...]:
    return (
        name,
        _percent(estimate.value),
        _percent(estimate.se_fixed),
        _percent(estimate.se_super),
        _range(estimate.interval),
        _range(estimate.interval_super),
        f"{estimate.n_samples} x {_repeats(estimate)}",
        _share(estimate.n_truncated, estimate),
        _share(estimate.n_no_answer, estimate),
        _share(estimate.n_ungraded, estimate),
    )


def _repeats(estimate: Estimate) -> str:
    """Return how many graded repeats a sample has; samples may have fewer than the most of them."""
    even = estimate.n_graded == estimate.n_samples * estimate.n_repeats
    return str(estimate.n_repeats) if even else f"up to {estimate.n_repeats}"


def _in_task_order(
    rows: list[tuple[str, ...]], summaries: list[TaskSummary]
) -> list[tuple[str, ...]]:
    """Put each task's splits under it."""
    ordered, rest = [rows[0]], rows[1 + len(summaries) :]
    for row, summary in zip(rows[1:], summaries, strict=False):
        count = sum(len(parts) for parts in summary.splits.values())
        ordered += [row, *rest[:count]]
        rest = rest[count:]
    return ordered


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        first, *rest = row
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _behind(summary: TaskSummary) -> Iterator[str]:
    """Yield the protocol of a score, what truncation could have cost, and its other readings."""
    plan, estimate = summary.plan, summary.estimate
    yield (
        f"{summary.task_id}: {plan.title}, version {plan.version}; avg@{estimate.n_repeats}; "
        f"prompt {plan.prompt if plan.knows('prompt') else 'unknown'}; {plan.sampling_words}; "
        f"text {plan.text}"
        + "".join(f"; {k} {v}" for k, v in plan.settings.items() if v is not None)
    )
    if estimate.n_truncated:
        yield (
            f"  had the truncated ones been right: {_percent(estimate.if_truncated_right)}; "
            f"without them: {_percent(estimate.if_truncated_left_out)}"
        )
    if len(summary.pass_at) > 1:
        yield "  pass@k: " + ", ".join(
            f"{k}: {_percent(value)}" + (f" ± {_percent(error)}" if error is not None else "")
            for k, (value, error) in summary.pass_at.items()
            if k & (k - 1) == 0 or k == max(summary.pass_at)
        )
    if summary.groups is not None:
        yield from _over_groups(summary)
    if len(summary.maj_at) > 1:
        yield "  maj@k: " + ", ".join(f"{k}: {_percent(v)}" for k, v in summary.maj_at.items())
    if summary.audit.n_without_box and "integer" in plan.grader:
        yield f"  read without a box: {_share(summary.audit.n_without_box, estimate)}"
    yield from _audit(summary)
    if summary.mean_completion_tokens is not None:
        yield f"  tokens a completion: {summary.mean_completion_tokens:,.0f}"


def _audit(summary: TaskSummary) -> Iterator[str]:
    """Yield how often the reading of an answer is in doubt, and where to look first."""
    audit = summary.audit
    counts = (
        (audit.n_not_extracted, f"right by {_second_reading(summary)} alone"),
        (audit.n_right_by_first_alone, "right by the first reading alone"),
        (audit.n_readings_differ, "read differently by the two"),
        (audit.n_ended_unanswered, "ended without an answer that could be found"),
    )
    if not any(count for count, _ in counts):
        return
    name = "judging" if _runs_code(summary) else "extraction"
    yield f"  {name}: " + ", ".join(f"{count:,} {words}" for count, words in counts if count)
    if audit.n_not_extracted or audit.n_right_by_first_alone:
        yield f"  score by {_second_reading(summary)}: {_percent(audit.second_score)}"
    for suspect in audit.suspects[:SUSPECTS_PRINTED]:
        yield f"    look at {suspect.sample_id}, repeat {suspect.repeat}: {suspect.reason}"


def _runs_code(summary: TaskSummary) -> bool:
    return summary.plan.grader == "code"


def _second_reading(summary: TaskSummary) -> str:
    return "a fair judge" if _runs_code(summary) else "the second reading"


def _over_groups(summary: TaskSummary) -> Iterator[str]:
    groups, metrics = summary.groups, summary.plan.metrics
    assert groups is not None
    name = f"{groups.n_groups} {summary.plan.splits[0]}s"
    yield f"  micro average, the score: {_percent(groups.micro)}"
    if "macro" in metrics:
        error = "" if groups.macro_se is None else f" ± {_percent(groups.macro_se)}"
        yield f"  macro average over {name}: {_percent(groups.macro)}{error}"
    if "adjusted_harmonic_mean" in metrics:
        yield (
            f"  harmonic mean over {name}, 1 added to each percentage: "
            f"{_percent(groups.harmonic)} ± {_percent(groups.harmonic_se)} "
            f"({_range(groups.harmonic_interval)})"
        )


def _warnings(summary: TaskSummary, engine: StoredEngine) -> list[str]:
    task_id, plan, audit = summary.task_id, summary.plan, summary.audit
    estimate = summary.estimate
    found = []
    if plan.invented and engine.engine != "fake":
        found.append("its samples are invented: the score means nothing outside g4eval")
    if plan.incomplete:
        found.append(
            f"partial: its data has {plan.incomplete}; never comparable with a published score"
        )
    elif summary.is_partial and not audit.n_refused:
        found.append(
            f"partial: {estimate.n_samples} of {plan.rows_stated} samples, never comparable "
            "with a published score"
        )
    if audit.n_refused:
        found.append(_about_refused(summary))
    if audit.finish_words:
        words = ", ".join(f"{word!r} {count:,}" for word, count in audit.finish_words.items())
        found.append(f"ended with a word that nobody knows, and taken as stopped: {words}")
    if audit.n_missing:
        found.append(f"not finished: requests still to be sent: {audit.n_missing:,}")
    if audit.failed:
        found.append(f"requests that failed: {audit.failed:,}; the same command sends them again")
    if _looks_unseeded(summary):
        found.append(
            f"{audit.n_duplicates:,} repeats have the very text of another repeat at temperature "
            f"{plan.sampling.temperature:g}: the engine seems to ignore the seed, so k "
            "samples are not k samples"
        )
    if audit.n_not_extracted:
        what = (
            "programs wrong by the official rules and right before a fair judge"
            if _runs_code(summary)
            else "right answers that were there and not extracted, by the lenient reading"
        )
        found.append(f"{what}: {audit.n_not_extracted:,}")
    return [f"{task_id}: {text}" for text in found]


def _about_refused(summary: TaskSummary) -> str:
    """Say what can never succeed, how it counts, and the score's band."""
    count, band = summary.audit.n_refused, summary.refused_band
    assert band is not None
    total = summary.estimate.n_graded + summary.estimate.n_ungraded
    how = "counted as wrong, as asked" if not summary.estimate.n_ungraded else "left out"
    return (
        f"partial: {count:,} of {total:,} requests were refused for good, {how}; the score is "
        f"{_percent(band[0])} with all of them wrong, {_percent(band[1])} with all of them right; "
        "never comparable with a published score"
    )


def _looks_unseeded(summary: TaskSummary) -> bool:
    estimate = summary.estimate
    if not summary.plan.knows("temperature"):
        return False
    if summary.plan.sampling.temperature == 0 or estimate.n_repeats < 2:
        return False
    extra = estimate.n_graded + estimate.n_ungraded - estimate.n_samples
    share = summary.audit.n_duplicates / max(1, extra)
    # Answers of a few tokens are often equal by chance.
    long = (summary.mean_completion_tokens or 0) >= LONG_ENOUGH_TO_DIFFER_TOKENS
    return share > (DUPLICATE_SHARE_WARNED if long else DUPLICATE_SHARE_OF_SHORT_WARNED)


def _run_warnings(run: RunReader, manifest: Manifest) -> list[str]:
    found = json.loads(run.meta().get("preflight", "{}")).get("warnings", [])
    warnings = [f"preflight: {warning}" for warning in found]
    if manifest.engine.engine == "fake":
        warnings.append("engine fake: every number here is invented")
    warnings += _about_who_answered(run.meta().get(ANSWERING_MODEL), manifest.engine.model)
    if manifest.engine_declared:
        names = ", ".join(manifest.engine_declared)
        warnings.append(f"declared by the user, not found out by g4eval: {names}")
    return warnings


def _task_json(summary: TaskSummary, engine: StoredEngine) -> dict[str, Any]:
    values = asdict(summary)
    values["plan"] = summary.plan.as_json()
    values["pass_at"] = {
        str(k): {"value": value, "se": error} for k, (value, error) in summary.pass_at.items()
    }
    values["maj_at"] = {str(k): value for k, value in summary.maj_at.items()}
    if summary.groups is not None and "adjusted_harmonic_mean" not in summary.plan.metrics:
        for name in [name for name in values["groups"] if name.startswith("harmonic")]:
            del values["groups"][name]
    values["warnings"] = _warnings(summary, engine)
    del values["share_with_thought"]  # of use where scores are held against published ones
    if not summary.audit.n_refused:
        del values["refused_band"], values["audit"]["n_refused"]
    if not summary.audit.finish_words:
        del values["audit"]["finish_words"]
    return _without_nan(values)  # type: ignore[no-any-return]  # a dict in, a dict out


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: what nobody can tell is null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}"


def _range(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{_percent(interval.low)} to {_percent(interval.high)}"


def _share(count: int, estimate: Estimate) -> str:
    total = estimate.n_graded + estimate.n_ungraded
    return "0" if not count else f"{count} ({100 * count / total:.1f} %)"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _about_who_answered(name: str | None, asked: str) -> list[str]:
    """Say where a server answers under another name than the one that was asked for."""
    if name is None or is_name_of(name, asked):
        return []
    return [f"asked for {asked!r}, and the server answers as {name!r}: another model, or its alias"]


def is_name_of(name: str, asked: str) -> bool:
    """Whether a server's name for who answers is the one asked for, or one of its usual forms.

    With a date behind it (`gpt-4o-2024-08-06`), a tag (`gemma3:latest`), or an owner or folder.
    """
    name, asked = name.casefold(), asked.casefold()
    forms = {asked, asked.rpartition("/")[2]}
    if name in forms or name.rpartition("/")[2] in forms:
        return True
    return any(name.startswith((f"{form}-20", f"{form}:", f"{form}@")) for form in forms)
