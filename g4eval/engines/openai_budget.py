"""How many tokens a request may ask for: its budget, or what the context leaves.

Servers refuse a budget past the end of their context, or cut the prompt without a word. What the
context is comes from the server's own facts, from a declaration, or from its first refusal; how
long a prompt is, from the server's tokenizer, from its refusal, or from the prompt's bytes.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from g4eval.engines.retry import Failure, RequestFailedError
from g4eval.engines.server_json import LARGEST_COUNT
from g4eval.records import Request

# A prompt has no more tokens than UTF-8 bytes, but for what a chat template adds a turn.
_TEMPLATE_TOKENS = 64
_LIKELY_BYTES_A_TOKEN = 2  # fewer than any text has but digits and rare scripts
_MOST_BYTES_A_TOKEN = 7  # more than any text has but runs of blanks
_LONG_PROMPT_BYTES = 8192
_LEARNED_TRIES = 3  # times that one request is sent again with another budget
_MESSAGE_CHARACTERS = 4096  # of an error, looked at

_NUMBER = r"`?([\d,]{1,12})`?"
# Each as a server writes it; the first that is found counts.
_CONTEXT = (
    rf'"n_ctx"\s*:\s*{_NUMBER}',  # llama.cpp
    rf"{_NUMBER} \+ {_NUMBER} > {_NUMBER}",  # Anthropic: prompt + budget > context
    rf"model with {_NUMBER} maximum context",  # Mistral
    rf"context[a-z_' ]{{0,24}}\({_NUMBER} tokens\)",  # SGLang, of a long prompt
    rf"> {_NUMBER} maximum",  # Anthropic
    rf"`max_new_tokens` must be <= {_NUMBER}",  # TGI
    rf"maximum number of tokens allowed \({_NUMBER}\)",  # Gemini
    rf"(?:maximum |max |available )?context[a-z_' ]{{0,40}}?[:= (]{{1,3}}{_NUMBER}",  # vLLM, OpenAI
    rf"maximum model length of {_NUMBER}",  # vLLM, of a long prompt
)
_PROMPT = (
    rf'"n_prompt_tokens"\s*:\s*{_NUMBER}',  # llama.cpp
    rf"{_NUMBER} \+ {_NUMBER} > {_NUMBER}",
    rf"{_NUMBER} in the (?:messages|prompt|input)",  # OpenAI, older vLLM
    rf"{_NUMBER} (?:input|prompt|`inputs`) tokens",  # vLLM, TGI
    rf"{_NUMBER} tokens (?:from|in) the (?:input|prompt|messages)",  # SGLang
    rf"(?:input|prompt) \({_NUMBER} tokens\)",  # SGLang, of a long prompt
    rf"prompt \(length {_NUMBER}\)",  # vLLM, of a long prompt
    rf"[Pp]rompt contains {_NUMBER} tokens",  # Mistral
    rf"prompt is too long: {_NUMBER}",  # Anthropic, Fireworks
    rf"input token count \({_NUMBER}\)",  # Gemini
)
_MOST_COMPLETION = (
    rf"at most {_NUMBER} completion tokens",  # OpenAI
    rf"max_(?:completion_)?tokens`? must be (?:less than or equal to|<=|at most) {_NUMBER}",  # Groq
    rf"[Vv]alid range of max_tokens is \[1, {_NUMBER}\]",  # DeepSeek
)
_ABOUT_LENGTH = re.compile(
    r"context|model length|max_(completion_|new_|total_)?tokens|too many tokens|"
    r"tokens? (count|limit)|(prompt|input|request)[^.]{0,40}(too (long|large)|tokens)",
    re.IGNORECASE,
)
_TOO_MUCH = re.compile(
    r"exceed|maximum|longer|too (long|large|many)|at most|less than|limit|must be|overflow|"
    r"range|> ?\d|has \d",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthError:
    """What a refusal says about lengths."""

    context: int | None = None
    prompt_tokens: int | None = None
    most_completion: int | None = None


def read_length_error(error: RequestFailedError) -> LengthError | None:
    """Return what a refusal says about lengths; None where it is about something else."""
    if error.status not in (400, 413, 422, 500):
        return None
    text = f"{error.message} {error.body}"[:_MESSAGE_CHARACTERS]
    if not (_ABOUT_LENGTH.search(text) and _TOO_MUCH.search(text)):
        return None
    said = LengthError(
        context=_number(_CONTEXT, text, group=-1),
        prompt_tokens=_number(_PROMPT, text),
        most_completion=_number(_MOST_COMPLETION, text),
    )
    if error.status == 500 and said.context is None:
        return None
    return said


class TokenBudget:
    """What the context leaves to each request; learns from refusals.

    Args:
        context: prompt and completion together; None: unknown so far.
        count: asks the server how many tokens a prompt has; None where it can't be asked.
    """

    def __init__(
        self,
        context: int | None = None,
        count: Callable[[Mapping[str, Any]], Awaitable[int | None]] | None = None,
    ) -> None:
        self.context = context
        self.most_completion: int | None = None
        self._count = count

    async def of(self, request: Request, prompt: Mapping[str, Any]) -> int:
        """Return the budget to send; raises RequestFailedError where the prompt alone is too long.

        Args:
            request: what is asked.
            prompt: the fields of the body that hold its prompt.
        """
        most = min(request.sampling.max_new_tokens, self.most_completion or LARGEST_COUNT)
        if self.context is None or _longest(request) + most <= self.context:
            return most
        n_prompt = await self._count(prompt) if self._count is not None else None
        if n_prompt is not None:
            if n_prompt >= self.context:
                raise too_long(n_prompt, self.context)
            return min(most, self.context - n_prompt)
        room = self.context - min(_longest(request), _likely(request))
        return min(most, room if room > 0 else max(1, self.context // 8))

    def after(
        self, request: Request, error: RequestFailedError, tries: "BudgetTries"
    ) -> int | None:
        """Return the budget to send a refused request again with; None: it isn't about lengths.

        Raises RequestFailedError, of kind NEVER, where no budget would be taken.

        Args:
            request: what was asked.
            error: the refusal.
            tries: of this request; its budget is the one that was refused.
        """
        said = read_length_error(error)
        if said is None:
            return None
        never = RequestFailedError(
            Failure.NEVER, error.message, status=error.status, body=error.body
        )
        context = said.context or self.context
        room = said.most_completion or LARGEST_COUNT
        if context is not None:
            room = min(room, context - (said.prompt_tokens or _likely(request)))
        if room in (0, LARGEST_COUNT) or room < 0 or tries.n_again == _LEARNED_TRIES:
            raise never
        tries.n_again += 1
        tries.said = said
        return room if room < tries.sent else max(1, tries.sent // 2)

    def confirm(self, tries: "BudgetTries") -> None:
        """Believe what a refusal said, for all requests: the answer to another budget proves it."""
        said = tries.said
        if said is None:
            return
        if said.context is not None:
            self.context = min(self.context or LARGEST_COUNT, said.context)
        self.most_completion = said.most_completion or self.most_completion


@dataclass(slots=True)
class BudgetTries:
    """One request's budget, and how often it was sent again with another."""

    sent: int  # the budget that is sent, or was refused
    n_again: int = 0
    said: LengthError | None = None  # by the newest refusal


