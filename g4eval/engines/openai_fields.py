"""The names that OpenAI-compatible servers give to sampling parameters and log-probabilities."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from g4eval.engines.retry import RequestFailedError
from g4eval.engines.server_json import as_mapping, as_size
from g4eval.errors import EngineError
from g4eval.records import Request, TokenScores

# What a field says that changes nothing: without it a server does the same.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "min_p": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "repeat_penalty": (1, 1.0),
    "repetition_penalty": (1, 1.0),
    "skip_special_tokens": (False,),
    "stream_options": ({"include_usage": True},),
    "top_k": (-1,),
    "top_p": (1, 1.0),
    "return_token_ids": (True,),
}
_UNKNOWN_FIELD = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|not (supported|allowed|permitted|accepted)|"
    r"extra (inputs|fields)|does ?n.t support|no such|invalid (parameter|argument|field)",
    re.IGNORECASE,
)


def sampling_fields(request: Request, kind: str) -> dict[str, Any]:
    """Return every sampling parameter by the name the server knows it by.

    All are sent, defaults too: a server fills what is missing from the model's own configuration.
    """
    sampling = request.sampling
    penalty = "repeat_penalty" if kind == "llama.cpp" else "repetition_penalty"
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,  # -1: no cut, for vLLM, SGLang and llama.cpp
        "min_p": sampling.min_p,
        penalty: sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": request.seed,
    }
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if kind in ("vllm", "sglang"):
        fields["skip_special_tokens"] = False  # a thought's markers are special tokens
    if kind == "vllm":
        fields["return_token_ids"] = True
    return fields


class FieldNames:
    """Which fields of a body this server takes, learned from its refusals.

    Only what changes nothing is left out unasked: a field at its neutral value. `max_tokens` has
    another name at some servers. Anything else is the user's to decide: `engine.omit`.
    """

    def __init__(self) -> None:
        self._left_out: set[str] = set()
        self._budget_name = "max_tokens"

    def fit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body as this server takes it."""
        fitted = {
            name: value
            for name, value in body.items()
            if name not in self._left_out or value not in _NEUTRAL[name]
        }
        if self._budget_name != "max_tokens" and "max_tokens" in fitted:
            fitted[self._budget_name] = fitted.pop("max_tokens")
        return fitted

    def learn(self, error: RequestFailedError, body: Mapping[str, Any]) -> bool:
        """Learn from a refusal of a body as it was sent; whether it may be sent again now."""
        name = refused_field(error, body)
        if name is None:
            return False
        if name == "max_tokens" and "max_completion_tokens" in f"{error.message} {error.body}":
            self._budget_name = "max_completion_tokens"
            return True
        if body[name] in _NEUTRAL.get(name, ()):
            self._left_out.add(name)
            return True
        return False


def refused_field(error: RequestFailedError, body: Mapping[str, Any]) -> str | None:
    """Return the field of a body that a refusal names as one it doesn't know; None: none."""
    text = f"{error.message} {error.body[:4096]}"
    if error.status not in (400, 422) or not _UNKNOWN_FIELD.search(text):
        return None
    places = {name: _place_of(name, text) for name in body if name not in ("model", "messages")}
    there = {name: place for name, place in places.items() if place is not None}
    return min(there, key=lambda name: there[name]) if there else None


def _place_of(name: str, text: str) -> int | None:
    found = re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", text)
    return found.start() if found else None


def read_prompt_logprobs(token_ids: Sequence[int], answer: Any, top_k: int) -> TokenScores:
    """Return the scores in vLLM's `prompt_logprobs`; raises EngineError where they aren't there.

    Args:
        token_ids: [T], as sent.
        answer: [T]; None for the first token, then {id as text: {"logprob", "rank"}}.
        top_k: K.
    """
    if not isinstance(answer, list) or len(answer) != len(token_ids):
        raise _no_scores("prompt_logprobs is missing, or not a row a token")
    logprobs: list[float] = []
    top_ids: list[list[int]] = []
    top_logprobs: list[list[float]] = []
    for token_id, value in zip(token_ids[1:], answer[1:], strict=True):
        row = as_mapping(value)
        ranked = sorted(
            (as_size(as_mapping(entry).get("rank")) or top_k + 1, name, _logprob(entry))
            for name, entry in row.items()
        )[:top_k]
        logprobs.append(_logprob(row.get(str(token_id))))
        if any(not (name.isascii() and name.isdigit()) for _, name, _ in ranked):
            raise _no_scores("prompt_logprobs names no token ids")
        top_ids.append([int(name) for _, name, _ in ranked])
        top_logprobs.append([logprob for _, _, logprob in ranked])
    if not top_k:
        return TokenScores(logprobs=logprobs)
    return TokenScores(logprobs=logprobs, top_ids=top_ids, top_logprobs=top_logprobs)


def _logprob(entry: Any) -> float:
    value = as_mapping(entry).get("logprob")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
        return float(value)
    raise _no_scores(f"a row of prompt_logprobs has no log-probability: {entry!r:.80}")


def _no_scores(what: str) -> EngineError:
    return EngineError(
        f"the server gave no scores: {what}",
        hint="it must be vLLM, without --disable-log-probs or a gateway that drops the field",
    )
