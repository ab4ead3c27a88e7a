"""Measure whether a loaded model computes a request alike alone and among others.

The promise "neighbours don't change a request's tokens" rests on kernels that sum each row in one
order. That is a property of a machine's libraries, so it is measured on the loaded model: the same
prompt chunk and decoded token, alone and in a batch of sixteen, must give the same bits.
"""

import torch

from g4eval.engines.gemma.attention import attend_by_products
from g4eval.engines.gemma.batch import DecodeRow, PromptPart, make_batch
from g4eval.engines.gemma.cache import KeyValue, KVCache
from g4eval.engines.gemma.model import Gemma

NEIGHBOURS = 15
PROMPT_TOKENS = 40
DRAWN_FROM = 64
FAR_SLOTS = 4
FAR_TOKENS = 2048


@torch.inference_mode()
def is_batch_invariant(model: Gemma) -> bool:
    """Return whether logits of a prompt and of a decoded token are bit-equal alone and batched."""
    alone, among = _prompt_hidden(model, 1), _prompt_hidden(model, 1 + NEIGHBOURS)
    alone += _decode_hidden(model, 1)
    among += _decode_hidden(model, 1 + NEIGHBOURS)
    return _is_attention_invariant(model) and all(
        torch.equal(_logits(model, a, 1), _logits(model, b, 1 + NEIGHBOURS))
        for a, b in zip(alone, among, strict=True)
    )


def _is_attention_invariant(model: Gemma) -> bool:
    """Whether a token that looks far back attends alike alone and among others.

    The cache isn't filled so far for this: each shape of the model's layers is tried by itself.
    """
    made = torch.Generator(device=model.device).manual_seed(0)
    heads = model.config.query_heads
    for kv_heads, size in {(layer.kv_heads, layer.head_dim) for layer in model.config.layers}:
        query, keys, values = (
            torch.randn(FAR_SLOTS, kv_heads, rows, size, generator=made, device=model.device)
            for rows in (heads // kv_heads, FAR_TOKENS, FAR_TOKENS)
        )
        mask = torch.zeros(FAR_SLOTS, 1, 1, FAR_TOKENS, device=model.device)
        among = attend_by_products(query, KeyValue(keys, values), mask, size**-0.5)
        for slot in range(FAR_SLOTS):
            one = slice(slot, slot + 1)
            alone = KeyValue(keys[one], values[one])
            if not torch.equal(
                attend_by_products(query[one], alone, mask[one], size**-0.5)[0], among[slot]
            ):
                return False
    return True


def _prompt_of(model: Gemma, slot: int, length: int) -> list[int]:
    # Any ids do; these differ from slot to slot and from place to place.
    return [
        (7919 * (slot + 1) + 104_729 * place) % model.config.vocab_size for place in range(length)
    ]


def _prompt_hidden(model: Gemma, slots: int) -> list[torch.Tensor]:
    cache = KVCache(model.config, slots, model.device, model.dtype, PROMPT_TOKENS)
    # The prompt looked at stands last, at another row in every batch.
    parts = [
        PromptPart(slot, 0, _prompt_of(model, slot, PROMPT_TOKENS - slot))
        for slot in reversed(range(slots))
    ]
    hidden = model.hidden(make_batch([], parts, model.device), cache, ends_only=True)
    return [hidden[-1]]


def _decode_hidden(model: Gemma, slots: int) -> list[torch.Tensor]:
    cache = KVCache(model.config, slots, model.device, model.dtype, PROMPT_TOKENS)
    rows: list[torch.Tensor] = []
    for position in range(3):
        decode = [
            DecodeRow(slot, position, _prompt_of(model, slot, position + 1)[-1])
            for slot in range(slots)
        ]
        rows.append(model.hidden(make_batch(decode, [], model.device), cache)[0])
    return rows


def _logits(model: Gemma, row: torch.Tensor, rows: int) -> torch.Tensor:
    """Return all logits of a row, then the largest as they are drawn from, among other rows."""
    hidden = torch.stack([row.roll(turn) for turn in reversed(range(rows))])
    nothing = torch.tensor([], dtype=torch.long, device=model.device)
    values, _ = model.head.top(hidden, DRAWN_FROM, nothing)
    return torch.cat((model.head(hidden)[-1], values[-1]))
