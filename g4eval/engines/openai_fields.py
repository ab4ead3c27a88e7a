"""The names that OpenAI-compatible servers give to sampling parameters and log-probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

from g4eval.records import Request, TokenScores


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


def read_prompt_logprobs(
    token_ids: Sequence[int], rows: Sequence[Mapping[str, Any] | None], top_k: int
) -> TokenScores:
    """Return the scores in vLLM's `prompt_logprobs`.

    Args:
        token_ids: [T], as sent.
        rows: [T]; None for the first token, then {id as text: {"logprob", "rank"}}.
        top_k: K.
    """
    logprobs: list[float] = []
    top_ids: list[list[int]] = []
    top_logprobs: list[list[float]] = []
    for token_id, row in zip(token_ids[1:], rows[1:], strict=True):
        assert row is not None
        logprobs.append(row[str(token_id)]["logprob"])
        best = sorted(row.items(), key=lambda item: item[1]["rank"])[:top_k]
        top_ids.append([int(i) for i, _ in best])
        top_logprobs.append([entry["logprob"] for _, entry in best])
    if not top_k:
        return TokenScores(logprobs=logprobs)
    return TokenScores(logprobs=logprobs, top_ids=top_ids, top_logprobs=top_logprobs)
