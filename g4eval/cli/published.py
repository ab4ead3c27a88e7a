"""`g4eval published`: scores other people printed, and what is known of how they were measured."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from g4eval.errors import UsageError, nearest
from g4eval.report.published import (
    Arithmetic,
    Disagreement,
    PublishedScore,
    arithmetic,
    disagreements,
    find_scores,
    protocol_of,
    published_protocols,
    published_scores,
)


@click.command(name="published")
@click.option("--model", help="Only models whose hub id contains this.")
@click.option("--task", "benchmark", help="Only this benchmark: aime26, gpqa_diamond, bbeh ...")
@click.option("--source", help="Only this source: g4-tech-report, aa-mirror-2026-10 ...")
@click.option("--conflicts", is_flag=True, help="Where sources print unlike numbers.")
@click.option("--protocols", is_flag=True, help="How scores were measured, with the arithmetic.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    *,
    model: str | None,
    benchmark: str | None,
    source: str | None,
    conflicts: bool,
    protocols: bool,
    as_json: bool,
) -> None:
    """List published Gemma scores with their sources."""
    rows = find_scores(model=model, benchmark=benchmark, source=source)
    if not rows:
        raise _nothing_found(model, benchmark, source)
    if protocols:
        names = {(row.benchmark, row.source_id) for row in rows}
        shown = [
            (protocol, arithmetic(protocol))
            for protocol in published_protocols()
            if any((protocol.benchmark, name) in names for name in protocol.sources)
        ]
        if as_json:
            _print_json([p.model_dump() | {"arithmetic": _counts(a)} for p, a in shown])
        else:
            click.echo("\n\n".join(_protocol_lines(p.model_dump(), a) for p, a in shown))
    elif conflicts:
        found = disagreements(rows)
        if as_json:
            _print_json([asdict(item) for item in found])
        else:
            click.echo("\n\n".join(map(_disagreement_lines, found)) or "No two sources disagree.")
    elif as_json:
        _print_json([asdict(row) | {"protocol": _protocol_json(row)} for row in rows])
    else:
        click.echo(_score_lines(rows))


def _score_lines(rows: Sequence[PublishedScore]) -> str:
    thinking = {True: "on", False: "off", None: "?"}
    table = [
        (
            row.model,
            row.benchmark,
            row.label,
            thinking[row.thinking],
            row.source_id,
            row.source_date,
        )
        for row in rows
    ]
    return _aligned([("model", "benchmark", "score", "thinking", "source", "date"), *table])


def _disagreement_lines(item: Disagreement) -> str:
    rows = [
        (row.label, row.source_id, row.source_date, row.metric, row.notes) for row in item.scores
    ]
    return f"{item.model}, {item.family}\n" + _aligned(rows, indent="  ")


def _protocol_lines(protocol: dict[str, Any], shown: Arithmetic | None) -> str:
    tries = f"{protocol['n_repeats'] or '?'} x {protocol['n_samples'] or '?'}"
    mark = "inferred" if protocol["inferred"] else "stated"
    lines = [
        f"{protocol['benchmark']}: {tries}, {protocol['metric']} ({mark}; "
        f"{', '.join(protocol['sources'])})"
    ]
    if protocol["release"]:
        lines.append(f"  set: {protocol['release']}")
    lines.append(f"  {protocol['evidence']}")
    if shown is not None:
        n = shown.protocol.n_answers
        pairs = zip(shown.printed, shown.counts, strict=True)
        lines.append(
            "  "
            + "  ".join(f"{s} = {k}/{n}" if k is not None else f"{s}: no k/{n}" for s, k in pairs)
        )
        decided = shown.smallest_n == n
        lines.append(
            f"  smallest number of answers that fits: {n}"
            if decided
            else "  other numbers of answers fit as well: the digits alone don't decide"
        )
    return "\n".join(lines)


def _counts(shown: Arithmetic | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    return {
        "n_answers": shown.protocol.n_answers,
        "smallest_n": shown.smallest_n,
        "counts": dict(zip(shown.printed, shown.counts, strict=True)),
    }


def _protocol_json(row: PublishedScore) -> dict[str, Any] | None:
    protocol = protocol_of(row)
    return None if protocol is None else protocol.model_dump()


def _aligned(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _nothing_found(model: str | None, benchmark: str | None, source: str | None) -> UsageError:
    rows = published_scores()
    for flag, word, names in (
        ("--model", model, {row.model for row in rows}),
        ("--task", benchmark, {row.benchmark for row in rows}),
        ("--source", source, {row.source_id for row in rows}),
    ):
        if word is not None and not any(word.lower() in name.lower() for name in names):
            return UsageError(
                f"no published score has {word!r}", where=flag, hint=nearest(word, names)
            )
    return UsageError("no published score has all of these", hint="leave one of the filters out")
