"""The forward pass against the kernels' seam: token ids to hidden rows, on one screen.

The same arithmetic as `Gemma.hidden`, cut where a fast device joins steps: a residual is added
together with the norm that follows it, and heads are normed, rotated and stored in one go.
"""

from itertools import chain
from typing import TypeVar

from torch import Tensor

from g4eval.engines.gemma.batch import Batch
from g4eval.engines.gemma.kernels.base import Kernels
from g4eval.engines.gemma.model import Block, Gemma

Cache = TypeVar("Cache")


def hidden(
    model: Gemma, kernels: Kernels[Cache], batch: Batch, cache: Cache, *, ends_only: bool = False
) -> Tensor:
    """Run every block over the batch's rows, adding their keys and values to the cache.

    Args:
        model: whose parameters.
        kernels: that the model's parts were made for.
        batch: whose rows.
        cache: what they see, and what they are added to.
        ends_only: return `Batch.ends` only, and compute nothing for the other rows behind the last
            layer that has keys of its own.

    Returns:
        [R, D], normed: what `head` takes.
    """
    eps, last_owner = model.config.rms_eps, model.config.owners[-1]
    x = model.embedding(batch.token_ids)
    layer_inputs = _layer_inputs(model, kernels, batch.token_ids, x)
    rows = kernels.prepare(model, batch, cache)
    normed = kernels.norm(x, model.blocks[0].input_norm, eps)
    following = chain((block.input_norm for block in model.blocks[1:]), (model.norm,))
    for block, next_norm in zip(model.blocks, following, strict=True):
        query = rows.heads(block, block.qkv(normed))
        if ends_only and block.layer is last_owner:
            kept, batch = batch.ends()
            query, x = query[kept], x[kept]
            layer_inputs = None if layer_inputs is None else layer_inputs[kept]
            rows.narrow(batch)
        attended = block.attention_out(rows.attend(block.layer, query))
        x, fed = _feed_forward(block, kernels, x, attended, eps)
        norm = block.post_mlp_norm
        if block.ple is not None and layer_inputs is not None:
            (x,) = kernels.add_norm(x, fed, norm, scalar=None, following=(), eps=eps)
            own = layer_inputs[:, block.layer.index]
            fed = block.ple.projection(kernels.gelu_times(block.ple.gate, x, own))
            norm = block.ple.out_norm
        x, normed = kernels.add_norm(
            x, fed, norm, scalar=block.scalar, following=(next_norm,), eps=eps
        )
    return normed


def _feed_forward(
    block: Block, kernels: Kernels[Cache], x: Tensor, attended: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Add what attention gave to x [R, D]; return that and what the MLP makes of it.

    With experts, both branches run from the same x, the router on x itself.
    """
    norm, moe = block.post_attention_norm, block.moe
    if moe is None:
        x, normed = kernels.add_norm(
            x, attended, norm, scalar=None, following=(block.pre_mlp_norm,), eps=eps
        )
        return x, block.mlp(normed)
    following = (block.pre_mlp_norm, moe.experts_in_norm)
    x, normed, into_experts = kernels.add_norm(
        x, attended, norm, scalar=None, following=following, eps=eps
    )
    dense = block.mlp(normed)
    weights, chosen = moe.router(x)
    expert = moe.experts(into_experts, weights, chosen)
    return x, kernels.sum_of_norms(dense, moe.dense_out_norm, expert, moe.experts_out_norm, eps)


def _layer_inputs(
    model: Gemma, kernels: Kernels[Cache], token_ids: Tensor, x: Tensor
) -> Tensor | None:
    """Return [R, L, P]: the token's own embedding of each layer, mixed with its context's."""
    if model.ple is None:
        return None
    config = model.config
    shape = (len(x), len(model.blocks), config.ple_size)
    token = model.ple.embedding(token_ids).view(shape)
    context = model.ple.projection(x) * config.hidden_size**-0.5
    rows = context.view(-1, config.ple_size)
    context = kernels.norm(rows, model.ple.norm, config.rms_eps).view(shape)
    mixed: Tensor = (context + token) * 2.0**-0.5
    return mixed
