"""Teacher-forced log-probabilities of given tokens, chunk by chunk."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from g4eval.engines.gemma.batch import PromptPart, make_batch
from g4eval.engines.gemma.cache import KVCache
from g4eval.engines.gemma.head import top_of
from g4eval.engines.gemma.model import Gemma
from g4eval.engines.gemma.scheduler import CHUNK_TOKENS
from g4eval.records import TokenScores

ROWS_AT_ONCE = 64  # of full-vocabulary log-probabilities


@torch.inference_mode()
def log_probability_rows(model: Gemma, token_ids: Sequence[int]) -> Iterator[Tensor]:
    """Yield log p over the whole vocabulary after each token, [r, V] float32, T rows in all.

    Row i holds log p(. | tokens 0..i). Memory is that of a few rows, however long the sequence.
    """
    cache = KVCache(model.config, 1, model.device, model.dtype, len(token_ids))
    for start in range(0, len(token_ids), CHUNK_TOKENS):
        part = PromptPart(0, start, token_ids[start : start + CHUNK_TOKENS])
        hidden = model.hidden(make_batch([], [part], model.device), cache)
        for rows in torch.split(hidden, ROWS_AT_ONCE):
            yield torch.log_softmax(model.head(rows), dim=-1)


@torch.inference_mode()
def score_tokens(model: Gemma, token_ids: Sequence[int], top_k: int = 0) -> TokenScores:
    """Return log p of each token after the first, and the `top_k` most likely at each place.

    Args:
        model: the decoder.
        token_ids: [T], T >= 2.
        top_k: K; 0: none.
    """
    logprobs: list[float] = []
    top_ids: list[list[int]] = []
    top_logprobs: list[list[float]] = []
    for all_rows in log_probability_rows(model, token_ids):
        at = len(logprobs)
        following = torch.tensor(token_ids[at + 1 : at + 1 + len(all_rows)], device=model.device)
        rows = all_rows[: len(following)]
        logprobs += rows.gather(1, following[:, None])[:, 0].tolist()
        if top_k and len(rows):
            values, ids = top_of(rows, top_k)
            top_ids += ids.tolist()
            top_logprobs += values.tolist()
    return TokenScores(
        logprobs=logprobs,
        top_ids=top_ids if top_k else None,
        top_logprobs=top_logprobs if top_k else None,
    )
