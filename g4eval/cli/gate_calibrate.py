"""`g4eval gate-calibrate`."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from g4eval.cli.drift import config_of_arm
from g4eval.cli.options import (
    PATH,
    data_dir_or_default,
    data_options,
    json_option,
    print_json,
    runs_dir_option,
    runs_dir_or_default,
)
from g4eval.cli.progress import make_reporter
from g4eval.config import RunConfig, parse_config, parse_settings
from g4eval.driving import candidate_config
from g4eval.errors import NotComparableError, UsageError
from g4eval.gate.arm import Arm
from g4eval.gate.calibration import calibrate, save_calibration
from g4eval.gate.load import arm_of_run
from g4eval.gate.policy import read_policy
from g4eval.session import Reporter, run_blocking
from g4eval.stats.drift import DriftSummary
from g4eval.store.reader import find_run
from g4eval.teacher_forcing import TraceChoice, choose_traces, compare_traces, score_run

# Hot enough to break any model; engine fake reads no sampling, so its planted accuracy is cut.
DAMAGE = ("sampling.temperature=3", "sampling.top_k=0", "sampling.top_p=1")
DAMAGE_OF_FAKE = ("engine.accuracy=0.1",)
CONTROL_SHARE = 0.25  # of the baseline's repeats: what is broken shows soon


@click.command(name="gate-calibrate")
@click.argument("base")
@click.argument("again", required=False)
@click.option(
    "--control", help="A deliberately damaged run, which must fail; generated unless given."
)
@click.option("--no-control", is_flag=True, help="Calibrate without a positive control.")
@click.option(
    "--damage", multiple=True, metavar="KEY=VALUE", help="What damages the generated control."
)
@click.option("--policy", "policy_file", type=PATH, help="gate.yaml of the gate to be armed.")
@data_options
@runs_dir_option
@json_option
@click.option("--log-file", type=PATH, help="Write a log there.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def command(
    *,
    base: str,
    again: str | None,
    control: str | None,
    no_control: bool,
    damage: tuple[str, ...],
    policy_file: Path | None,
    runs_dir: Path | None,
    as_json: bool,
    log_file: Path | None,
    verbose: bool,
    **flags: Any,
) -> int:
    """Show that the gate passes BASE against itself here, and fails a damaged one.

    AGAIN is the same run with another seed, best made on another day; both are generated unless
    given. The noise floor is stored with BASE and arms the gate. Exit code 4: it is not armed.
    """
    if no_control and (control or damage):
        raise UsageError("--no-control, and a control", hint="leave out one of the two")
    policy = read_policy(policy_file)
    runs = runs_dir_or_default(runs_dir)
    arm = arm_of_run(find_run(base, runs))
    assert arm.folder is not None
    reporter = make_reporter(log_file=log_file, verbose=verbose)
    flags = {key: value for key, value in flags.items() if value is not None}
    arms = _Arms(base=arm, runs_dir=runs, flags=flags, reporter=reporter)
    second = arms.find(again) if again else arms.generate("again", 1, (), share=1)
    damaged = None
    if control:
        damaged = arms.find(control)
    elif not no_control:
        is_fake = arm.facts.get("engine") == "fake"
        settings = damage or (DAMAGE_OF_FAKE if is_fake else DAMAGE)
        damaged = arms.generate("control", 2, settings, share=CONTROL_SHARE)
    drift = asyncio.run(_floor(arm, config_of_arm(arm, runs), reporter))
    found = calibrate(arm, second, damaged, policy, now=datetime.now(UTC), drift=drift)
    path = save_calibration(arm.folder, found)
    if as_json:
        print_json(found)
    else:
        for check in found["checks"]:
            mark = "ok" if check["is_met"] else "NOT MET"
            click.echo(f"{mark}: {check['name']}: {check['found']}")
        click.echo("the gate is armed" if found["is_armed"] else "the gate is not armed")
    click.echo(f"stored in {path}", err=True)
    return 0 if found["is_armed"] else NotComparableError.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arms:
    """Finds or makes the runs that a baseline is calibrated with."""

    base: Arm
    runs_dir: Path
    flags: Mapping[str, Any]
    reporter: Reporter

    def find(self, name: str) -> Arm:
        """Return the arm of a run."""
        return arm_of_run(find_run(name, self.runs_dir))

    def generate(
        self, name: str, seed_step: int, settings: tuple[str, ...], *, share: float
    ) -> Arm:
        """Run the baseline's configuration with another seed, or continue doing so."""
        base = self.base
        repeats = {
            f"{task_id}.repeats": max(1, math.ceil(task.n_repeats * share))
            for task_id, task in base.tasks.items()
        }
        asked = {"run_id": f"{base.run_id}-{name}", "seed": (base.seed or 0) + seed_step}
        values = candidate_config(base, asked, {**parse_settings(settings), **repeats})
        values.update(self.flags)
        values["runs_dir"] = self.runs_dir
        values["data_dir"] = data_dir_or_default(values.get("data_dir"))
        self.reporter.note(f"{name}: run {asked['run_id']}")
        finished = run_blocking(parse_config(values, where=name), self.reporter)
        return arm_of_run(finished.folder)


async def _floor(arm: Arm, config: RunConfig, reporter: Reporter) -> DriftSummary | None:
    """Score the baseline's traces twice with its own engine; None where it can't be done."""
    assert arm.folder is not None
    choice = TraceChoice()
    try:
        traces = choose_traces(arm.folder, choice)
        scores = [
            await score_run(
                arm.folder, config, arm.fingerprint, choice, again=again, note=reporter.note
            )
            for again in (False, True)
        ]
    except (NotComparableError, UsageError) as error:
        reporter.note(f"no drift floor: {error.what}")
        return None
    return compare_traces(traces, *scores).summary
