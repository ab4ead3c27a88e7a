"""The simulated cells as docs/gate-sim.md, and which of them miss what is stated."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEVELS = {"false_pass": 0.05, "false_fail": 0.05, "guardrail_alone": 0.01}
COVERED = {"samples": "these samples", "like_these": "samples like these"}
LEAST, MOST = 0.93, 0.97

Row = Mapping[str, Any]


def monte_carlo_error(rate: float, count: int) -> float:
    """Return the standard error of a simulated rate."""
    return math.sqrt(max(rate * (1 - rate), 1 / count) / count)


def misses(row: Row) -> list[str]:
    """Return what a cell misses by more than three Monte-Carlo errors."""
    values, count = row["values"], int(row["count"])
    found = []
    if row["kind"] == "level":
        for name, level in LEVELS.items():
            if values[name] > level + 3 * monte_carlo_error(level, count):
                found.append(f"{name} {values[name]:.1%}")
    if row["kind"] == "interval":
        least = LEAST - 3 * monte_carlo_error(LEAST, count)
        found += [f"{name} {values[name]:.1%}" for name in COVERED if values[name] < least]
    return found


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the Markdown page."""
    path.write_text("\n".join([*_head(rows), *_levels(rows), *_suite(rows), *_intervals(rows)]))


def _head(rows: Sequence[Row]) -> list[str]:
    missed = [f"- {row['name']}: {', '.join(misses(row))}" for row in rows if misses(row)]
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    return [
        "# Simulated error rates",
        "",
        f"Made by `nox -s gate-sim` (`benchmarks/gate_sim`), seed {rows[0]['seed']}, "
        f"{hours:.1f} hours of one core. The simulator draws runs whose truth it knows and shares "
        "no code with the gate and the intervals that it asks. A cell misses where it lies more "
        "than three Monte-Carlo errors beyond its level, or below 93 %.",
        "",
        f"{len(rows):,} cells; {len(missed)} miss" + (":" if missed else "."),
        *missed,
        "",
    ]


def _levels(rows: Sequence[Row]) -> list[str]:
    lines = [
        "## Levels",
        "",
        "Percent. *False PASS*: at a loss of exactly the margin, stated 5. *FAIL*: of the primary, "
        "at no difference, stated 5. *Guardrail*: FAIL by a guardrail alone, at no difference, "
        "stated 1. *Power*: PASS at no difference.",
        "",
        "| data, design | false PASS | FAIL | guardrail | power | runs | MC error at 5 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["kind"] != "level":
            continue
        v, count = row["values"], int(row["count"])
        lines.append(
            f"| {row['name']} | {100 * v['false_pass']:.2f} | {100 * v['false_fail']:.2f} | "
            f"{100 * v['guardrail_alone']:.2f} | {100 * v['power']:.1f} | {count:,} | "
            f"{100 * monte_carlo_error(0.05, count):.2f} |"
        )
    return [*lines, ""]


def _suite(rows: Sequence[Row]) -> list[str]:
    lines = [
        "## Tries used",
        "",
        "The four benchmarks as published for Gemma 4 31B, plan `nightly` (5,784 tries), ICC 0.6, "
        "margin 1.5. Percent; tries of the candidate on average.",
        "",
        "| plan, truth | PASS | FAIL | primary FAIL | tries | runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["kind"] != "suite":
            continue
        v = row["values"]
        lines.append(
            f"| {row['name']} | {100 * v['passed']:.1f} | {100 * v['failed']:.1f} | "
            f"{100 * v['primary_failed']:.1f} | {v['pairs']:.0f} | {row['count']:,} |"
        )
    return [*lines, ""]


def _intervals(rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if row["kind"] == "interval"]
    if not found:
        return []
    lines = [
        "## Intervals of one score",
        "",
        f"Coverage in percent, {found[0]['count']:,} runs a cell (Monte-Carlo error "
        f"{100 * monte_carlo_error(0.95, int(found[0]['count'])):.1f}): of these samples / of "
        "samples like these. Above 97 an interval is wider than need be.",
        "",
        "| samples x repeats, accuracy | ICC 0 | 0.1 | 0.3 | 0.6 | 0.9 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    by_name: dict[str, dict[str, str]] = {}
    for row in found:
        head, _, icc = row["name"].rpartition(", ICC ")
        v = row["values"]
        by_name.setdefault(head, {})[icc] = (
            f"{100 * v['samples']:.1f} / {100 * v['like_these']:.1f}"
        )
    for head, cells in by_name.items():
        shown = " | ".join(cells.get(icc, "") for icc in ("0", "0.1", "0.3", "0.6", "0.9"))
        lines.append(f"| {head} | {shown} |")
    return [*lines, ""]
