"""`g4eval compare`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from g4eval.cli.options import json_option, print_json, runs_dir_option, runs_dir_or_default
from g4eval.errors import NotComparableError
from g4eval.gating.compare import compare_arms
from g4eval.gating.load import load_arm

SHOWN_SAMPLES = 20


@click.command(name="compare")
@click.argument("base")
@click.argument("candidate")
@click.option("--samples", "n_samples", default=SHOWN_SAMPLES, help="How many samples to list.")
@runs_dir_option
@json_option
def command(
    *, base: str, candidate: str, n_samples: int, runs_dir: Path | None, as_json: bool
) -> None:
    """Print the paired difference of two runs, task by task, and the samples that changed.

    No verdict: "no significant difference" is no sign of safety. `g4eval gate` gives one.
    """
    runs = runs_dir_or_default(runs_dir)
    left, right = load_arm(base, runs), load_arm(candidate, runs)
    tasks = sorted(set(left.tasks) & set(right.tasks))
    if not tasks:
        raise NotComparableError(
            f"tasks: baseline {sorted(left.tasks)}, candidate {sorted(right.tasks)}"
        )
    found = compare_arms(left, right, tasks)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['candidate']} minus {found['baseline']}, percentage points")
    for difference in found["differences"]:
        click.echo(f"  differs: {difference}")
    for task, values in found["tasks"].items():
        click.echo(f"\n{task}: {_line(values)}")
        if values["delta_pt"] is None:
            continue
        click.echo(
            f"  {values['baseline_pct']:.2f} -> {values['candidate_pct']:.2f}; {_flips(values)}"
        )
        click.echo(f"  {_shape(values)}")
        for sample in values["samples"][:n_samples]:
            (a, b), (n, m) = sample["right"], sample["graded"]
            click.echo(f"    {sample['sample_id']}: {a}/{n} -> {b}/{m} right")
        hidden = len(values["samples"]) - n_samples
        if hidden > 0:
            click.echo(f"    and {hidden} more: --samples {len(values['samples'])}")
    click.echo(f"\nmacro (equal weight over tasks): {_line(found['macro'])}")
    length = found["length"]
    if length is not None:
        click.echo(
            f"length: {length['change_pct']:+.1f} % "
            f"({length['low_pct']:+.1f} to {length['high_pct']:+.1f})"
        )


def _line(values: Mapping[str, Any]) -> str:
    if values["delta_pt"] is None:
        return "no sample is graded in both runs"
    text = f"{values['delta_pt']:+.2f}"
    for key, where in (("interval_fixed_pt", "these samples"), ("interval_super_pt", "like these")):
        if values[key] is not None:
            low, high = values[key]
            text += f", {where} {low:+.2f} to {high:+.2f}"
    return text


def _flips(values: Mapping[str, Any]) -> str:
    text = f"flips {values['gains']} up, {values['losses']} down ({values['discordance_pct']:.1f} %"
    expected = values["expected_discordance_pct"]
    return text + (")" if expected is None else f", from sampling alone {expected:.1f} %)")


def _shape(values: Mapping[str, Any]) -> str:
    truncated, unanswered = values["truncated_pct"], values["no_answer_pct"]
    return (
        f"truncated {truncated[0]:.1f} -> {truncated[1]:.1f} %, "
        f"no answer {unanswered[0]:.1f} -> {unanswered[1]:.1f} %, "
        f"ungraded {values['ungraded'][0]} -> {values['ungraded'][1]}"
    )
