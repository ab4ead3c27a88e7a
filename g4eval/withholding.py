"""Keep a gated task's questions out of what a server says about them.

A server may put the prompt into its error message, which then stands in the log, in the store's
attempts and on the screen. Of a gated task only those words of an error pass that can't be the
question's: plain words that the sample doesn't have, words that errors are made of, a few numbers.
Encoded forms (percent, base64, escapes, token ids) are no plain words, so they don't pass. A name,
of a model or of an ending, passes once it came with two samples.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from types import TracebackType
from typing import Self

from g4eval.errors import G4EvalError
from g4eval.records import Attempt, Completion, Sample

LEFT_OUT = "…"
NOTE = "the task is gated: words that may be its question's are left out"
_NO_WORD = "(left out: the task is gated)"
_MOST_NAMES = 10_000  # that are remembered
MOST_NUMBERS = 4  # a longer row of numbers may be token ids
_PLAIN = re.compile(r"[(\"']?([A-Za-z]{1,24})[).,:;!?\"']{0,2}")
_NUMBER = re.compile(r"[0-9][0-9,.]{0,9}[:;.)]?")
_WORD = re.compile(r"\w+")
# What errors are made of; none of these words tells a question.
_OF_ERRORS = frozenset(
    """
    a an and any as at be but by can could did do does end ended error failed for from give gave
    had has have if in into is it its no none nor not of on or out so stopped than that the their
    then there this to too was were while will with would your http https status code server
    client request requests response answer reply model token tokens prompt context length
    maximum max minimum limit budget longer exceeds exceeded message messages invalid bad unknown
    unsupported refused denied forbidden unauthorized authentication key quota credit rate many
    internal service unavailable gateway timeout timed time seconds connection closed broken reset
    stream finish reason usage choices json body empty content filter policy overloaded capacity
    queue retry try trying again after before within nobody listens
    """.split()  # noqa: SIM905  a list of words is read as words
)


class Withholding:
    """Cleans errors of what they quote from gated tasks; those of other tasks pass as they are."""

    def __init__(self, gated: Mapping[str, Sequence[Sample]]) -> None:
        self._gated = {
            task_id: {sample.sample_id: sample for sample in samples}
            for task_id, samples in gated.items()
        }
        self._all: frozenset[str] | None = None
        self._names: dict[str, tuple[str, str] | None] = {}  # -> the one sample it came with

    def answer(self, answer: Completion | Attempt) -> Completion | Attempt:
        """Return an answer whose words of the server's own hold nothing of its sample."""
        sample = self._gated.get(answer.task_id, {}).get(answer.sample_id)
        if isinstance(answer, Attempt):
            if sample is None:
                return answer
            return replace(answer, error=withheld(answer.error, _words_of(sample)))
        if not self._gated or (answer.finish_word is None and answer.model is None):
            return answer
        source = None if sample is None else (answer.task_id, answer.sample_id)
        word, model = answer.finish_word, answer.model
        return replace(
            answer,
            finish_word=word if word is None or self._is_of_all(word, source) else _NO_WORD,
            model=model if model is not None and self._is_of_all(model, source) else None,
        )

    def _is_of_all(self, name: str, source: tuple[str, str] | None) -> bool:
        """Whether a server's name for something came with two gated samples, or with a free one.

        What it calls itself or an ending is the same for all, and a question isn't. Which words
        stand in it says nothing: questions have words and numbers of models' names.
        """
        if source is None:
            self._names[name] = None
        elif name not in self._names:
            if len(self._names) < _MOST_NAMES:
                self._names[name] = source
            return False
        elif self._names[name] == source:
            return False
        return True

    async def __aenter__(self) -> Self:
        for handler in logging.getLogger("g4eval").handlers if self._gated else ():
            handler.addFilter(self._filter)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handler in logging.getLogger("g4eval").handlers:
            handler.removeFilter(self._filter)
        if self._gated and isinstance(exc, G4EvalError):  # any request may have been its cause
            exc.what = withheld(exc.what, self._words_of_all())
            exc.args = (exc.what,)

    def _filter(self, record: logging.LogRecord) -> bool:
        """Clean what an engine logs of a failure, before a handler writes it."""
        if record.name.startswith("g4eval.engines"):
            record.msg, record.args = withheld(record.getMessage(), self._words_of_all()), ()
        return True

    def _words_of_all(self) -> frozenset[str]:
        if self._all is None:
            samples = (s for found in self._gated.values() for s in found.values())
            self._all = frozenset().union(*map(_words_of, samples))
        return self._all


def withheld(text: str, words: Set[str]) -> str:
    """Return `text` without the given words (lower case) and without what isn't plain."""
    secret = words - _OF_ERRORS
    kept: list[str] = []
    numbers = 0
    for piece in text.split():
        plain = _PLAIN.fullmatch(piece)
        if plain is not None and plain[1].lower() not in secret:
            kept.append(piece)
        elif _NUMBER.fullmatch(piece) and numbers < MOST_NUMBERS:
            numbers += 1
            kept.append(piece)
        elif not kept or kept[-1] != LEFT_OUT:
            kept.append(LEFT_OUT)
    shown = " ".join(kept)
    return f"{shown} ({NOTE})" if LEFT_OUT in kept else shown


def _words_of(sample: Sample) -> set[str]:
    """Return every word of a sample's fields and target, in lower case."""
    texts = _texts((sample.fields, sample.target))
    return {word for text in texts for word in _WORD.findall(text.lower())}


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
