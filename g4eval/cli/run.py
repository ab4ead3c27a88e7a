"""`g4eval run`."""

from pathlib import Path
from typing import Any

import click

from g4eval.cli.options import (
    PATH,
    config_of,
    data_options,
    json_option,
    runs_dir_option,
    server_options,
)
from g4eval.cli.progress import make_reporter
from g4eval.cli.show import print_run
from g4eval.errors import NotReadyError
from g4eval.report.reproduction import not_reproduced
from g4eval.session import run_blocking
from g4eval.stats.summary import TaskSummary

MOST_REFUSED = 0.10  # of a task's tries: above, its score says nothing


@click.command(name="run")
@click.argument("tasks", nargs=-1)
@click.option("--model", help="Hub id, path, or a server's name for it.")
@click.option("--engine", help="auto, vllm, openai, gemma or fake.")
@click.option("--profile", help="What is known of the model; found by its name unless given.")
@server_options
@click.option("--repeats", type=int, help="Tries at each sample, for all tasks.")
@click.option("--limit", type=int, help="Only the first N samples, in hash order.")
@click.option("--seed", type=int, help="Run seed; another seed is another run.")
@click.option("--config", "config_file", type=PATH, help="YAML file with the same keys.")
@click.option("--from", "manifest", type=PATH, help="A manifest: make that run again.")
@click.option(
    "--set", "set_", multiple=True, metavar="KEY=VALUE", help="engine.*, sampling.*, TASK.*"
)
@data_options
@click.option("--allow-ungraded", is_flag=True, default=None, help="Run code tasks unjudged.")
@runs_dir_option
@click.option("--run-id", help="Name of the run; made from its configuration unless given.")
@click.option("--reuse", type=PATH, help="Take completions of equal requests from another run.")
@click.option(
    "--retry-refused", is_flag=True, default=None, help="Send again what was refused for good."
)
@click.option(
    "--never-as",
    type=click.Choice(["wrong"]),
    help="What can never succeed counts as wrong, not as ungraded.",
)
@click.option(
    "--strict", is_flag=True, default=None, help="Exit 1 where a score is not reproduced."
)
@json_option
@click.option("--log-file", type=PATH, help="Write a log there.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def command(
    *,
    config_file: Path | None,
    manifest: Path | None,
    set_: tuple[str, ...],
    as_json: bool,
    log_file: Path | None,
    verbose: bool,
    **flags: Any,
) -> None:
    """Run TASKs on a model, or continue a run: the same command generates nothing twice."""
    config = config_of({**flags, "set": set_}, config_file=config_file, manifest=manifest)
    reporter = make_reporter(log_file=log_file, verbose=verbose)
    finished = run_blocking(config, reporter)
    results = print_run(finished.folder, as_json=as_json, summaries=finished.summaries)
    unanswered = sum(s.audit.failed + s.audit.n_missing for s in finished.summaries)
    if unanswered:
        raise NotReadyError(
            f"requests without a completion: {unanswered:,}",
            where=finished.folder,
            hint="run the same command again: it sends these, and nothing that is stored",
        )
    _check_refused(finished.folder, finished.summaries)
    below = not_reproduced(results) if config.strict else ()
    if below:
        names = ", ".join(str(result.measurement.benchmark) for result in below)
        click.echo(f"not reproduced: {names}", err=True)
        click.get_current_context().exit(1)


def _check_refused(folder: Path, summaries: list[TaskSummary]) -> None:
    """Say how many requests can never succeed; raise NotReadyError where they are too many."""
    for summary in summaries:
        count = summary.audit.n_refused
        if not count:
            continue
        share = count / (summary.estimate.n_graded + summary.estimate.n_ungraded)
        if share > MOST_REFUSED:
            raise NotReadyError(
                f"{summary.task_id}: {count:,} requests ({100 * share:.1f} %) were refused for "
                f"good, more than {100 * MOST_REFUSED:.0f} %",
                where=folder,
                hint="g4eval show says why; once that is mended: the same with --retry-refused",
            )
        click.echo(f"{summary.task_id}: refused for good: {count:,}", err=True)
