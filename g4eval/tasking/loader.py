"""Find task families and load their tasks: bundled, in --tasks-dir, or from entry points.

A family is a folder. Each `.yaml` file in it is a task; `plugin.py`, if there, holds hooks:

    to_sample(row, source) -> Sample             where `columns` can't say it
    to_samples(rows, source) -> list[Sample]     where a row alone can't say it
    prompt_fields(sample, repeat) -> dict        more fields for the prompt, per repeat
    select(samples, settings) -> list[Sample]    which samples a TASK.KEY asks for
    a grader class, named by `grader: plugin:CLASS`
    a dialogue class, named by `dialogue: plugin:CLASS`: dialogue.py
"""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from g4eval.bundled import bundled_dir
from g4eval.config import parse_model, read_yaml
from g4eval.errors import ConfigError, TaskError, UsageError, nearest
from g4eval.records import Json, Message, Sample
from g4eval.tasking.choices import shown_options
from g4eval.tasking.dialogue import Dialogue, OneQuestion
from g4eval.tasking.plugins import GuardedDialogue, call_hook, load_plugin, wrong_result
from g4eval.tasking.prompts import render_messages
from g4eval.tasking.spec import TaskSpec

ENTRY_POINTS = "g4eval.tasks"
PLUGIN = "plugin.py"
_KEY = re.compile(r"[\s{-]*([\w.]*)\s*:?")


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
        function = self.function("prompt_fields")
        if function is not None:
            more = call_hook(function, self.spec, self.folder, (sample, repeat))
            if not isinstance(more, Mapping) or not all(isinstance(name, str) for name in more):
                what = f"{type(more).__name__}, not fields by name"
                raise wrong_result(function, self.spec, what)
            fields = {**fields, **more}
        return render_messages(prompt, self.folder, fields, task_id=self.spec.id)

    def dialogue(self, variant: str) -> Dialogue:
        """Return what is asked in a try, in one of the task's wordings."""
        first_prompt = partial(self.messages, variant=variant)
        name = self.spec.dialogue
        if name is None:
            return OneQuestion(first_prompt)
        make = self.function(name.removeprefix("plugin:"))
        if make is None:
            raise TaskError(
                f"the plugin has no class {name.removeprefix('plugin:')!r}",
                where=self.plugin_path,
                hint="dialogue: plugin:CLASS names one of its classes",
            )
        return GuardedDialogue(call_hook(make, self.spec, self.folder, (first_prompt,)), self.spec)

    def prompt_sha256(self, variant: str) -> str:
        """Return the SHA-256 over the template files of one wording."""
        prompt = self.spec.prompts[variant]
        names = [name for name in (prompt.system, prompt.template) if name is not None]
        digest = hashlib.sha256()
        for name in names:
            digest.update((self.folder / name).read_bytes() + b"\0")
        return digest.hexdigest()

    @property
    def plugin_path(self) -> Path:
        """Where the family's plugin is, if it has one."""
        return self.folder / PLUGIN

    def function(self, name: str) -> Callable[..., Any] | None:
        """Return a function of the plugin as it is; None: it has none. Raises TaskError for else.

        Call it by `call_hook`, which blames the plugin for what it raises.
        """
        function = getattr(self.plugin, name, None)
        if function is not None and not callable(function):
            raise TaskError(
                f"{name} of task {self.spec.id!r} is {type(function).__name__}, not a function",
                where=self.plugin_path,
            )
        return function

    def hook(self, name: str) -> Callable[..., Any] | None:
        """Return a function of the plugin whose failures are TaskErrors; None: it has none."""
        function = self.function(name)
        if function is None:
            return None
        return lambda *args: call_hook(function, self.spec, self.folder, args)


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
        key = error.what.partition(":")[0].partition(" ")[0].strip("'")
        raise TaskError(error.what, where=_line_of(path, key), hint=error.hint) from error
    plugin_path = path.parent / PLUGIN
    return Task(spec, path.parent, load_plugin(plugin_path) if plugin_path.is_file() else None)


def _line_of(path: Path, key: str) -> str:
    """Return the place of a key in a YAML file: the line on which its last known part stands."""
    place, begin = str(path), 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return place
    for part in key.split("."):
        found = (n for n in range(begin, len(lines)) if _KEY.match(lines[n])[1] == part)  # type: ignore[index]  # it always matches
        number = next(found, None)
        if number is not None:
            place, begin = f"{path}:{number + 1}", number
    return place


def _families(tasks_dir: Path | None) -> Iterator[Path]:
    roots = [bundled_dir("tasks")]
    if tasks_dir is not None:
        if not tasks_dir.is_dir():
            raise UsageError("is not a folder", where=f"--tasks-dir {tasks_dir}")
        roots.append(tasks_dir)
    for root in roots:
        yield from sorted(p for p in root.iterdir() if p.is_dir() and list(p.glob("*.yaml")))
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        try:
            spec = importlib.util.find_spec(point.value)
        except (ImportError, ValueError):  # a name with dots of a package that isn't here
            spec = None
        locations = list(spec.submodule_search_locations or []) if spec else []
        if not locations:
            raise TaskError(
                f"entry point {point.name!r} names {point.value!r}, which is no package",
                where=f"entry-point group {ENTRY_POINTS}",
            )
        yield Path(locations[0])
