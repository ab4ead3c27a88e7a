"""`g4eval import`."""

from pathlib import Path
from typing import Any

import click

from g4eval import interrupts
from g4eval.cli.options import (
    PATH,
    config_of,
    data_options,
    json_option,
    runs_dir_option,
)
from g4eval.cli.progress import make_reporter
from g4eval.cli.show import print_run
from g4eval.importing import import_session


@click.command(name="import")
@click.argument("task")
@click.argument("file", type=PATH)
@click.option("--model", required=True, help="The name of the model that wrote them.")
@click.option("--profile", help="What is known of the model; found by its name unless given.")
@click.option(
    "--set",
    "set_",
    multiple=True,
    metavar="KEY=VALUE",
    help="What you know of how they were made: engine.*, sampling.*, TASK.*; the rest is unknown.",
)
@data_options
@runs_dir_option
@click.option("--run-id", help="Name of the run; made from its configuration unless given.")
@json_option
def command(*, task: str, file: Path, set_: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Grade the completions in FILE (JSON lines) as TASK, and store them as a run.

    A line is {"sample_id", "repeat"?, "text", "reasoning"?, "stop_reason"?, "prompt_tokens"?,
    "completion_tokens"?, "target"?}. Importing another task of the same model adds it to the run.
    """
    config = config_of({**flags, "set": set_})
    reporter = make_reporter(log_file=None, verbose=False)
    folder = interrupts.run(import_session(task, file, config, reporter))
    print_run(folder, as_json=as_json)
