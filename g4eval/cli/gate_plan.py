"""`g4eval gate-plan`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from g4eval.cli.options import PATH, json_option, print_json, runs_dir_option, runs_dir_or_default
from g4eval.gating.arm import Arm
from g4eval.gating.load import load_arm
from g4eval.gating.plan import Workload, assumed_tasks, known_tasks, plan_json
from g4eval.gating.policy import read_policy
from g4eval.store.reader import RunReader


@click.command(name="gate-plan")
@click.argument("base", required=False)
@click.option("--policy", "policy_file", type=PATH, help="gate.yaml; its margin is planned for.")
@click.option("--rho", type=float, help="Intra-class correlation; measured or 0.5 unless given.")
@click.option(
    "--tokens-per-second", type=float, help="Rate; as BASE's sessions had it unless given."
)
@runs_dir_option
@json_option
def command(
    *,
    base: str | None,
    policy_file: Path | None,
    rho: float | None,
    tokens_per_second: float | None,
    runs_dir: Path | None,
    as_json: bool,
) -> None:
    """Print the repeats, tokens and hours that the policy's margin needs.

    From BASE's accuracies, lengths and rate; without BASE, for the four benchmarks as published.
    """
    policy = read_policy(policy_file)
    if base is None:
        tasks = assumed_tasks(rho)
        workload = Workload(mean_tokens={}, tokens_per_second=tokens_per_second)
    else:
        arm = load_arm(base, runs_dir_or_default(runs_dir))
        tasks = known_tasks(arm, rho)
        rate = tokens_per_second or _measured_rate(arm)
        workload = Workload(mean_tokens=_mean_tokens(arm), tokens_per_second=rate)
    values = plan_json(tasks, policy, workload)
    if as_json:
        print_json(values)
        return
    click.echo(
        f"margin {values['margin_pt']:g} points, tolerated {values['ok_pt']:g}, alpha "
        f"{values['alpha_pass']:g}, design {values['design']}; one arm"
    )
    for task, known in values["tasks"].items():
        click.echo(
            f"  {task}: {known['n_samples']} samples, accuracy {known['accuracy_pct']:.1f}, "
            f"correlation {known['rho']:.2f}"
        )
    for power, row in values["needed_at_power"].items():
        click.echo(f"\nto PASS an equal candidate {power} of the time:\n  {_line(row)}")
    click.echo("\nwhat the named plans prove:")
    for name, row in values["plans"].items():
        click.echo(f"  {name}: {_line(row)}")


def _line(row: Mapping[str, Any]) -> str:
    repeats = ", ".join(f"{task} x {k}" for task, k in row["repeats"].items())
    margins = " / ".join(
        f"{margin:.1f} at {power}" for power, margin in row["margin_pt_at_power"].items()
    )
    text = f"{repeats}: {row['pairs']:,} pairs, SE {row['se_pt']:.2f}, margin {margins}"
    text += f", PASS {row['power_pct']:.0f} %"
    if row["tokens_an_arm"] is not None:
        text += f", {row['tokens_an_arm']:,.0f} tokens"
    if row["hours_an_arm"] is not None:
        text += f", {row['hours_an_arm']:.1f} hours"
    return text


def _mean_tokens(arm: Arm) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for task_id, task in arm.tasks.items():
        known = task.tokens[~np.isnan(task.tokens)]
        means[task_id] = float(known.mean()) if len(known) else None
    return means


def _measured_rate(arm: Arm) -> float | None:
    if arm.folder is None:
        return None
    if arm.facts.get("engine") == "import":
        return None  # reading a file is no speed of a model's
    with RunReader(arm.folder) as run:
        sessions = run.sessions()
    seconds = math.fsum(s["ended_at"] - s["started_at"] for s in sessions)
    return math.fsum(s["completion_tokens"] for s in sessions) / seconds if seconds else None
