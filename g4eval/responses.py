"""Keep what a model thought apart from what it answered; map stop reasons.

Engines call `build_completion` with the raw text, or with the fields a server has split itself.
Understood: Gemma 4's channel markers, `<think>` tags and their likes, the channels of gpt-oss, a
server's own reasoning field. docs/tasks/reading.md decides each form.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from g4eval.records import Attempt, Completion, Request, StopReason, Thought

# Gemma 4: <|channel>thought\nREASONING<channel|>ANSWER<turn|> (its chat template); the tags are
# what DeepSeek-R1, Qwen3, Magistral, Seed-OSS and Kimi made common; the last is gpt-oss' harmony.
_CLOSERS = {
    "<|channel>": ("<channel|>",),
    "<think>": ("</think>",),
    "[THINK]": ("[/THINK]",),
    "<seed:think>": ("</seed:think>",),
    "\u25c1think\u25b7": ("\u25c1/think\u25b7",),
    "<|channel|>": ("<|end|>", "<|call|>", "<|start|>assistant", "<|return|>"),
}
_HARMONY = "<|channel|>"
_CLOSING = frozenset(closer for closers in _CLOSERS.values() for closer in closers)
# These close a thought that the prompt opened; gpt-oss' ends mean other things to other models.
_CLOSING_ALONE = _CLOSING - frozenset(_CLOSERS[_HARMONY])
# A model's turn ends at the first of these that stands outside a thought.
_END_TOKENS = (
    "<turn|>", "<end_of_turn>", "<eos>", "<|tool_response>", "<|im_end|>", "<|eot_id|>",
    "<|endoftext|>", "<|return|>",
)  # fmt: skip
_MARKER = re.compile("|".join(map(re.escape, sorted({*_CLOSERS, *_CLOSING, *_END_TOKENS}))))
_MARKER_IN_ANGLES = re.compile(
    "|".join(re.escape(m) for m in sorted({*_CLOSERS, *_CLOSING, *_END_TOKENS}) if m[0] == "<")
)
_LABEL = re.compile(r"\s*thought\n")
# What opens a channel may name it; only these channels hold an answer.
_CHANNEL = re.compile(r"\s*([a-z_]{1,20})\n|([a-z_]{1,20})[^<\n]{0,80}<\|message\|>")
_ANSWERING = frozenset({"final", "answer", "response"})

# Servers' words for why generation ended, in lower case. What is in neither table is nobody's.
_STOP_REASONS = {
    # The model ended its turn.
    "stop": StopReason.STOP,
    "eos": StopReason.STOP,
    "eos_token": StopReason.STOP,  # TGI
    "stop_sequence": StopReason.STOP,
    "stop_token": StopReason.STOP,
    "stopped": StopReason.STOP,
    "end_turn": StopReason.STOP,  # Anthropic
    "end_of_turn": StopReason.STOP,
    "tool_calls": StopReason.STOP,
    "tool_use": StopReason.STOP,
    "function_call": StopReason.STOP,  # OpenAI before tool_calls
    "complete": StopReason.STOP,  # Cohere
    "completed": StopReason.STOP,
    "finished": StopReason.STOP,
    # The budget, the context or a loop detector cut it short.
    "length": StopReason.LENGTH,
    "max_tokens": StopReason.LENGTH,
    "max_output_tokens": StopReason.LENGTH,
    "max_new_tokens": StopReason.LENGTH,
    "max_length": StopReason.LENGTH,
    "model_length": StopReason.LENGTH,  # Mistral
    "model_context_window_exceeded": StopReason.LENGTH,  # Anthropic
    "context_length": StopReason.LENGTH,
    "repetition": StopReason.LENGTH,  # vLLM's loop detector: it would have gone on to the budget
    # Somebody's rule hid it.
    "content_filter": StopReason.FILTERED,
    "content_filtered": StopReason.FILTERED,
    "filtered": StopReason.FILTERED,
    "safety": StopReason.FILTERED,  # Gemini, and the three after it
    "recitation": StopReason.FILTERED,
    "blocklist": StopReason.FILTERED,
    "prohibited_content": StopReason.FILTERED,
    "refusal": StopReason.FILTERED,  # Anthropic
    "sensitive": StopReason.FILTERED,
    "guardrail_intervened": StopReason.FILTERED,  # Bedrock
}
# The usual ones, which an error lists.
_SHOWN_WORDS = (
    "stop", "eos", "stop_sequence", "end_turn", "tool_calls", "length", "max_tokens",
    "content_filter", "filtered",
)  # fmt: skip
# The server stopped, not the model: never an answer.
_FAILURE_WORDS = frozenset(
    {
        "abort",
        "aborted",
        "cancel",
        "canceled",
        "cancelled",
        "disconnect",
        "engine_error",
        "error",
        "failed",
        "insufficient_system_resource",  # DeepSeek
        "internal_error",
        "network_error",
        "overloaded",
        "preempted",
        "server_error",
        "timeout",
        "timed_out",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitText:
    """A raw text taken apart."""

    text: str
    reasoning: str | None
    thought: Thought


def split_reasoning(
    raw_text: str, *, starts_inside: bool = False, is_cut: bool = False
) -> SplitText:
    """Take the reasoning out of a raw text.

    Args:
        raw_text: as generated, special tokens kept.
        starts_inside: the prompt itself ended inside an open thought.
        is_cut: generation ended before the model did.

    Returns:
        The visible text, the reasoning (None where no marker stands), and whether the last thought
        was closed. A closing marker without an opener closes a thought that the prompt opened.
        Nothing after the end of the model's turn is visible: it answers a turn that nobody took.
    """
    has_others = "THINK]" in raw_text or "\u25b7" in raw_text
    pattern = _MARKER if has_others else _MARKER_IN_ANGLES  # found by its first letter, so quicker
    markers = list(pattern.finditer(raw_text)) if has_others or "<" in raw_text else []
    if not starts_inside and not any(m[0] in _CLOSERS or m[0] in _CLOSING_ALONE for m in markers):
        text = raw_text[: markers[0].start()].rstrip() if markers else raw_text
        if _LABEL.match(text):
            text = _LABEL.sub("", text, count=1)
        return SplitText(text=text, reasoning=None, thought=Thought.NONE)
    return _Splitter(raw_text, markers, starts_inside=starts_inside).split(is_cut=is_cut)


class _Splitter:
    """One pass over the markers of a text."""

    def __init__(self, raw_text: str, markers: list[re.Match[str]], *, starts_inside: bool) -> None:
        self._raw = raw_text
        self._markers = markers
        self._last = {marker[0]: marker.start() for marker in markers}
        self._visible: list[str] = []
        self._hidden: list[str] = []
        self._closers = _first_closers(markers, starts_inside=starts_inside)
        self._is_unnamed = False  # the thought is a channel that doesn't say it is one
        self._has_ended = False

    def split(self, *, is_cut: bool) -> SplitText:
        start = 0
        for marker in self._markers:
            if marker.start() < start:
                continue  # part of what opened a channel
            piece = self._raw[start : marker.start()]
            start = marker.end()
            if not self._closers:
                self._visible.append(piece)
                start = self._open(marker)
                if self._has_ended:
                    break
            else:
                self._hidden.append(piece)
                if self._closes(marker, is_cut=is_cut):
                    self._closers = ()
                elif self._is_unnamed and marker[0] in _END_TOKENS and not is_cut:
                    self._visible.append(self._hidden.pop())
                    self._closers, self._has_ended = (), True
                    break
        if not self._has_ended:
            (self._hidden if self._closers else self._visible).append(self._raw[start:])
        text = "".join(self._visible)
        return SplitText(
            text=text.rstrip() if self._has_ended else text,
            reasoning="".join(
                _LABEL.sub("", h, count=1) if _LABEL.match(h) else h for h in self._hidden
            ),
            thought=Thought.OPEN if self._closers else Thought.CLOSED,
        )

    def _open(self, marker: re.Match[str]) -> int:
        """Take one marker outside a thought; return where the text goes on."""
        if marker[0] in _END_TOKENS:
            self._has_ended = True
        if (closers := _CLOSERS.get(marker[0])) is None:
            return marker.end()  # a stray closer is swallowed
        named = _CHANNEL.match(self._raw, marker.end()) if "channel" in marker[0] else None
        if named is not None and (named[1] or named[2]) in _ANSWERING:
            return named.end()
        self._closers = closers
        is_gemmas = marker[0] == "<|channel>"
        self._is_unnamed = is_gemmas and named is None and not self._comes_later(closers, marker)
        return marker.end() if named is None or is_gemmas else named.end()

    def _closes(self, marker: re.Match[str], *, is_cut: bool) -> bool:
        """Whether a marker ends the thought: its own closer, or another's where its never comes."""
        if marker[0] in self._closers:
            return True
        return not is_cut and marker[0] in _CLOSING and not self._comes_later(self._closers, marker)

    def _comes_later(self, closers: tuple[str, ...], marker: re.Match[str]) -> bool:
        return any(self._last.get(closer, -1) >= marker.start() for closer in closers)


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
    cut = stop_reason is StopReason.LENGTH
    split = split_reasoning(raw_text, starts_inside=starts_inside, is_cut=cut)
    if reasoning:
        split = SplitText(
            text=split.text,
            reasoning=reasoning + (split.reasoning or ""),
            thought=Thought.CLOSED if split.thought is Thought.NONE else split.thought,
        )
    if cut and thinking and split.thought is Thought.NONE:
        split = SplitText(text=split.text, reasoning=None, thought=Thought.OPEN)
    elif cut and reasoning and not split.text.strip():
        split = SplitText(text="", reasoning=split.reasoning, thought=Thought.OPEN)
    return Completion(
        key=request.key,
        task_id=request.task_id,
        sample_id=request.sample_id,
        repeat=request.repeat,
        step=request.step,
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


def build_attempt(request: Request, error: str, *, refused: bool = False) -> Attempt:
    """Return the Attempt of a request that failed for good now.

    Args:
        request: what was asked.
        error: what happened.
        refused: it can never succeed, so it isn't sent again.
    """
    return Attempt(
        key=request.key,
        task_id=request.task_id,
        sample_id=request.sample_id,
        repeat=request.repeat,
        step=request.step,
        error=error,
        at=time.time(),
        refused=refused,
    )


def parse_stop_reason(word: str | None) -> StopReason:
    """Map an engine's word for why it stopped; None counts as `stop`; raises ValueError else."""
    if word is None:
        return StopReason.STOP
    reason = _STOP_REASONS.get(word.lower())
    if reason is None:
        raise ValueError(f"{word!r} is not a stop reason; known: {', '.join(_SHOWN_WORDS)}")
    return reason


def is_failure_word(word: str) -> bool:
    """Whether an engine's word for why it stopped says that it failed."""
    return word.lower() in _FAILURE_WORDS


def _first_closers(markers: list[re.Match[str]], *, starts_inside: bool) -> tuple[str, ...]:
    """Return the marker that ends the thought the text starts in; none: it starts in none."""
    if starts_inside:
        return (next((m[0] for m in markers if m[0] in _CLOSING_ALONE), "<channel|>"),)
    first = next((m[0] for m in markers if m[0] in _CLOSERS or m[0] in _CLOSING_ALONE), "")
    return (first,) if first in _CLOSING_ALONE else ()
