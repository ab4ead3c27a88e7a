"""`g4eval show`."""

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
from g4eval.report.measuring import reproduce_run
from g4eval.report.reproduction import ReproductionResult
from g4eval.report.reproduction_text import render_reproductions, reproduction_json
from g4eval.report.sample_text import DataPlace, render_sample, sample_json
from g4eval.report.text_table import render_rates, render_table, table_json
from g4eval.stats.summary import TaskSummary, summarise
from g4eval.store.reader import RunReader, find_run


@click.command(name="show")
@click.argument("run")
@click.argument("sample_id", required=False)
@click.option("--include-gated", is_flag=True, help="Show texts of gated tasks too.")
@click.option("--data-dir", type=PATH, help="Render a gated prompt again [G4EVAL_DATA_DIR].")
@click.option("--tasks-dir", type=PATH, help="Folder of further task families.")
@runs_dir_option
@json_option
def command(
    *,
    run: str,
    sample_id: str | None,
    include_gated: bool,
    data_dir: Path | None,
    tasks_dir: Path | None,
    runs_dir: Path | None,
    as_json: bool,
) -> None:
    """Print the table of RUN, or one of its samples with reasoning, extraction and verdict."""
    folder = find_run(run, runs_dir_or_default(runs_dir))
    if sample_id is None:
        print_run(folder, as_json=as_json)
        return
    found = data_dir_or_default(data_dir)
    place = DataPlace(data_dir=found, tasks_dir=tasks_dir) if found else None
    with RunReader(folder) as reader:
        if as_json:
            print_json(sample_json(reader, sample_id, include_gated=include_gated, data=place))
        else:
            text = render_sample(reader, sample_id, include_gated=include_gated, data=place)
            click.echo(text, nl=False)


def print_run(
    folder: Path, *, as_json: bool, summaries: list[TaskSummary] | None = None
) -> tuple[ReproductionResult, ...]:
    """Print a run's table and reproductions on stdout, rates and place on stderr."""
    with RunReader(folder) as run:
        summaries = summarise(run) if summaries is None else summaries
        results = reproduce_run(run, summaries)
        if as_json:
            found = {
                s.task_id: reproduction_json(r) for s, r in zip(summaries, results, strict=True)
            }
            print_json({**table_json(run, summaries), "reproductions": found})
        else:
            click.echo(render_table(run, summaries), nl=False)
            against = render_reproductions(results)
            click.echo(f"\n{against}" if against else "", nl=False)
        rates = render_rates(run)
    if rates:
        click.echo(f"\n{rates}", err=True)
    click.echo(f"stored in {folder}", err=True)
    return results
