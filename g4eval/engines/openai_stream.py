"""Read what an OpenAI-compatible server answers: server-sent events, or one JSON body.

Both end in AnswerParts, and `AnswerParts.check` says whether that is a completion at all. Servers
differ in what they send and some send nonsense: `server_json.py` reads every value as the type it
must have, within bounds.
"""

from dataclasses import dataclass, field
from typing import Any

from g4eval.engines.retry import (
    Failure,
    RequestFailedError,
    failure_from_event,
    is_error,
    is_flat_error,
)
from g4eval.engines.server_json import (
    LINE_BYTES,
    STREAM_BYTES,
    TEXT_CHARACTERS,
    as_count,
    as_ids,
    as_index,
    as_mapping,
    as_name,
    joined,
    nonsense,
    parse_json_object,
    text_pieces,
)
from g4eval.records import StopReason
from g4eval.responses import is_failure_word, parse_stop_reason

DONE = b"[DONE]"
_AROUND_DONE = b" \t\"'"  # of an end mark
_KEEP_ALIVES = (b"", b"null", b"{}")  # events that carry nothing


class EventDecoder:
    """Takes bytes as they come, gives the data of each complete server-sent event.

    Source: "Server-sent events", WHATWG HTML, section 9.2.6. Lines end in LF, CR LF or CR. Event
    names, ids and comments are skipped.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of the line that isn't complete yet
        self._line_bytes = 0
        self._bytes = 0
        self._data: list[bytes] = []
        self._ended_in_cr = False  # a LF that comes now belongs to that line's end
        self.has_begun_data = False  # the line that isn't complete begins as one of data

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that `chunk` completes; raises RequestFailedError past a bound."""
        self._bytes += len(chunk)
        if self._bytes > STREAM_BYTES:
            raise RequestFailedError(Failure.BROKEN, f"a stream of over {STREAM_BYTES:,} bytes")
        if self._ended_in_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        end = chunk.find(b"\n")
        if end < 0:
            self._add(chunk)
            return []
        is_one = end == len(chunk) - 2 and chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")
        if is_one and not self._line and not self._data:
            return [chunk[6:-2]]  # as most servers send them
        *lines, rest = chunk.split(b"\n")
        if self._line:
            lines[0] = b"".join([*self._line, lines[0]])
            self._line, self._line_bytes = [], 0
        self.has_begun_data = False
        self._add(rest)
        events = []
        for line in lines:
            event = self._take(line)
            if event is not None:
                events.append(event)
        return events

    def end(self) -> list[bytes]:
        """Return what stands at the end without the empty line that should close it."""
        return self.feed(b"\n\n") if self._line or self._data else []

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """Return the bytes with LF as every line's end."""
        if self._ended_in_cr:
            chunk = chunk.removeprefix(b"\n")
        self._ended_in_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _add(self, piece: bytes) -> None:
        if not piece:
            return
        self._line.append(piece)
        self._line_bytes += len(piece)
        if self._line_bytes > LINE_BYTES:
            raise RequestFailedError(Failure.BROKEN, f"a line of over {LINE_BYTES:,} bytes")
        if not self.has_begun_data and self._line_bytes >= 5:
            self.has_begun_data = b"".join(self._line[:6])[:5] == b"data:"

    def _take(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            value = line[5:]
            self._data.append(value[1:] if value.startswith(b" ") else value)
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data = []
            return event
        return None


@dataclass(slots=True)
class ServerHabits:
    """What this server's answers have shown so far, to know a broken one by."""

    tells_its_end: bool = False  # an answer had a finish reason or usage
    ends_without_a_word: bool = False  # two tries at one request had neither


@dataclass(slots=True)
class AnswerParts:
    """The answer to one request, put together event by event."""

    is_done: bool = False  # the end mark was seen, or the body is whole
    model: str | None = None  # as the server names it; None: it doesn't
    n_events: int = 0  # with anything in them
    prompt_token_ids: list[int] | None = None  # [P], or None where the server gave none
    _model_as_sent: Any = None
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _characters: int = 0
    _token_ids: list[int] = field(default_factory=list)
    _has_all_ids: bool = True
    _n_choices: int = 0  # seen, of index 0
    _has_deltas: bool = False
    _finish_word: str | None = None
    _usage: dict[str, Any] = field(default_factory=dict)

    def add_event(self, data: bytes) -> bool:
        """Add one event's data; return whether it carried anything.

        Raises RequestFailedError for an error or anything unreadable. Nothing after the end mark
        belongs to the answer.
        """
        if self.is_done:
            return False
        if not data.startswith(b'{"'):  # nearly none
            if data in _KEEP_ALIVES:
                return False
            if data == DONE or data.strip(_AROUND_DONE).upper() == DONE:
                self.is_done = True
                self.n_events += 1
                return True
        self.add_body(data)
        self.n_events += 1
        return True

    def add_body(self, data: bytes) -> None:
        """Add one JSON object, a chunk of a stream or a whole answer."""
        value = parse_json_object(data)
        if (error := value.get("error")) and is_error(error):
            raise failure_from_event(error)
        choices = value.get("choices")
        if not choices and is_flat_error(value):
            raise failure_from_event(value)
        if (model := value.get("model")) != self._model_as_sent:
            self._note_model(model)
        usage = value.get("usage")
        if usage and isinstance(usage, dict):
            self._usage = usage
        if "prompt_token_ids" in value:
            self._note_prompt(value["prompt_token_ids"])
        if choices is None:
            return
        if not isinstance(choices, list):
            raise nonsense("an answer of another shape", data)
        try:
            for place, choice in enumerate(choices):
                self._add_choice(choice, place)
        except (AttributeError, TypeError) as wrong:
            raise nonsense("an answer of another shape", data) from wrong

    def _add_choice(self, choice: dict[str, Any], place: int) -> None:
        index = choice.get("index")
        if place if index is None else index and as_index(index):
            return  # another answer to the same question: one was asked for
        self._n_choices += 1
        if (error := choice.get("error")) and is_error(error):
            raise failure_from_event(error)
        delta = choice.get("delta")
        part = delta or choice.get("message") or {}
        if delta:
            self._has_deltas = True
        if delta or not (part and self._has_deltas and self._characters):
            self._add_texts(choice, part)  # else a stream's last event says all of it again
        ids = choice.get("token_ids")
        if ids:
            whole = as_ids(ids)
            self._token_ids += whole or ()
            self._has_all_ids = self._has_all_ids and whole is not None
        if "prompt_token_ids" in choice:
            self._note_prompt(choice["prompt_token_ids"])
        if choice.get("finish_reason") is not None:
            self._finish_word = as_name(choice["finish_reason"]) or self._finish_word

    def _add_texts(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        content = part.get("content") or choice.get("text")
        if type(content) is str:  # nearly always, and there are many
            self._text.append(content)
            self._characters += len(content)
            if self._characters > TEXT_CHARACTERS:
                raise _too_long()
        elif content:
            for text, is_reasoning in text_pieces(content):
                self._add_text(self._reasoning if is_reasoning else self._text, text)
        reasoning = part.get("reasoning") or part.get("reasoning_content")
        if reasoning:
            for text, _ in text_pieces(reasoning):
                self._add_text(self._reasoning, text)

    def _add_text(self, pieces: list[str], text: str) -> None:
        pieces.append(text)
        self._characters += len(text)
        if self._characters > TEXT_CHARACTERS:
            raise _too_long()

    def _note_prompt(self, token_ids: Any) -> None:
        self.prompt_token_ids = as_ids(token_ids) or self.prompt_token_ids

    def _note_model(self, as_sent: Any) -> None:
        name = as_name(as_sent)
        if name is None:
            return
        if self.model is not None and name != self.model:
            raise RequestFailedError(
                Failure.REFUSED,
                f"one answer came from two models, {self.model!r} and then {name!r}",
            )
        self.model, self._model_as_sent = name, as_sent

    @property
    def text(self) -> str:
        """The content field, whole."""
        return joined(self._text)

    @property
    def reasoning(self) -> str | None:
        """The reasoning field, whole; None where the server sent none."""
        return joined(self._reasoning) or None

    @property
    def token_ids(self) -> list[int] | None:
        """[T], or None where the server gave none, or fewer than it says it made."""
        count = self._count("completion_tokens") or 0
        if not self._token_ids or not self._has_all_ids or len(self._token_ids) < count:
            return None
        return self._token_ids

    def prompt_tokens(self) -> int | None:
        """P, as counted or reported; None where the report can't be right."""
        if self.prompt_token_ids is not None:
            return len(self.prompt_token_ids)
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
        details = as_mapping(self._usage.get("completion_tokens_details"))
        count = as_count(details.get("reasoning_tokens"))
        if count is None or completion_tokens is None or count > completion_tokens:
            return None
        return count

    @property
    def finish_word(self) -> str | None:
        """The server's word for why it ended; None where it gave none."""
        return self._finish_word

    def tells_its_end(self) -> bool:
        """Whether the server said why generation ended, or what it used."""
        return self._finish_word is not None or bool(self._usage)

    def check(self, habits: ServerHabits, *, was_wordless: bool) -> None:
        """Raise RequestFailedError unless this is a whole completion.

        Args:
            habits: of the server; learns from this answer.
            was_wordless: the try before at this request ended as this one, with the end mark alone.
        """
        if not self._n_choices:
            raise RequestFailedError(Failure.BROKEN, "the answer holds no completion")
        if not self.is_done and self._finish_word is None:
            raise RequestFailedError(Failure.BROKEN, "the stream was cut before its end")
        if self.tells_its_end():
            habits.tells_its_end = True
            return
        if not self._characters:
            raise RequestFailedError(Failure.BROKEN, "the answer is empty and says no end")
        if habits.tells_its_end or not (habits.ends_without_a_word or was_wordless):
            raise WordlessEndError
        habits.ends_without_a_word = True

    def stop_reason(self, most: int, *, known_word: str | None = None) -> StopReason:
        """Why generation ended; raises RequestFailedError where it didn't end by itself.

        No word counts as `stop`, or as `length` where the budget is used up. A word that stands in
        no table is believed where the same request ended with it before, with a text and a count.

        Args:
            most: the budget that was sent.
            known_word: the unknown word that the try before ended with; None: none.
        """
        word = self._finish_word
        if word is None:
            used_up = self.completion_tokens(most) == most
            return StopReason.LENGTH if used_up else StopReason.STOP
        try:
            return parse_stop_reason(word)
        except ValueError:
            if is_failure_word(word):  # the server stopped, not the model
                raise RequestFailedError(
                    Failure.BROKEN, f"the server stopped with {word!r}"
                ) from None
        if word == known_word and self._characters and self._usage:
            return StopReason.STOP
        raise UnknownWordError(word)

    def _count(self, name: str) -> int | None:
        return as_count(self._usage.get(name))


def _too_long() -> RequestFailedError:
    return RequestFailedError(Failure.BROKEN, f"an answer of over {TEXT_CHARACTERS:,} characters")


class WordlessEndError(RequestFailedError):
    """The end mark, and neither finish reason nor usage: a gateway says it of dead engines too."""

    def __init__(self) -> None:
        super().__init__(
            Failure.BROKEN, "the stream ended without a finish reason and without usage"
        )


class UnknownWordError(RequestFailedError):
    """A finish reason that stands in no table."""

    def __init__(self, word: str) -> None:
        super().__init__(Failure.BROKEN, f"the server stopped with {word!r}, which nobody knows")
        self.word = word
