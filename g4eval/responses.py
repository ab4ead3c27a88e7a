"""Keep what a model thought apart from what it answered; map stop reasons.

Engines call `build_completion` with the raw text, or with the fields a server has split itself.
Understood: Gemma 4's channel markers, `<think>` tags, a server's own reasoning field.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from g4eval.records import Completion, Request, StopReason, Thought

# Gemma 4: <|channel>thought\nREASONING<channel|>ANSWER<turn|> (its chat template); the tags are
# what DeepSeek-R1 and Qwen3 made common.
_CLOSERS = {"<|channel>": "<channel|>", "<think>": "</think>"}
_MARKER = re.compile(r"<\|channel>|<channel\|>|<think>|</think>")
_LABEL = re.compile(r"\s*thought\n")
_END_TOKENS = ("<turn|>", "<end_of_turn>", "<eos>", "<|tool_response>")

_STOP_REASONS = {
    "stop": StopReason.STOP,
    "eos": StopReason.STOP,
    "stop_sequence": StopReason.STOP,
    "end_turn": StopReason.STOP,
    "tool_calls": StopReason.STOP,
    "length": StopReason.LENGTH,
    "max_tokens": StopReason.LENGTH,
    "content_filter": StopReason.FILTERED,
    "filtered": StopReason.FILTERED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitText:
    """A raw text taken apart."""

    text: str
    reasoning: str | None
    thought: Thought


def split_reasoning(raw_text: str, *, starts_inside: bool = False) -> SplitText:
    """Take the reasoning out of a raw text.

    Args:
        raw_text: as generated, special tokens kept.
        starts_inside: the prompt itself ended inside an open thought.

    Returns:
        The visible text, the reasoning (None where no marker stands), and whether the last thought
        was closed. A closing marker without an opener closes a thought that the prompt opened.
    """
    markers = list(_MARKER.finditer(raw_text)) if "<" in raw_text else []
    if not markers and not starts_inside:
        text = _LABEL.sub("", raw_text, count=1) if _LABEL.match(raw_text) else raw_text
        return SplitText(text=_without_end_tokens(text), reasoning=None, thought=Thought.NONE)

    closer = _first_closer(markers, starts_inside=starts_inside)
    visible: list[str] = []
    hidden: list[str] = []
    start = 0
    for marker in markers:
        piece = raw_text[start : marker.start()]
        if closer is None:
            visible.append(piece)
            closer = _CLOSERS.get(marker[0])  # a stray closer is swallowed
        elif marker[0] == closer:
            hidden.append(piece)
            closer = None
        else:
            hidden.append(piece)  # another marker inside a thought is part of it
        start = marker.end()
    (visible if closer is None else hidden).append(raw_text[start:])
    return SplitText(
        text=_without_end_tokens("".join(visible)),
        reasoning="".join(_LABEL.sub("", h, count=1) if _LABEL.match(h) else h for h in hidden),
        thought=Thought.CLOSED if closer is None else Thought.OPEN,
    )


def build_completion(
    request: Request,
    raw_text: str,
    stop_reason: StopReason,
    *,
    thinking: bool,
    reasoning: str | None = None,
    starts_inside: bool = False,
    prompt_token_ids: Sequence[int] | None = None,
    token_ids: Sequence[int] | None = None,
    prompt_tokens: int | None = None,
    reasoning_tokens: int | None = None,
    completion_tokens: int | None = None,
    started_at: float = 0.0,
    finished_at: float = 0.0,
) -> Completion:
    """Return the completion of a request, its reasoning split off and its thought judged.

    Args:
        request: what was asked.
        raw_text: the generated text; where a server splits, its content field.
        stop_reason: why generation ended.
        thinking: whether thinking was on. Then a completion cut off before any marker appeared is
            a thought that never ended.
        reasoning: the server's own reasoning field; None where it has none.
        starts_inside: the prompt ended inside an open thought.
        prompt_token_ids: [P], where known.
        token_ids: [T], where known.
        prompt_tokens: P.
        reasoning_tokens: part of T.
        completion_tokens: T.
        started_at: seconds since the epoch.
        finished_at: seconds since the epoch.
    """
    split = split_reasoning(raw_text, starts_inside=starts_inside)
    if reasoning:
        split = SplitText(
            text=split.text,
            reasoning=reasoning + (split.reasoning or ""),
            thought=Thought.CLOSED if split.thought is Thought.NONE else split.thought,
        )
    cut = stop_reason is StopReason.LENGTH
    if cut and thinking and split.thought is Thought.NONE:
        split = SplitText(text=split.text, reasoning=None, thought=Thought.OPEN)
    elif cut and reasoning and not split.text.strip():
        split = SplitText(text="", reasoning=split.reasoning, thought=Thought.OPEN)
    return Completion(
        key=request.key,
        task_id=request.task_id,
        sample_id=request.sample_id,
        repeat=request.repeat,
        text=split.text,
        stop_reason=stop_reason,
        thought=split.thought,
        reasoning=split.reasoning,
        raw_text=None if raw_text == split.text else raw_text,
        prompt_token_ids=prompt_token_ids,
        token_ids=token_ids,
        prompt_tokens=prompt_tokens,
        reasoning_tokens=reasoning_tokens,
        completion_tokens=completion_tokens,
        started_at=started_at,
        finished_at=finished_at,
    )


def parse_stop_reason(word: str | None) -> StopReason:
    """Map an engine's word for why it stopped; None counts as `stop`; raises ValueError else."""
    if word is None:
        return StopReason.STOP
    reason = _STOP_REASONS.get(word.lower())
    if reason is None:
        raise ValueError(f"{word!r} is not a stop reason; known: {', '.join(_STOP_REASONS)}")
    return reason


def _first_closer(markers: list[re.Match[str]], *, starts_inside: bool) -> str | None:
    """Return the marker that ends the thought the text starts in; None: it starts in none."""
    first_closing = next((m[0] for m in markers if m[0] not in _CLOSERS), None)
    if starts_inside:
        return first_closing or "<channel|>"
    first = markers[0][0]
    return first if first not in _CLOSERS else None


def _without_end_tokens(text: str) -> str:
    """Cut end tokens off, and the blanks before them; a text without one keeps its blanks."""
    rest = text.rstrip()
    while rest.endswith(_END_TOKENS):
        token = next(token for token in _END_TOKENS if rest.endswith(token))
        rest = text = rest.removesuffix(token).rstrip()
    return text
