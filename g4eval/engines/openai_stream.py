"""Read what an OpenAI-compatible server answers: server-sent events, or one JSON body.

Both end in AnswerParts. Servers differ in what they send and some send nonsense, so everything is
checked, and a count that can't be right becomes unknown.
"""

import json
from typing import Any

from g4eval.engines.retry import Failure, RequestFailedError, failure_from_event
from g4eval.records import StopReason
from g4eval.responses import parse_stop_reason

DONE = b"[DONE]"


class EventDecoder:
    """Takes bytes as they come, gives the data of each complete server-sent event.

    Source: "Server-sent events", WHATWG HTML, section 9.2.6. Event names, ids and comments are
    skipped; a bare CR as line end isn't supported (no server sends it).
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of the line that isn't complete yet
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that `chunk` completes."""
        if b"\n" not in chunk:
            self._line.append(chunk)
            return []
        *lines, rest = chunk.split(b"\n")
        lines[0] = b"".join([*self._line, lines[0]])
        self._line = [rest]
        events = []
        for line in lines:
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                events.append(event)
        return events

    def end(self) -> list[bytes]:
        """Return what stands at the end without the empty line that should close it."""
        return self.feed(b"\n\n") if self._line or self._data else []

    def _take(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            value = line[5:]
            self._data.append(value[1:] if value.startswith(b" ") else value)
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data = []
            return event
        return None


class AnswerParts:
    """The answer to one request, put together event by event."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._token_ids: list[int] = []
        self._prompt_token_ids: list[int] | None = None
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}
        self.is_done = False  # the end mark was seen

    def add_event(self, data: bytes) -> None:
        """Add one event's data; raises RequestFailedError for an error or anything unreadable."""
        if data == DONE:
            self.is_done = True
        else:
            self.add_body(data)

    def add_body(self, data: bytes) -> None:
        """Add one JSON object, a chunk of a stream or a whole answer."""
        value = parse_json_object(data)
        if value.get("error"):
            raise failure_from_event(value["error"])
        if isinstance(value.get("usage"), dict):
            self._usage = value["usage"]
        try:
            self._note_prompt(value.get("prompt_token_ids"))
            for choice in value.get("choices") or ():
                self._add_choice(choice)
        except (AttributeError, TypeError) as error:
            raise _nonsense("an answer of another shape", data) from error

    def _add_choice(self, choice: dict[str, Any]) -> None:
        part = choice.get("delta") or choice.get("message") or {}
        for pieces, text in (
            (self._text, part.get("content") or choice.get("text")),
            (self._reasoning, part.get("reasoning") or part.get("reasoning_content")),
        ):
            if isinstance(text, str):
                pieces.append(text)
            elif text is not None:
                raise TypeError(f"text is {type(text).__name__}")
        self._token_ids += choice.get("token_ids") or ()
        self._note_prompt(choice.get("prompt_token_ids"))
        self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _note_prompt(self, token_ids: list[int] | None) -> None:
        if token_ids:
            self._prompt_token_ids = list(token_ids)

    @property
    def text(self) -> str:
        """The content field, whole."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str | None:
        """The reasoning field, whole; None where the server sent none."""
        return "".join(self._reasoning) or None

    @property
    def prompt_token_ids(self) -> list[int] | None:
        """[P], or None where the server gave none."""
        return self._prompt_token_ids

    @property
    def token_ids(self) -> list[int] | None:
        """[T], or None where the server gave none, or fewer than it says it made."""
        if not self._token_ids or len(self._token_ids) < (self._count("completion_tokens") or 0):
            return None
        return self._token_ids

    def prompt_tokens(self) -> int | None:
        """P, as counted or reported; None where the report can't be right."""
        if self._prompt_token_ids is not None:
            return len(self._prompt_token_ids)
        return self._count("prompt_tokens") or None

    def completion_tokens(self, most: int) -> int | None:
        """T, as counted or reported; None where the report can't be right.

        Args:
            most: the request's token budget.
        """
        if self.token_ids is not None:
            return len(self.token_ids)
        count = self._count("completion_tokens")
        if count is None or count > most:
            return None
        return None if count == 0 and (self._text or self._reasoning) else count

    def reasoning_tokens(self, completion_tokens: int | None) -> int | None:
        """The reported part of T; None where it isn't reported or can't be right."""
        details = self._usage.get("completion_tokens_details")
        count = _as_count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
        if count is None or completion_tokens is None or count > completion_tokens:
            return None
        return count

    def stop_reason(self, most: int) -> StopReason:
        """Why generation ended; raises RequestFailedError where it didn't end by itself.

        A missing word counts as `stop`, or as `length` where the budget is used up.
        """
        if self._finish_reason is None:
            used_up = self.completion_tokens(most) == most
            return StopReason.LENGTH if used_up else StopReason.STOP
        try:
            return parse_stop_reason(self._finish_reason)
        except ValueError as error:  # "abort", "error": the server stopped, not the model
            raise RequestFailedError(
                Failure.BROKEN, f"the server stopped with {self._finish_reason!r}"
            ) from error

    def is_complete(self) -> bool:
        """Whether the stream came to its end, by the end mark or by a finish reason."""
        return self.is_done or self._finish_reason is not None

    def _count(self, name: str) -> int | None:
        return _as_count(self._usage.get(name))


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`; raises RequestFailedError for anything else."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _nonsense("what isn't JSON", data) from error
    if not isinstance(value, dict):
        raise _nonsense("what isn't a JSON object", data)
    return value


def _as_count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None


def _nonsense(what: str, data: bytes) -> RequestFailedError:
    start = data[:80].decode("utf-8", "replace")
    return RequestFailedError(Failure.BROKEN, f"the server sent {what}: {start!r}")
