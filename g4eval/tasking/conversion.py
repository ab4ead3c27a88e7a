"""Rows to checked samples: by the columns that a source names, or by the family's own hooks.

The hooks of a third party run once in a worker (worker.py), where one that hangs, fills the memory
or ends the process is told as its own mistake. Rows of the hub are read in this process: the
library that reads them has threads, which a fork doesn't take along.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from g4eval.errors import DataError, TaskError
from g4eval.records import Json, Sample
from g4eval.tasking.loader import Task
from g4eval.tasking.plugins import call_hook, hook_error, is_ours, wrong_result
from g4eval.tasking.samples import fault_of
from g4eval.tasking.spec import SourceSpec
from g4eval.tasking.worker import Progress, in_worker

MAX_SAMPLES = 20_000_000
_SCALARS = (str, int, float)


class Row(dict[str, Any]):
    """One row of the data; a column that it lacks is an error of the data, not of the reader."""

    def __missing__(self, column: str) -> Any:
        names = ", ".join(sorted(str(name) for name in self))[:500]
        raise DataError(
            f"the column {column!r} is missing", hint=f"columns present: {names or 'none'}"
        )


def samples_of(
    task: Task, source: SourceSpec, rows: Iterable[Mapping[str, Any]], where: str
) -> list[Sample]:
    """Return the samples of a source's rows.

    Raises DataError, with the row, for rows that are off; TaskError, with file and line, for a hook
    that raises, returns something else, hangs or ends its process.
    """
    function = task.function("to_samples") or task.function("to_sample")
    if function is None or is_ours(task.folder) or source.kind == "hub":
        samples = _converted(task, source, rows, where, lambda: None)
    else:
        samples = in_worker(
            lambda progress: _converted(task, source, rows, where, progress),
            blame=lambda error: hook_error(error, function, task.spec),
            where=task.plugin_path,
        )
    _try_prompt(task, samples)
    return samples


def _try_prompt(task: Task, samples: Sequence[Sample]) -> None:
    """Render a first prompt in a worker, where a hook of a third party takes part in it."""
    function = task.function("prompt_fields")
    if function is None or not samples or is_ours(task.folder):
        return
    in_worker(
        lambda _: task.messages(samples[0], 0) and None,
        blame=lambda error: hook_error(error, function, task.spec),
        where=task.plugin_path,
    )


def selected(
    task: Task, samples: Sequence[Sample], settings: Mapping[str, Json]
) -> Sequence[Sample]:
    """Return the samples that `--set TASK.KEY` asks for, by the family's hook; all without one."""
    function = task.function("select")
    if function is None:
        return samples
    if is_ours(task.folder):
        return list(call_hook(function, task.spec, task.folder, (samples, settings)))
    places = {sample.sample_id: place for place, sample in enumerate(samples)}

    def select(_progress: Progress) -> list[int]:
        chosen = call_hook(function, task.spec, task.folder, (list(samples), dict(settings)))
        ids = [getattr(sample, "sample_id", None) for sample in _list(chosen, function, task)]
        if not all(isinstance(i, str) and i in places for i in ids) or len(set(ids)) < len(ids):
            raise wrong_result(function, task.spec, "what isn't samples it was given, each once")
        return [places[str(i)] for i in ids]

    kept = in_worker(
        select, blame=lambda error: hook_error(error, function, task.spec), where=task.plugin_path
    )
    return [samples[place] for place in kept]


def _converted(
    task: Task,
    source: SourceSpec,
    rows: Iterable[Mapping[str, Any]],
    where: str,
    progress: Callable[[], None],
) -> list[Sample]:
    number = 0

    def counted() -> Iterator[Row]:
        nonlocal number
        for row in rows:
            number += 1
            progress()
            yield Row(row)

    whole, each = task.function("to_samples"), task.function("to_sample")
    try:
        if whole is not None:
            made = _list(_call(task, whole, (counted(), source.kind)), whole, task)
            return [_checked(sample, task, whole) for sample in made]
        if each is not None:
            return [
                _checked(_call(task, each, (row, source.kind)), task, each) for row in counted()
            ]
        return [_checked(_by_columns(row, source), task, None) for row in counted()]
    except DataError as error:
        place = f"{error.where or where}, row {number}" if number else error.where or where
        raise DataError(error.what, where=place, hint=error.hint) from error


def _call(task: Task, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return call_hook(function, task.spec, task.folder, args)


def _list(made: Any, function: Callable[..., Any], task: Task) -> list[Any]:
    """Return what a hook made as a list, bounded; a generator of its own runs here."""
    if isinstance(made, str | bytes | Mapping) or not isinstance(made, Iterable):
        raise wrong_result(function, task.spec, f"{type(made).__name__}, not a list of samples")
    items: list[Any] = _call(task, lambda: list(itertools.islice(made, MAX_SAMPLES)), ())
    if len(items) == MAX_SAMPLES:
        raise wrong_result(function, task.spec, "samples without end")
    return items


def _checked(sample: Any, task: Task, function: Callable[..., Any] | None) -> Sample:
    fault = fault_of(sample, task.spec)
    if fault is None:
        assert isinstance(sample, Sample)
        return sample if type(sample.fields) is dict else replace(sample, fields={**sample.fields})
    if function is not None and not isinstance(sample, Sample):
        raise wrong_result(function, task.spec, f"{type(sample).__name__}, not a Sample")
    raise DataError(fault, hint="mend the row, or how the task reads it")


def _by_columns(row: Row, source: SourceSpec) -> Sample:
    values = {
        field: row[column] if isinstance(column, str) else [row[part] for part in column]
        for field, column in source.columns.items()
    }
    if "sample_id" not in values or "target" not in values:
        raise TaskError("columns of a source must name sample_id and target")
    sample_id = values["sample_id"]
    if sample_id is not None and (
        isinstance(sample_id, bool) or not isinstance(sample_id, _SCALARS)
    ):
        raise DataError(f"the id is {type(sample_id).__name__}, not text", hint="mend the row")
    return Sample(
        sample_id="" if sample_id is None else str(sample_id),
        target=values["target"],
        fields={k: v for k, v in values.items() if k not in ("sample_id", "target")},
        groups={group: str(row[column]) for group, column in source.groups.items()},
    )
