"""`g4eval gate`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from g4eval import interrupts
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
from g4eval.driving import candidate_config, drive_candidate
from g4eval.errors import StoreError, UsageError
from g4eval.gating.arm import Arm
from g4eval.gating.calibration import check_armed
from g4eval.gating.decision import decide_once, is_decided
from g4eval.gating.load import load_arm
from g4eval.gating.plan import finished_json, finished_words
from g4eval.gating.policy import read_policy
from g4eval.gating.render import render_junit, render_markdown, render_text
from g4eval.teacher_forcing import TraceChoice, stored_drift


@click.command(name="gate")
@click.argument("base")
@click.argument("candidate", required=False)
@click.option("--policy", "policy_file", type=PATH, help="gate.yaml; docs/gate.md has every key.")
@click.option("--power", "only_power", is_flag=True, help="What the runs can exclude; no decision.")
@click.option("--decide", "is_sure", is_flag=True, help="Decide without asking.")
@click.option("--uncalibrated", is_flag=True, help="Decide without an A/A calibration.")
@click.option("--candidate-profile", "profile", help="Drive a candidate: what is known of it.")
@click.option("--model", help="Drive a candidate: its hub id, path or name.")
@click.option("--engine", help="Drive a candidate: the engine it runs on.")
@click.option("--base-url", help="Drive a candidate: address of its server.")
@click.option(
    "--header",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="Drive a candidate: sent to its server; only its name is stored.",
)
@click.option(
    "--set",
    "set_",
    multiple=True,
    metavar="KEY=VALUE",
    help="Drive a candidate: engine.* and so on.",
)
@click.option("--seed", type=int, help="Drive a candidate: its run seed, else the baseline's + 1.")
@click.option("--run-id", help="Drive a candidate: the name of its run.")
@data_options
@runs_dir_option
@click.option("--junit", type=PATH, help="Write JUnit XML there.")
@click.option("--summary", type=PATH, help="Append Markdown there, as for GITHUB_STEP_SUMMARY.")
@json_option
@click.option("--log-file", type=PATH, help="Write a log there.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def command(
    *,
    base: str,
    candidate: str | None,
    policy_file: Path | None,
    uncalibrated: bool,
    only_power: bool,
    is_sure: bool,
    junit: Path | None,
    summary: Path | None,
    as_json: bool,
    runs_dir: Path | None,
    log_file: Path | None,
    verbose: bool,
    **flags: Any,
) -> int:
    """Say whether CANDIDATE is as good as BASE: PASS 0, FAIL 1, INCONCLUSIVE 3, INVALID 4.

    BASE is a run or a gate file. CANDIDATE is a run; without it, one is generated round by round as
    the options say, and stopped as soon as the verdict is certain.
    """
    policy = read_policy(policy_file)
    runs = runs_dir_or_default(runs_dir)
    baseline = load_arm(base, runs)
    check_armed(baseline, uncalibrated=uncalibrated)
    now = datetime.now(UTC)
    if candidate is None:
        config = _driven(baseline, runs, flags)
        reporter = make_reporter(log_file=log_file, verbose=verbose)
        decided = interrupts.run(drive_candidate(config, baseline, policy, reporter, now=now))
    else:
        _refuse_driving(candidate, flags)
        arm = load_arm(candidate, runs)
        quiet = is_sure or as_json or junit is not None or summary is not None
        if only_power or (not quiet and _asks() and not is_decided(baseline, arm)):
            values = finished_json(baseline, arm, policy)
            if only_power and as_json:
                print_json(values)
                return 0
            for line in finished_words(values):
                click.echo(line)
            if only_power or not click.confirm("decide now? a decision is made once"):
                return 0
        found = (
            stored_drift(baseline.folder, baseline.fingerprint, arm.fingerprint, TraceChoice())
            if baseline.folder
            else None
        )
        drift = None if found is None else found.summary
        decided = decide_once(baseline, arm, policy, now=now, drift=drift)
    record = decided.record
    if as_json:
        print_json(record.as_json())
    else:
        click.echo(render_text(record, was_stored=decided.was_stored), nl=False)
    _write(junit, render_junit(record), append=False)
    _write(summary, render_markdown(record), append=True)
    if decided.path is not None:
        click.echo(f"stored in {decided.path}", err=True)
    return record.exit_code


def _asks() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _driven(base: Arm, runs_dir: Path, flags: dict[str, Any]) -> RunConfig:
    """Return the candidate's configuration: the baseline's, with what the flags change."""
    asked = {key: value for key, value in flags.items() if value not in (None, (), [])}
    settings = parse_settings(asked.pop("set_", ()))
    if not asked.keys() & {"profile", "model", "engine", "base_url", "run_id"} and not settings:
        raise UsageError(
            "there is neither a candidate nor options to drive one",
            hint="g4eval gate BASE CANDIDATE, or g4eval gate BASE --engine NAME --set KEY=VALUE",
        )
    values = candidate_config(base, asked, settings)
    values["runs_dir"] = runs_dir
    values["data_dir"] = data_dir_or_default(asked.get("data_dir")) or values.get("data_dir")
    return parse_config(values, where="the command line")


def _refuse_driving(candidate: str, flags: dict[str, Any]) -> None:
    for name in ("profile", "model", "engine", "base_url", "header", "set_", "seed", "run_id"):
        if flags.get(name) not in (None, ()):
            option = {"profile": "candidate-profile", "set_": "set"}.get(name, name)
            raise UsageError(
                f"--{option.replace('_', '-')} drives a new candidate, and {candidate!r} is one "
                "already",
                hint="leave out one of the two",
            )


def _write(path: Path | None, text: str, *, append: bool) -> None:
    if path is None:
        return
    try:
        with path.open("a" if append else "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise StoreError(f"can't be written: {error.strerror}", where=path) from error
