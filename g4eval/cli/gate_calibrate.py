"""`g4eval gate-calibrate`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from g4eval import interrupts
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
from g4eval.driving import candidate_config, generate_whole
from g4eval.errors import (
    ConfigError,
    DataError,
    NotComparableError,
    NotReadyError,
    UsageError,
)
from g4eval.gating.arm import Arm
from g4eval.gating.calibration import GraderNoise, calibrate, save_calibration
from g4eval.gating.load import arm_of_run
from g4eval.gating.policy import GatePolicy, read_policy
from g4eval.regrading import grade_run
from g4eval.session import Reporter
from g4eval.stats.drift import DriftSummary
from g4eval.store.reader import RunReader, find_run
from g4eval.teacher_forcing import TraceChoice, choose_traces, compare_traces, score_run

# Hot enough to break any model; engine fake reads no sampling, so its planted accuracy is cut.
DAMAGE = ("sampling.temperature=3", "sampling.top_k=0", "sampling.top_p=1")
DAMAGE_OF_FAKE = ("engine.accuracy=0.1",)
CONTROL_SHARE = 0.25  # of the baseline's repeats: what is broken shows soon
# What decides who is computed beside whom, by engine; the first that an engine tells is halved.
BATCH_OPTIONS = ("max_num_seqs", "max_batch", "concurrency")


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

    AGAIN is the same run with another seed, best made on another day; unless given, it is generated
    in another order with half the concurrency. BASE is graded a second time. The noise floor is
    stored with BASE and arms the gate. Exit code 4: it is not armed.
    """
    if no_control and (control or damage):
        raise UsageError("--no-control, and a control", hint="leave out one of the two")
    policy = read_policy(policy_file)
    runs = runs_dir_or_default(runs_dir)
    arm = arm_of_run(find_run(base, runs))
    assert arm.folder is not None
    _refuse_to_generate(arm, again=again, control=control, no_control=no_control)
    reporter = make_reporter(log_file=log_file, verbose=verbose)
    flags = {key: value for key, value in flags.items() if value is not None}
    arms = _Arms(base=arm, policy=policy, runs_dir=runs, flags=flags, reporter=reporter)
    if again:
        second = arms.find(again)
    else:
        second = arms.generate("again", 1, other_batches(_operation(arm)), share=1)
    damaged = None
    if control:
        damaged = arms.find(control)
    elif not no_control:
        is_fake = arm.facts.get("engine") == "fake"
        settings = damage or (DAMAGE_OF_FAKE if is_fake else DAMAGE)
        damaged = arms.generate("control", 2, settings, share=CONTROL_SHARE)
    drift = interrupts.run(_floor(arm, config_of_arm(arm, runs), reporter))
    found = calibrate(
        arm,
        second,
        damaged,
        policy,
        now=datetime.now(UTC),
        drift=drift,
        noise=_grade_again(arm.folder, flags),
        load={"baseline": _operation(arm), "again": _operation(second)},
    )
    path = save_calibration(arm.folder, found)
    if as_json:
        print_json(found.as_json())
    else:
        for check in found.checks:
            mark = "ok" if check.is_met else "NOT MET"
            click.echo(f"{mark}: {check.name}: {check.found}")
        click.echo(_load_line(found.load))
        click.echo("the gate is armed" if found.is_armed else "the gate is not armed")
    click.echo(f"stored in {path}", err=True)
    return 0 if found.is_armed else NotComparableError.exit_code


def _refuse_to_generate(
    base: Arm, *, again: str | None, control: str | None, no_control: bool
) -> None:
    """Say at once what an import lacks: nothing here can make its runs."""
    if base.facts.get("engine") != "import" or (again and (control or no_control)):
        return
    missing = [] if again else ["AGAIN, the same model's answers by another seed"]
    if not (control or no_control):
        missing.append("--control, a damaged model's answers, or --no-control")
    raise UsageError(
        f"{base.run_id!r} was imported, so its runs can't be made here: {' and '.join(missing)} "
        "must be named",
        where=base.folder,
        hint="g4eval import the second file under another --run-id, then: g4eval gate-calibrate "
        f"{base.run_id} AGAIN --no-control",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arms:
    """Finds or makes the runs that a baseline is calibrated with."""

    base: Arm
    policy: GatePolicy
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
            task_id: max(1, math.ceil(task.n_repeats * share))
            for task_id, task in base.tasks.items()
        }
        asked = {"run_id": f"{base.run_id}-{name}", "seed": (base.seed or 0) + seed_step}
        values = candidate_config(base, asked, parse_settings(settings))
        values.update(self.flags)
        values["runs_dir"] = self.runs_dir
        values["data_dir"] = data_dir_or_default(values.get("data_dir"))
        self.reporter.note(f"{name}: run {asked['run_id']}")
        config = parse_config(values, where=name)
        folder = interrupts.run(generate_whole(config, base, self.policy, self.reporter, repeats))
        return arm_of_run(folder)


def other_batches(operation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the setting that puts requests beside other ones than the baseline's run did."""
    for name in BATCH_OPTIONS:
        value = operation.get(name)
        if value is not None:
            return (f"engine.{name}={value // 2 if value > 1 else 2}",)
    return ()


def _operation(arm: Arm) -> dict[str, Any]:
    """Return what an arm's engine ran with, as far as it can change who shares a batch."""
    assert arm.folder is not None
    with RunReader(arm.folder) as run:
        told = run.manifest().engine_operation
    return {name: told[name] for name in BATCH_OPTIONS if name in told}


def _load_line(load: Mapping[str, Any]) -> str:
    base, again = (", ".join(f"{k} {v}" for k, v in load[arm].items()) for arm in load)
    if base == again:
        return f"batches: {base or 'unknown'} in both runs: what shares a batch was not varied"
    return f"batches: {base} in the baseline, {again} in the second run"


def _grade_again(folder: Path, flags: Mapping[str, Any]) -> GraderNoise:
    """Grade the baseline's completions once more, and keep nothing of it."""
    try:
        data_dir = data_dir_or_default(flags.get("data_dir"))
        found = grade_run(folder, data_dir, flags.get("tasks_dir"), keep=False)
    except (ConfigError, DataError, NotReadyError) as error:
        return GraderNoise(n_graded=0, changed=(), not_run=error.what)
    return GraderNoise(
        n_graded=found.n_graded,
        changed=tuple(
            f"{c.task_id} {c.sample_id}/{c.repeat} {c.before.outcome} then {c.after.outcome}"
            for c in found.changes
        ),
    )


async def _floor(arm: Arm, config: RunConfig, reporter: Reporter) -> DriftSummary | None:
    """Score the baseline's traces twice with its own engine; None where it can't be done."""
    assert arm.folder is not None
    if arm.facts.get("engine") == "import":
        return None
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
