"""Render a sample into chat messages: Jinja with StrictUndefined, in a sandbox."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from g4eval.errors import TaskError
from g4eval.records import Json, Message
from g4eval.task.spec import PromptSpec


def render_messages(
    prompt: PromptSpec, folder: Path, fields: Mapping[str, Json], *, task_id: str
) -> tuple[Message, ...]:
    """Return the system turn, if the prompt has one, and the user turn.

    Raises TaskError, with the template's file and line, for a field that no sample has.
    """
    turns = [] if prompt.system is None else [("system", prompt.system)]
    turns.append(("user", prompt.template))
    return tuple(
        Message(role=role, content=_render(folder, name, fields, task_id=task_id))
        for role, name in turns
    )


def _render(folder: Path, name: str, fields: Mapping[str, Json], *, task_id: str) -> str:
    try:
        return _template(folder, name).render(fields)
    except UndefinedError as error:
        raise TaskError(
            f"the prompt of {task_id!r} needs a field that its samples lack: {error.message}",
            where=folder / name,
            hint=f"fields present: {', '.join(sorted(fields)) or 'none'}",
        ) from error
    except TemplateError as error:
        raise TaskError(
            f"the prompt of {task_id!r} can't be rendered: {error.message}", where=folder / name
        ) from error


@lru_cache(maxsize=64)
def _template(folder: Path, name: str) -> Template:
    path = folder / name
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.globals.clear()  # a prompt is made of its sample's fields alone
    try:
        return environment.from_string(path.read_text(encoding="utf-8"))
    except TemplateSyntaxError as error:
        raise TaskError(
            f"the template is not Jinja: {error.message}", where=f"{path}:{error.lineno}"
        ) from error
    except OSError as error:
        raise TaskError(f"the template can't be read: {error.strerror}", where=path) from error
