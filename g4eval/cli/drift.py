"""`g4eval drift`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from g4eval.cli.options import json_option, print_json, runs_dir_option, runs_dir_or_default
from g4eval.cli.progress import make_reporter
from g4eval.config import RunConfig, parse_config
from g4eval.gate.arm import Arm
from g4eval.gate.load import arm_of_run
from g4eval.store.reader import find_run
from g4eval.teacher_forcing import (
    TraceChoice,
    choose_traces,
    compare_traces,
    drift_json,
    score_run,
)

DEFAULT = TraceChoice()


@click.command(name="drift")
@click.argument("base")
@click.argument("candidate")
@click.option("--per-task", default=DEFAULT.per_task, help="Traces of each task.")
@click.option("--max-tokens", default=DEFAULT.max_tokens, help="Cut each trace there.")
@click.option("--top-k", default=DEFAULT.top_k, help="Tokens compared at each place.")
@runs_dir_option
@json_option
def command(
    *,
    base: str,
    candidate: str,
    per_task: int,
    max_tokens: int,
    top_k: int,
    runs_dir: Path | None,
    as_json: bool,
) -> None:
    """Score BASE's recorded tokens on the engines of both runs, and print how they differ.

    One model is in memory at a time; scores are kept with BASE. Low drift is no sign of safety.
    """
    runs = runs_dir_or_default(runs_dir)
    folders = [find_run(name, runs) for name in (base, candidate)]
    choice = TraceChoice(per_task=per_task, max_tokens=max_tokens, top_k=top_k)
    reporter = make_reporter(log_file=None, verbose=False)
    traces = choose_traces(folders[0], choice)
    scores = []
    for folder in folders:
        arm = arm_of_run(folder)
        config = config_of_arm(arm, runs)
        scores.append(
            asyncio.run(score_run(folders[0], config, arm.fingerprint, choice, note=reporter.note))
        )
    values = drift_json(compare_traces(traces, *scores))
    if as_json:
        print_json(values)
        return
    for line in drift_lines(values):
        click.echo(line)


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
