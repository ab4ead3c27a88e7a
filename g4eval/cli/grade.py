"""`g4eval grade`."""

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
from g4eval.records import Grade
from g4eval.regrading import GradeChange, grade_run
from g4eval.store.reader import find_run


@click.command(name="grade")
@click.argument("run")
@click.option("--data-dir", type=PATH, help="Folder of benchmark data [G4EVAL_DATA_DIR].")
@click.option("--tasks-dir", type=PATH, help="Folder of further task families.")
@click.option("--diff", is_flag=True, help="List every completion whose grade changed.")
@runs_dir_option
@json_option
def command(
    *,
    run: str,
    data_dir: Path | None,
    tasks_dir: Path | None,
    diff: bool,
    runs_dir: Path | None,
    as_json: bool,
) -> None:
    """Grade RUN again from its store with today's graders, and print what changed."""
    folder = find_run(run, runs_dir_or_default(runs_dir))
    result = grade_run(folder, data_dir_or_default(data_dir), tasks_dir)
    if as_json:
        changes = [_as_json(change) for change in result.changes]
        print_json({"graded": result.n_graded, "changed": changes})
        return
    click.echo(f"{result.n_graded:,} completions graded again, {len(result.changes):,} changed")
    for change in result.changes if diff else ():
        click.echo(_as_line(change))


def _as_line(change: GradeChange) -> str:
    before, after = change.before, change.after
    return (
        f"{change.task_id} {change.sample_id}/{change.repeat}: {before.outcome} "
        f"({_found(before)}, version {before.grader_version}) -> {after.outcome} "
        f"({_found(after)}, version {after.grader_version})"
    )


def _found(grade: Grade) -> str:
    """Return what was found: a program's verdict (the program is in the store), else the answer."""
    return repr(grade.extraction) if grade.verdict is None else grade.verdict


def _as_json(change: GradeChange) -> dict[str, object]:
    return {
        "task": change.task_id,
        "sample_id": change.sample_id,
        "repeat": change.repeat,
        "before": _grade_as_json(change.before),
        "after": _grade_as_json(change.after),
    }


def _grade_as_json(grade: Grade) -> dict[str, object]:
    return {
        "outcome": grade.outcome,
        "extraction": grade.extraction,
        "verdict": grade.verdict,
        "grader_version": grade.grader_version,
    }
