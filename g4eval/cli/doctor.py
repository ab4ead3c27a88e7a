"""`g4eval doctor`."""

from dataclasses import asdict
from pathlib import Path

import click

from g4eval.cli.options import (
    PATH,
    data_dir_or_default,
    json_option,
    print_json,
    runs_dir_option,
    runs_dir_or_default,
)
from g4eval.doctor import Finding, build_sandbox, examine
from g4eval.errors import DataError


@click.command(name="doctor")
@click.option("--build-sandbox", "build", is_flag=True, help="Build the judge's Docker image.")
@click.option("--data-dir", type=PATH, help="Folder of benchmark data [G4EVAL_DATA_DIR].")
@click.option("--tasks-dir", type=PATH, help="Folder of further task families.")
@runs_dir_option
@json_option
def command(
    *,
    build: bool,
    data_dir: Path | None,
    tasks_dir: Path | None,
    runs_dir: Path | None,
    as_json: bool,
) -> None:
    """Say what is missing on this machine and how to get it."""
    found_dir = data_dir_or_default(data_dir)
    if found_dir is not None and not found_dir.is_dir():
        raise DataError(
            "the data folder doesn't exist",
            where=found_dir,
            hint="give --data-dir (or G4EVAL_DATA_DIR) a folder that is there",
        )
    if build:
        tag = build_sandbox(lambda step: click.echo(step, err=True))
        click.echo(f"built {tag}", err=True)
    findings = examine(
        data_dir=found_dir,
        tasks_dir=tasks_dir,
        runs_dir=runs_dir_or_default(runs_dir),
    )
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        click.echo(_text(findings))


def _text(findings: list[Finding]) -> str:
    width = max(len(f"{f.area} {f.name}") for f in findings)
    lines = []
    for finding in findings:
        name = f"{finding.area} {finding.name}".ljust(width)
        lines.append(f"{name}  {finding.state:7}  {finding.detail}".rstrip())
        if finding.hint:
            lines.append(f"{' ' * width}  try: {finding.hint}")
    return "\n".join(lines)
