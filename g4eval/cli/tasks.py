"""`g4eval tasks`."""

from pathlib import Path

import click

from g4eval.cli.options import PATH, json_option, print_json
from g4eval.tasking.loader import find_tasks


@click.command(name="tasks")
@click.option("--tasks-dir", type=PATH, help="Folder of further task families.")
@json_option
def command(*, tasks_dir: Path | None, as_json: bool) -> None:
    """List the tasks that can be run: samples, repeats, budget, grader."""
    tasks = find_tasks(tasks_dir)
    if as_json:
        print_json([task.spec.model_dump(mode="json") for task in tasks.values()])
        return
    width = max(map(len, tasks), default=0)
    for task_id, task in tasks.items():
        spec = task.spec
        marks = [word for word in ("gated", "invented") if getattr(spec, word)]
        click.echo(
            f"{task_id.ljust(width)}  {spec.title}: {spec.data.rows:,} samples x {spec.repeats}, "
            f"{spec.max_new_tokens:,} tokens, grader {spec.grader}"
            + (f" ({', '.join(marks)})" if marks else "")
        )
