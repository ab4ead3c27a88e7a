"""`g4eval report`."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from g4eval.cli.options import PATH, runs_dir_option, runs_dir_or_default
from g4eval.report.from_store import view_run
from g4eval.report.site import ReportOptions, build_report
from g4eval.report.views import RunView
from g4eval.store.reader import find_run

LEAST_SECONDS = 10.0
_REST = 4.0  # a live report waits this many times as long as it took to write


@click.command(name="report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out", type=PATH, required=True, help="Folder to write; a report there is replaced."
)
@click.option("--watch", is_flag=True, help="Write again as the runs go on, until they end.")
@click.option("--include-gated", is_flag=True, help="Show texts of gated tasks: for your own eyes.")
@runs_dir_option
def command(
    *, runs: tuple[str, ...], out: Path, watch: bool, include_gated: bool, runs_dir: Path | None
) -> None:
    """Write an HTML report of RUNs: a folder that opens from index.html, offline.

    The first RUN is the baseline that the others are compared with.
    """
    found = [find_run(run, runs_dir_or_default(runs_dir)) for run in runs]
    folders = list({folder.resolve(): folder for folder in found}.values())
    if len(folders) < len(found):
        click.echo("a run that was named twice is shown once", err=True)
    if watch:
        _watch(folders, out, include_gated=include_gated)
    else:
        views = [view_run(folder) for folder in folders]
        build_report(views, out, ReportOptions(include_gated=include_gated))
    click.echo(out / "index.html")


def _watch(folders: Sequence[Path], out: Path, *, include_gated: bool) -> None:
    """Write the report whenever the stores have more; the last time without the live bar."""
    written: object = None
    while True:
        started = time.monotonic()
        views = [view_run(folder) for folder in folders]
        finished = all(view.is_finished for view in views)
        if _state(views) != written or finished:
            options = ReportOptions(include_gated=include_gated, is_live=not finished)
            build_report(views, out, options)
            written = _state(views)
            click.echo(f"written: {out / 'index.html'}", err=True)
        if finished:
            return
        time.sleep(max(LEAST_SECONDS, _REST * (time.monotonic() - started)))


def _state(views: Sequence[RunView]) -> object:
    return [
        (view.updated_at, [task.measurement.estimate.n_graded for task in view.tasks])
        for view in views
    ]
