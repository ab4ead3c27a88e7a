"""`g4eval export`."""

import sys
from pathlib import Path

import click

from g4eval.cli.options import PATH, runs_dir_option, runs_dir_or_default
from g4eval.errors import UsageError
from g4eval.gating.gate_file import write_gate_file
from g4eval.gating.load import arm_of_run
from g4eval.output import replacing
from g4eval.store.export import export_json_lines, export_parquet
from g4eval.store.reader import RunReader, find_run


@click.command(name="export")
@click.argument("run")
@click.option("--to", "form", type=click.Choice(["jsonl", "parquet", "gate"]), required=True)
@click.option("--out", type=PATH, help="File to write; stdout unless given.")
@click.option("--include-gated", is_flag=True, help="Write texts of gated tasks too.")
@runs_dir_option
def command(
    *, run: str, form: str, out: Path | None, include_gated: bool, runs_dir: Path | None
) -> None:
    """Write the completions and grades of RUN, one (sample, repeat) a row.

    `gate` holds grades and counts only, all that `g4eval gate` needs of a baseline.
    """
    folder = find_run(run, runs_dir_or_default(runs_dir))
    if form == "gate":
        write_gate_file(arm_of_run(folder), out)
        return
    with RunReader(folder) as reader:
        if form == "parquet":
            if out is None:
                raise UsageError("Parquet can't be printed", hint="name a file with --out")
            export_parquet(reader, out, include_gated=include_gated)
        elif out is None:
            export_json_lines(reader, sys.stdout, include_gated=include_gated)
        else:
            with replacing(out) as draft, draft.open("w", encoding="utf-8") as stream:
                export_json_lines(reader, stream, include_gated=include_gated)
