"""Messages to prompt tokens, through the checkpoint's own chat template.

Templates are code from a download: they run in Jinja's sandbox within limits, and can't reach past
their arguments. A checkpoint without one is a base model; its prompt is the messages' plain text.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from g4eval.bounded_jinja import BoundedEnvironment, compile_template, render_template
from g4eval.engines.gemma.tokenizer import TextCodec
from g4eval.errors import EngineError
from g4eval.records import Chat, Message, Text, TokenIds

PLAIN = "none"  # the hash of no template
_OPENERS_AND_CLOSERS = ("<|channel>", "<channel|>")
# Texts that only a control token can stand for, whichever model family wrote the template.
MARKER = re.compile(r"<\|[^<>\s]+>|<[^<>\s|]+\|>|<(?:start|end)_of_[a-z]+>|<(?:bos|eos)>")
_PROBE = "g4eval asks whether this text arrives"
_OWN = "this is the checkpoint's own chat template; --set engine.prompt=plain does without"


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

    def prompt_of(self, asked: Chat | Text | TokenIds) -> Prompt:
        """Return what the model is given: a conversation by its template, the rest as it is."""
        match asked:
            case Chat():
                return self.prompt(asked.messages)
            case Text():
                return self._encoded(asked.text)
            case TokenIds():
                return Prompt(token_ids=list(asked.ids), starts_inside=False)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Return the tokens of a conversation, ready for the model's turn.

        Raises:
            EngineError: the template refuses the messages.
        """
        return self._encoded(self.render(messages))

    def _encoded(self, text: str) -> Prompt:
        """Encode a text; `<bos>` stands first exactly once, whether the text has it or not."""
        token_ids = self._codec.encode(text)
        begin = 0
        while token_ids[begin : begin + 1] == [self._codec.bos_id]:
            begin += 1
        token_ids = [self._codec.bos_id, *token_ids[begin:]]
        opener, closer = _OPENERS_AND_CLOSERS
        return Prompt(token_ids=token_ids, starts_inside=text.rfind(opener) > text.rfind(closer))

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text that is encoded; without a template the contents, a blank line apart."""
        if self._template is None:
            return "\n\n".join(message.content for message in messages)
        return self._rendered(messages, in_parts=self._takes_parts)

    def check(self) -> None:
        """Try the template on a message of ours.

        Raises:
            EngineError: it fails, it leaves the message out, or one of the markers it writes is
                not one token of this model.
        """
        if self._template is None:
            return
        text = self._rendered([Message(role="user", content=_PROBE)], in_parts=self._takes_parts)
        if _PROBE not in text:
            raise EngineError("the chat template leaves the user's message out", hint=_OWN)
        for marker in sorted(set(MARKER.findall(text))):
            pieces = self._codec.encode(marker)
            if len(pieces) != 1:
                raise EngineError(
                    f"the chat template writes {marker!r}, which is no token of this model: it is "
                    f"taken apart into {len(pieces)}",
                    hint="use template and tokenizer of one revision; "
                    "--set engine.prompt=plain does without a template",
                )

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template reads a message's content as a list of parts only."""
        probe = [Message(role="user", content=_PROBE)]
        try:
            return _PROBE not in self._rendered(probe, in_parts=False) and (
                _PROBE in self._rendered(probe, in_parts=True)
            )
        except EngineError:
            return False

    def _rendered(self, messages: Sequence[Message], *, in_parts: bool) -> str:
        assert self._template is not None
        try:
            return render_template(
                self._template,
                {
                    "messages": [
                        {"role": m.role, "content": _in_parts(m.content) if in_parts else m.content}
                        for m in messages
                    ],
                    "add_generation_prompt": True,
                    "enable_thinking": self._thinking,
                    "bos_token": self._codec.bos_text,
                    "eos_token": self._codec.eos_text,
                },
            )
        except jinja2.TemplateError as error:
            raise EngineError(
                f"the chat template refuses the messages: {error}", hint=_OWN
            ) from error


def template_hash(template: str) -> str:
    """Return the SHA-256, in hex, of a template's text."""
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def _in_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


class _GenerationTag(Extension):
    """`{% generation %}`: marks the model's own words for training; its body is written as it is.

    Source: `AssistantTracker`, huggingface/transformers.
    """

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compile(template: str) -> jinja2.Template:
    environment = BoundedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _GenerationTag],
    )
    environment.add_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _refuse_the_date
    try:
        return compile_template(environment, template)
    except jinja2.TemplateError as error:
        raise EngineError(f"the chat template is not valid Jinja: {error}", hint=_OWN) from error


def _to_json(
    value: Any,
    indent: int | None = None,
    *,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _refuse_the_date(_format: str) -> None:
    raise jinja2.TemplateError(
        "it writes today's date, so a prompt would change from day to day; write a date into a "
        "copy of the template instead"
    )
