"""Render a sample into chat messages: Jinja with StrictUndefined, in a sandbox, within limits."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError

from g4eval.bounded_jinja import (
    BoundedEnvironment,
    compile_template,
    error_line,
    render_template,
)
from g4eval.errors import TaskError
from g4eval.records import Json, Message
from g4eval.tasking.spec import PromptSpec

MAX_BYTES = 1 << 20  # of a template file


def render_messages(
    prompt: PromptSpec, folder: Path, fields: Mapping[str, Json], *, task_id: str
) -> tuple[Message, ...]:
    """Return the system turn, if the prompt has one, and the user turn.

    Raises TaskError, with the template's file and line, for a field that no sample has, and for
    whatever else goes wrong in a template.
    """
    turns = [] if prompt.system is None else [("system", prompt.system)]
    turns.append(("user", prompt.template))
    return tuple(
        Message(role=role, content=_render(folder, name, fields, task_id=task_id))
        for role, name in turns
    )


def _render(folder: Path, name: str, fields: Mapping[str, Json], *, task_id: str) -> str:
    try:
        # A relative folder is another one in another working directory.
        template = _template(folder, name, None if folder.is_absolute() else Path.cwd())
        return render_template(template, fields)
    except UndefinedError as error:
        raise TaskError(
            f"the prompt of {task_id!r} needs a field that its samples lack: {error.message}",
            where=_place(folder / name, error),
            hint=f"fields present: {', '.join(sorted(fields)) or 'none'}",
        ) from error
    except TemplateError as error:
        raise TaskError(
            f"the prompt of {task_id!r} can't be rendered: {error.message}",
            where=_place(folder / name, error),
            hint="this is the task family's own template: mend it there",
        ) from error


def _place(path: Path, error: TemplateError) -> str:
    line = error_line(error)
    return str(path) if line is None else f"{path}:{line}"


@lru_cache(maxsize=64)
def _template(folder: Path, name: str, _from: Path | None) -> Template:
    path = folder / name
    environment = BoundedEnvironment(undefined=StrictUndefined)
    environment.globals.clear()  # a prompt is made of its sample's fields alone
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES).decode("utf-8")
        return compile_template(environment, text)
    except TemplateError as error:
        raise TaskError(
            f"the template is not Jinja: {error.message}", where=_place(path, error)
        ) from error
    except OSError as error:
        raise TaskError(f"the template can't be read: {error.strerror}", where=path) from error
    except ValueError as error:  # a name with NUL, or bytes that are no text
        raise TaskError("the template is not UTF-8", where=path) from error
