"""When a completion ends, and what its text is then."""

from collections.abc import Sequence
from dataclasses import dataclass

from g4eval.engines.gemma.tokenizer import TextCodec

_SPARE_TOKENS = 8  # decoded before the longest stop text: a character may be cut over tokens


@dataclass(frozen=True, slots=True)
class StopRule:
    """Ends a completion at a stop id or at a text.

    Args:
        codec: decodes.
        stop_ids: token ids that end it; kept among its ids, left out of its text.
        stop_texts: texts that end it; left out of its text, with all that follows.
    """

    codec: TextCodec
    stop_ids: frozenset[int]
    stop_texts: tuple[str, ...]

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Return whether the last token ended it."""
        if token_ids[-1] in self.stop_ids:
            return True
        if not self.stop_texts:
            return False
        # A token is one byte or more, so this tail holds every stop text that the last one ends.
        longest = max(len(text.encode()) for text in self.stop_texts)
        tail = self.codec.decode(token_ids[-(longest + _SPARE_TOKENS) :])
        return any(text in tail for text in self.stop_texts)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Return the text of a completion, special tokens kept, its end left out."""
        if token_ids and token_ids[-1] in self.stop_ids:
            token_ids = token_ids[:-1]
        text = self.codec.decode(token_ids)
        found = [place for stop in self.stop_texts if (place := text.find(stop)) >= 0]
        return text[: min(found)] if found else text