def too_long(n_prompt: int, context: int) -> RequestFailedError:
    """Return the failure of a prompt that no budget makes fit."""
    return RequestFailedError(
        Failure.NEVER, f"the prompt has {n_prompt:,} tokens and the context {context:,}"
    )


def check_prompt_was_read(request: Request, prompt_tokens: int | None) -> None:
    """Raise RequestFailedError, of kind NEVER, where a server read only a part of a prompt.

    Ollama and LM Studio drop the beginning of what their context can't hold, without a word; what
    they say they read gives it away.
    """
    if not prompt_tokens:
        return
    n_bytes = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in request.messages)
    if n_bytes >= _LONG_PROMPT_BYTES and n_bytes > _MOST_BYTES_A_TOKEN * prompt_tokens:
        raise RequestFailedError(
            Failure.NEVER,
            f"the server read {prompt_tokens:,} tokens of a prompt of {n_bytes:,} bytes: it drops "
            "what its context can't hold; serve the model with a longer one",
        )


def _longest(request: Request) -> int:
    """Return more tokens than the prompt can have."""
    return sum(
        len(m.content.encode("utf-8", "surrogatepass")) + _TEMPLATE_TOKENS for m in request.messages
    )


def _likely(request: Request) -> int:
    """Return more tokens than the prompt is likely to have."""
    n_bytes = _longest(request) - _TEMPLATE_TOKENS * len(request.messages)
    return n_bytes // _LIKELY_BYTES_A_TOKEN + _TEMPLATE_TOKENS * len(request.messages)


def _number(patterns: tuple[str, ...], text: str, *, group: int = 1) -> int | None:
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            digits = found[found.lastindex or 1] if group == -1 else found[group]
            value = int(digits.replace(",", "") or 0)
            if 0 < value <= LARGEST_COUNT:
                return value
    return None
