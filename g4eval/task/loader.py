"""Find task families and load their tasks: bundled, in --tasks-dir, or from entry points.

A family is a folder. Each `.yaml` file in it is a task; `plugin.py`, if there, holds hooks:

    to_sample(row, source) -> Sample             where `columns` can't say it
    to_samples(rows, source) -> list[Sample]     where a row alone can't say it
    prompt_fields(sample, repeat) -> dict        more fields for the prompt, per repeat
    select(samples, settings) -> list[Sample]    which samples a TASK.KEY asks for
    a grader class, named by `grader: plugin:CLASS`
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from g4eval.bundled import bundled_dir
from g4eval.config import parse_model, read_yaml
from g4eval.errors import ConfigError, G4EvalError, TaskError, UsageError, nearest
from g4eval.records import Json, Message, Sample
from g4eval.task.choices import shown_options
from g4eval.task.prompts import render_messages
from g4eval.task.spec import TaskSpec

ENTRY_POINTS = "g4eval.tasks"


@dataclass(frozen=True, slots=True)
class Task:
    """A task's YAML with the folder that it stands in."""

    spec: TaskSpec
    folder: Path
    plugin: ModuleType | None = field(default=None, repr=False)

    @property
    def family(self) -> str:
        """The name of the folder."""
        return self.folder.name

    def messages(
        self, sample: Sample, repeat: int, *, variant: str | None = None
    ) -> tuple[Message, ...]:
        """Return the prompt of one (sample, repeat) in one of the task's wordings."""
        prompt = self.spec.prompts[variant or self.spec.prompt]
        fields: Mapping[str, Json] = sample.fields
        if "options" in fields:
            fields = {**fields, "choices": shown_options(sample, repeat)}
        more = self.hook("prompt_fields")
        if more is not None:
            fields = {**fields, **more(sample, repeat)}
        return render_messages(prompt, self.folder, fields, task_id=self.spec.id)

    def prompt_sha256(self, variant: str) -> str:
        """Return the SHA-256 over the template files of one wording."""
        prompt = self.spec.prompts[variant]
        names = [name for name in (prompt.system, prompt.template) if name is not None]
        digest = hashlib.sha256()
        for name in names:
            digest.update((self.folder / name).read_bytes() + b"\0")
        return digest.hexdigest()

    def hook(self, name: str) -> Callable[..., Any] | None:
        """Return a function of the plugin whose failures are TaskErrors; None: it has none."""
        function = getattr(self.plugin, name, None)
        return None if function is None else _blaming(function, self.spec)


def find_tasks(tasks_dir: Path | None = None) -> dict[str, Task]:
    """Return every task that can be found, by id, in order of id."""
    tasks: dict[str, Task] = {}
    for folder in _families(tasks_dir):
        for path in sorted(folder.glob("*.yaml")):
            task = load_task(path)
            other = tasks.get(task.spec.id)
            if other is not None:
                raise TaskError(
                    f"task {task.spec.id!r} is there twice",
                    where=path,
                    hint=f"rename it; the other one is in {other.folder}",
                )
            tasks[task.spec.id] = task
    return dict(sorted(tasks.items()))


def get_tasks(names: tuple[str, ...], tasks_dir: Path | None = None) -> list[Task]:
    """Return the named tasks in the order given; raises UsageError for an unknown name."""
    found = find_tasks(tasks_dir)
    for name in names:
        if name not in found:
            raise UsageError(f"{name!r} is not a task", hint=nearest(name, found))
    return [found[name] for name in dict.fromkeys(names)]


def load_task(path: Path) -> Task:
    """Load one task's YAML and its family's plugin."""
    try:
        spec = parse_model(TaskSpec, read_yaml(path), where=path)
    except ConfigError as error:
        raise TaskError(error.what, where=error.where, hint=error.hint) from error
    plugin_path = path.parent / "plugin.py"
    return Task(spec, path.parent, load_plugin(plugin_path) if plugin_path.is_file() else None)


def load_plugin(path: Path) -> ModuleType:
    """Import a family's plugin.py by its path, once a process."""
    name = f"g4eval_plugin_{path.parent.name}_{abs(hash(path.resolve()))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)  # a family's folder is data: nothing is written into it
    except Exception as error:
        del sys.modules[name]
        raise _plugin_error(error, path, "can't be imported:") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module


def _families(tasks_dir: Path | None) -> Iterator[Path]:
    roots = [bundled_dir("tasks")]
    if tasks_dir is not None:
        if not tasks_dir.is_dir():
            raise UsageError("is not a folder", where=f"--tasks-dir {tasks_dir}")
        roots.append(tasks_dir)
    for root in roots:
        yield from sorted(p for p in root.iterdir() if p.is_dir() and list(p.glob("*.yaml")))
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        spec = importlib.util.find_spec(point.value)
        locations = list(spec.submodule_search_locations or []) if spec else []
        if not locations:
            raise TaskError(
                f"entry point {point.name!r} names {point.value!r}, which is no package",
                where=f"entry-point group {ENTRY_POINTS}",
            )
        yield Path(locations[0])


def _blaming(function: Callable[..., Any], spec: TaskSpec) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except G4EvalError:
            raise
        except Exception as error:  # noqa: BLE001  raised again, blamed on the plugin
            path = Path(function.__code__.co_filename)
            what = f"{function.__name__} of task {spec.id!r} raised"
            # What a gated task's plugin raises may quote a question.
            raise _plugin_error(error, path, what, quote=not spec.gated) from (
                None if spec.gated else error
            )

    return call


def _plugin_error(error: Exception, path: Path, what: str, *, quote: bool = True) -> TaskError:
    """Blame the plugin and name its own line."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f"{path}:{lines[-1]}" if lines and lines[-1] else str(path)
    return TaskError(
        f"the plugin {what} {type(error).__name__}" + (f": {error}" if quote else ""),
        where=where,
        hint="this is the task family's own code: mend it there",
    )
