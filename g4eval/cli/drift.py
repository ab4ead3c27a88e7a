"""`g4eval drift`."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from g4eval import interrupts
from g4eval.cli.options import json_option, print_json, runs_dir_option, runs_dir_or_default
from g4eval.cli.progress import make_reporter
from g4eval.config import RunConfig, parse_config
from g4eval.gating.arm import Arm
from g4eval.gating.load import arm_of_run
from g4eval.records import TokenScores
from g4eval.stats.drift import kl_increase
from g4eval.store.reader import find_run
from g4eval.teacher_forcing import (
    Drift,
    TraceChoice,
    choose_traces,
    compare_traces,
    drift_json,
    score_run,
)

DEFAULT = TraceChoice()


@click.command(name="drift")
@click.argument("base")
@click.argument("candidates", metavar="CANDIDATE...", nargs=-1, required=True)
@click.option("--per-task", default=DEFAULT.per_task, help="Traces of each task.")
@click.option("--max-tokens", default=DEFAULT.max_tokens, help="Cut each trace there.")
@click.option("--top-k", default=DEFAULT.top_k, help="Tokens compared at each place.")
@runs_dir_option
@json_option
def command(
    *,
    base: str,
    candidates: tuple[str, ...],
    per_task: int,
    max_tokens: int,
    top_k: int,
    runs_dir: Path | None,
    as_json: bool,
) -> None:
    """Score BASE's recorded tokens on the engines of both runs, and print how they differ.

    One model is in memory at a time; scores are kept with BASE. Several candidates make a ladder:
    each is also compared with the one before it, token by token. Low drift is no sign of safety.
    """
    runs = runs_dir_or_default(runs_dir)
    folder = find_run(base, runs)
    choice = TraceChoice(per_task=per_task, max_tokens=max_tokens, top_k=top_k)
    traces = choose_traces(folder, choice)
    scores = {name: _scores(folder, name, runs, choice) for name in (base, *candidates)}
    drifts = {name: compare_traces(traces, scores[base], scores[name]) for name in candidates}
    steps = ladder_steps(drifts)
    if as_json:
        found = {name: drift_json(drift) for name, drift in drifts.items()}
        print_json({"candidates": found, "steps": steps} if steps else found[candidates[0]])
        return
    for name, drift in drifts.items():
        if steps:
            click.echo(f"{name}:")
        for line in drift_lines(drift_json(drift)):
            click.echo(f"  {line}" if steps else line)
    for step in steps:
        click.echo(_step_line(step))


def _scores(folder: Path, name: str, runs_dir: Path, choice: TraceChoice) -> list[TokenScores]:
    """Return the scores that a run's engine gives the traces in `folder`."""
    arm = arm_of_run(find_run(name, runs_dir))
    config = config_of_arm(arm, runs_dir)
    note = make_reporter(log_file=None, verbose=False).note
    return interrupts.run(score_run(folder, config, arm.fingerprint, choice, note=note))


def ladder_steps(drifts: Mapping[str, Drift]) -> list[dict[str, Any]]:
    """Return how much further each candidate is from the baseline than the one before it."""
    return [
        {
            "from": lower,
            "to": upper,
            "kl": kl_increase(drifts[lower].sequences, drifts[upper].sequences).as_json(),
        }
        for lower, upper in itertools.pairwise(drifts)
    ]


def _step_line(step: Mapping[str, Any]) -> str:
    kl = step["kl"]
    text = f"{step['from']} to {step['to']}: mean KL {kl['mean']:+.3g} nats"
    if not kl["se"]:
        return text
    return f"{text} ± {kl['se']:.2g}, paired by token (z {kl['mean'] / kl['se']:+.1f})"


def config_of_arm(arm: Arm, runs_dir: Path) -> RunConfig:
    """Return the configuration that made a run, so that its engine can be made again."""
    return parse_config({**arm.config, "runs_dir": runs_dir}, where=arm.run_id)


def drift_lines(values: Mapping[str, Any]) -> list[str]:
    """Return the numbers of a drift as lines, the whole first, then its parts."""
    lines = [f"{values['n_sequences']} traces, {values['n_tokens']:,} tokens; errors by trace"]
    lines.append(f"all: {_part(values)}")
    lines += [f"{name}: {_part(part)}" for name, part in values.get("parts", {}).items()]
    if values["diverged"] is not None:
        first = values["first_divergence"]
        where = "" if first is None else f", first after {first:.0f} tokens (median)"
        lines.append(f"most likely token differs somewhere in {values['diverged']:.0%}{where}")
    percentiles = ", ".join(
        f"{p} % {100 * v:+.2f}" for p, v in values["delta_p_percentiles"].items()
    )
    lines.append(f"change of the token's probability, points: {percentiles}")
    off = values["off_policy"]
    if off is not None:
        lines.append(
            f"accuracy difference from the traces alone: {off['delta_pt']:+.2f} "
            f"(SE {off['se_pt']:.2f}); no verdict rests on it"
            if off["is_applicable"]
            else "accuracy difference from the traces alone: not applicable to so large a change"
        )
    return lines


def _part(values: Mapping[str, Any]) -> str:
    kl = values["kl"] or values["sampled_kl"]
    text = f"mean KL {kl['mean']:.3g} nats"
    if kl["se"] is not None:
        text += f" ± {kl['se']:.2g}"
    if values["kl"] is None:
        return f"{text} (from the sampled tokens)"
    top1 = values["top1"]
    return f"{text}, 99.9 % {values['kl_p999']:.3g}, top-1 agreement {100 * top1['mean']:.2f} %"
