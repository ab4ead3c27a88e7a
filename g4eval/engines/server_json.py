"""The border to a server: JSON parsed within bounds, and values read as the type they must have.

Whatever a server sends comes through here. Past it, code trusts its types: a text is text, a count
a count that fits the store, a name short and printable. What can't be right becomes unknown (None);
what isn't JSON, or breaks a bound, is a broken answer.

    bound                 value       of
    LINE_BYTES            64 MiB      one line of a stream, so one event
    BODY_BYTES            64 MiB      an answer that doesn't stream, or a list of models
    SCORES_BYTES          512 MiB     an answer with log-probabilities of a prompt
    STREAM_BYTES          1 GiB       a whole stream; only its texts are kept
    TEXT_CHARACTERS       64 Mi       the texts of one answer together
    ERROR_BYTES           64 KiB      what is read of an error's body
    DEPTH                 64          brackets inside brackets
    NAME_CHARACTERS       200         a model's name, a version, a finish word
    LARGEST_COUNT         2**31 - 1   a token count, a token id, a context
    HELPER_SECONDS        60          a question about the server itself
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from g4eval.engines.retry import Failure, RequestFailedError

LINE_BYTES = 64 * 2**20
BODY_BYTES = 64 * 2**20
SCORES_BYTES = 512 * 2**20
STREAM_BYTES = 2**30
TEXT_CHARACTERS = 64 * 2**20
ERROR_BYTES = 64 * 2**10
DEPTH = 64
NAME_CHARACTERS = 200
LARGEST_COUNT = 2**31 - 1
HELPER_SECONDS = 60.0

_DECODER = json.JSONDecoder()
_QUOTED_BYTES = 80
# Texts are skipped whole, so that only brackets outside them are seen.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)


def parse_json(data: bytes) -> Any:
    """Return the JSON value in `data`; raises RequestFailedError for anything else."""
    if data.count(b"[") + data.count(b"{") > DEPTH and _is_too_deep(data):
        raise nonsense(f"JSON nested deeper than {DEPTH}", data)
    try:
        if not data.startswith(b'{"'):
            return json.loads(data)
        text = data.decode("utf-8", "surrogatepass")  # json.loads needs longer to find that out
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise nonsense("what isn't JSON", data) from error
    if end != len(text) and text[end:].strip():
        raise nonsense("more than one JSON value", data)
    return value


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`; raises RequestFailedError for anything else."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise nonsense("what isn't a JSON object", data)
    return value


def nonsense(what: str, data: bytes) -> RequestFailedError:
    """Return the failure of an answer that can't be read, quoting its start."""
    start = data[:_QUOTED_BYTES].decode("utf-8", "replace")
    return RequestFailedError(Failure.BROKEN, f"the server sent {what}: {start!r}")


def as_count(value: Any) -> int | None:
    """Return a whole number from 0 to LARGEST_COUNT; None for anything else."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value <= LARGEST_COUNT else None


def as_index(value: Any) -> int:
    """Return a choice's place among the answers to one question; 0 for what can't be one."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    return as_count(value) or 0


def as_size(value: Any) -> int | None:
    """Return a count above 0: a context, a number of slots; None for anything else."""
    return as_count(value) or None


def as_name(value: Any) -> str | None:
    """Return a short printable text; None for anything else."""
    if not isinstance(value, str):
        return None
    return printable(value)[:NAME_CHARACTERS].strip() or None


def printable(text: str) -> str:
    """Return `text` on one line, what no terminal should get replaced: controls, lone halves."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def as_rows(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a JSON array; none for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def as_ids(value: Any) -> list[int] | None:
    """Return token ids; None for anything but an array of counts that isn't empty."""
    if not isinstance(value, list) or not value:
        return None
    if all(type(i) is int and 0 <= i <= LARGEST_COUNT for i in value):
        return value
    return None


def text_pieces(value: Any) -> Iterator[tuple[str, bool]]:
    """Yield (text, whether it is reasoning) of a content field: a text, or a list of parts.

    Parts as OpenAI, Mistral and Anthropic name them: {"type": "text", "text": ...}, and
    {"type": "thinking", "thinking": text or parts}. Raises TypeError for another shape.
    """
    if isinstance(value, str):
        yield value, False
    elif isinstance(value, list):
        for part in value:
            yield from _part_pieces(part)
    elif isinstance(value, dict):
        yield from _part_pieces(value)
    elif value is not None:
        raise TypeError(f"text is {type(value).__name__}")


def _part_pieces(part: Any) -> Iterator[tuple[str, bool]]:
    if not isinstance(part, dict):
        raise TypeError(f"a part of the text is {type(part).__name__}")
    kind = str(part.get("type", ""))
    is_thought = any(word in kind for word in ("think", "reason", "summary"))
    for name in ("text", "thinking", "reasoning", "content", "summary"):
        if part.get(name) is not None:
            hidden = is_thought or name in ("thinking", "reasoning", "summary")
            for text, inner in text_pieces(part[name]):
                yield text, hidden or inner
            return


def joined(pieces: list[str]) -> str:
    """Join texts; the two halves of a character that came apart become one again."""
    text = "".join(pieces)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def _is_too_deep(data: bytes) -> bool:
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False
