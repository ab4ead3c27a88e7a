"""Messages to prompt tokens, through the checkpoint's own chat template.

Templates are code from a download: they run in Jinja's sandbox and can't reach past their
arguments. A checkpoint without one is a base model; its prompt is the messages' plain text.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from g4eval.engines.gemma.tokenizer import TextCodec
from g4eval.errors import EngineError
from g4eval.records import Message

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
PLAIN = "none"  # the hash of no template
_OPENERS_AND_CLOSERS = ("<|channel>", "<channel|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given."""

    token_ids: list[int]
    starts_inside: bool  # it ends inside an open thought


class ChatFormat:
    """Renders and encodes prompts.

    Args:
        codec: the model's tokenizer.
        template: the chat template's text; None for plain prompts.
        thinking: given to the template as `enable_thinking`.

    Raises:
        EngineError: the template is not valid Jinja.
    """

    def __init__(self, codec: TextCodec, template: str | None, *, thinking: bool) -> None:
        self._codec = codec
        self._thinking = thinking
        self._template = None if template is None else _compile(template)
        self.template_hash = PLAIN if template is None else template_hash(template)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Return the tokens of a conversation, ready for the model's turn.

        `<bos>` stands first exactly once, whether the template writes it or not.

        Raises:
            EngineError: the template refuses the messages.
        """
        text = self.render(messages)
        token_ids = self._codec.encode(text)
        if token_ids[:1] != [self._codec.bos_id]:
            token_ids = [self._codec.bos_id, *token_ids]
        opener, closer = _OPENERS_AND_CLOSERS
        return Prompt(token_ids=token_ids, starts_inside=text.rfind(opener) > text.rfind(closer))

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text that is encoded; without a template the contents, a blank line apart."""
        if self._template is None:
            return "\n\n".join(message.content for message in messages)
        try:
            return self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=True,
                enable_thinking=self._thinking,
                bos_token=self._codec.bos_text,
                eos_token=self._codec.eos_text,
            )
        except jinja2.TemplateError as error:
            raise EngineError(f"the chat template refuses the messages: {error}") from error


def template_hash(template: str) -> str:
    """Return the SHA-256, in hex, of a template's text."""
    return hashlib.sha256(template.encode("utf-8")).hexdigest()


def read_template(folder: Path) -> str | None:
    """Return a checkpoint folder's chat template; None where it has none."""
    path = folder / TEMPLATE_FILE
    if path.exists():
        return path.read_text(encoding="utf-8")
    path = folder / TOKENIZER_CONFIG_FILE
    if not path.exists():
        return None
    try:
        template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    except ValueError as error:
        raise EngineError("is not JSON", where=path) from error
    if isinstance(template, list):  # several, by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return None if template is None else str(template)


def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        autoescape=False,  # prompts are text, not HTML
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise EngineError(f"the chat template is not valid Jinja: {error}") from error


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
