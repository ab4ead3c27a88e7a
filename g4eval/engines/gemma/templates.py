"""Find a checkpoint's chat template in every place where one is kept.

transformers writes `chat_template.jinja` and, for named ones, `additional_chat_templates/`; older
ones wrote `chat_template.json` (processors) or the key `chat_template` of tokenizer_config.json, a
text or a list of named texts. A blank template counts as none.

Source: `PreTrainedTokenizerBase.from_pretrained` and `ProcessorMixin`, huggingface/transformers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g4eval.bounded_jinja import MAX_TEMPLATE_CHARACTERS
from g4eval.engines.gemma.gguf_file import GgufSource
from g4eval.engines.gemma.json_file import read_json_object
from g4eval.errors import EngineError

TEMPLATE_FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
# JSON files with a key `chat_template`, the first one that has it counts.
JSON_FILES = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
DEFAULT = "default"
_INSTRUCT = re.compile(r"(?:^|[^a-z0-9])(?:it|instruct|chat)(?:$|[^a-z0-9])", re.IGNORECASE)


def read_template(folder: Path) -> str | None:
    """Return a checkpoint folder's chat template; None where it has none.

    Of several, the one called `default`; a single one counts whatever its name.

    Raises:
        EngineError: a file can't be read, or there are several and none is the default.
    """
    path = folder / TEMPLATE_FILE
    if path.exists() and not _is_blank(text := _read_text(path)):
        return text
    named: dict[str, str] = {}
    for name in JSON_FILES:
        path = folder / name
        named = {**_templates_of(path), **named}
    if DEFAULT not in named:
        extra = sorted((folder / FOLDER).glob("*.jinja")) if (folder / FOLDER).is_dir() else []
        named |= {path.stem: _read_text(path) for path in extra}
    return choose_template(named, where=folder)


def read_gguf_template(source: GgufSource) -> str | None:
    """Return a GGUF file's chat template, or the default one of several that it names."""
    key = "tokenizer.chat_template"
    fields = source.fields
    named = {name: fields.text(f"{key}.{name}") or "" for name in fields.texts(f"{key}s") or ()}
    if not _is_blank(main := fields.text(key) or ""):
        named[DEFAULT] = main
    template = choose_template(named, where=source.where)
    if template is not None and not _is_utf8(template):
        raise EngineError("the chat template is not UTF-8", where=source.where)
    return template


def choose_template(named: Mapping[str, str], *, where: object) -> str | None:
    """Return the default one of several templates by name, or the only one; None without any."""
    named = {name: text for name, text in named.items() if not _is_blank(text)}
    if DEFAULT in named or len(named) <= 1:
        return named.get(DEFAULT) or next(iter(named.values()), None)
    raise EngineError(
        f"has several chat templates, and none is the default: {', '.join(sorted(named))[:200]}",
        where=where,
        hint=f"write the one you want to {TEMPLATE_FILE} in the model's folder",
    )


def says_instruct(*names: object) -> str | None:
    """Return the first of a model's names that says it was tuned to follow instructions."""
    return next((str(name) for name in names if name and _INSTRUCT.search(str(name))), None)


def _templates_of(path: Path) -> dict[str, str]:
    """Return the templates under the key `chat_template` of a JSON file, by name."""
    value: Any = read_json_object(path, missing={}).get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return dict(value)
    if isinstance(value, list):
        named = {
            entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)
        }
        if len(named) == len(value) and all(isinstance(x, str) for x in (*named, *named.values())):
            return {str(name): str(text) for name, text in named.items()}
    raise EngineError("has a chat_template that is neither text nor named texts", where=path)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            # UTF-8 takes up to four bytes a character; longer ones are refused as they compile.
            return stream.read(4 * MAX_TEMPLATE_CHARACTERS + 4).decode("utf-8")
    except UnicodeDecodeError as error:
        raise EngineError(
            "the chat template is not UTF-8", where=path, hint="save it as UTF-8"
        ) from error
    except OSError as error:
        raise EngineError(f"can't be read: {error.strerror}", where=path) from error


def _is_utf8(text: str) -> bool:
    """Whether a text of a GGUF file was UTF-8: bytes that are none were kept as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_blank(text: str) -> bool:
    return not text.strip()
