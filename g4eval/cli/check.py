"""`g4eval check`."""

from pathlib import Path

import click

from g4eval.cli.options import PATH, json_option, print_json, runs_dir_option, runs_dir_or_default
from g4eval.errors import StoreError
from g4eval.store.checking import CheckedRun, check_run
from g4eval.store.reader import find_run
from g4eval.store.salvage import blank_gated_ids, salvage


@click.command(name="check")
@click.argument("run")
@click.option("--repair", is_flag=True, help="Take what is whole into a new run.")
@click.option("--out", type=PATH, help="The new run's folder [RUN-salvaged, beside it].")
@runs_dir_option
@json_option
def command(
    *, run: str, repair: bool, out: Path | None, runs_dir: Path | None, as_json: bool
) -> int:
    """Check that RUN is what was written: pages, hashes of rows and texts, plan, files beside it.

    Exit code 0: it is whole; 5: it is damaged, and what can still be read is said. --repair never
    changes a damaged run: it makes a new one, which the run's command with --run-id continues. Of a
    whole run it takes out prompt token ids of gated tasks, which older versions stored.
    """
    folder = find_run(run, runs_dir_or_default(runs_dir))
    found = check_run(folder, keep_rows=repair)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    if not repair:
        return StoreError.exit_code if found.damage else 0
    if found.damage:
        target = salvage(found, out or folder.with_name(f"{folder.name}-salvaged"))
        words = f"to continue it: its command with --run-id {target.name}"
        click.echo(f"what is whole stands in {target}; {words}", err=True)
    elif found.gated_ids:
        count = blank_gated_ids(folder)
        click.echo(f"{count:,} completions hold no prompt token ids any more", err=True)
    return 0


def _print(found: CheckedRun) -> None:
    for line in found.damage:
        click.echo(f"damaged: {line}")
    for line in found.notes:
        click.echo(f"note: {line}")
    for table, count in found.whole.items():
        broken = f", {found.broken[table]:,} damaged" if found.broken[table] else ""
        click.echo(f"{table}: {count:,} rows can be read{broken}")
    click.echo("the run is damaged" if found.damage else "the run is whole")
