"""Swap a loaded model's parts for those that run on the card's programs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from g4eval.engines.gemma.kernels.experts import CudaExperts, CudaRouter
from g4eval.engines.gemma.kernels.launching import Launching
from g4eval.engines.gemma.kernels.products import (
    GROUP,
    CudaEmbedding,
    CudaHead,
    CudaLinear,
    CudaMlp,
    Weight,
)
from g4eval.engines.gemma.layers import GatedMlp, ScaledEmbedding
from g4eval.engines.gemma.linear import Fp8Linear, Int4Linear, Linear, PlainLinear
from g4eval.engines.gemma.model import Block, Gemma


def for_cuda(model: Gemma, launching: Launching) -> Gemma:
    """Return the model with every product in the kernels' form; its old parts may be freed.

    Raises:
        TypeError: a weight was laid out for another device.
    """
    blocks = tuple(_block(block, launching) for block in model.blocks)
    ple = model.ple
    if ple is not None:
        ple = replace(
            ple,
            embedding=_embedding(ple.embedding),
            projection=linear(ple.projection, launching),
        )
    head = CudaHead(linear(model.head.product, launching), model.config.logit_softcap)
    return replace(
        model,
        embedding=_embedding(model.embedding),
        ple=ple,
        blocks=blocks,
        head=cast("Any", head),
    )


def _embedding(embedding: ScaledEmbedding) -> ScaledEmbedding:
    made = CudaEmbedding(table=embedding.table, scale=embedding.scale, dtype=embedding.dtype)
    return cast("ScaledEmbedding", made)


def _block(block: Block, launching: Launching) -> Block:
    moe = block.moe
    if moe is not None:
        router = CudaRouter(
            linear(moe.router.proj, launching),
            scale=moe.router.scale,
            per_expert_scale=moe.router.per_expert_scale,
            active=moe.router.active,
            eps=moe.router.eps,
            launching=launching,
        )
        experts = stacked_experts(moe.experts.mlps, launching)
        moe = replace(moe, router=cast("Any", router), experts=cast("Any", experts))
    ple = block.ple
    if ple is not None:
        ple = replace(
            ple,
            gate=linear(ple.gate, launching),
            projection=linear(ple.projection, launching),
        )
    return replace(
        block,
        qkv=linear(block.qkv, launching),
        attention_out=linear(block.attention_out, launching),
        mlp=cast("Any", _mlp(block.mlp, launching)),
        moe=moe,
        ple=ple,
    )


def _mlp(mlp: GatedMlp, launching: Launching) -> CudaMlp:
    gate_up = stacked([weight_of(mlp.gate), weight_of(mlp.up)])
    return CudaMlp(gate_up=CudaLinear(gate_up, launching), down=linear(mlp.down, launching))


def stacked_experts(mlps: Sequence[GatedMlp], launching: Launching) -> CudaExperts:
    """Return experts in two tensors, widened where they are stored packed."""
    gate_up = torch.stack([torch.cat((_wide(mlp.gate), _wide(mlp.up))) for mlp in mlps])
    return CudaExperts(gate_up, torch.stack([_wide(mlp.down) for mlp in mlps]), launching)


def _wide(product: Linear) -> Tensor:
    if isinstance(product, PlainLinear):
        return product.weight
    raise TypeError(f"{type(product).__name__} isn't a plain weight")


def linear(product: Linear, launching: Launching) -> CudaLinear:
    """Return a product in the kernels' form."""
    return CudaLinear(weight_of(product), launching)


def weight_of(product: Linear) -> Weight:
    """Return the weight of a product in the form that programs read."""
    match product:
        case PlainLinear():
            return Weight.plain(product.weight)
        case Fp8Linear():
            return Weight.scaled(product.weight, product.scale)
        case Int4Linear():
            return _grouped(product)
        case _:
            raise TypeError(f"{type(product).__name__} is laid out for another device")


def _grouped(product: Int4Linear) -> Weight:
    """Return symmetric 4-bit values in groups of 32; wider groups repeat their scale."""
    numbers, scale = product.numbers(), product.scale
    inputs = numbers.shape[1]
    if inputs % GROUP or (inputs // scale.shape[1]) % GROUP:
        return Weight.plain(product.unpack(scale.dtype))
    scale = scale.repeat_interleave(inputs // scale.shape[1] // GROUP, dim=1)
    return Weight.grouped(numbers, scale, scale * 8)


def stacked(weights: Sequence[Weight]) -> Weight:
    """Return weights of one format and width stacked along their outputs."""
    first = weights[0]
    values, scale = (
        torch.cat([getattr(weight, name) for weight in weights]) for name in ("values", "scale")
    )
    return replace(first, values=values, scale=scale)


def grouped_from_q4_k(blocks: Tensor) -> Weight:
    """Return GGUF's Q4_K blocks as they are, no value rounded again but the scales' products.

    Args:
        blocks: [out, in / 256 * 144] uint8: a float16 scale and a float16 low of their own for 8
            pairs of 6-bit numbers, then 128 bytes of nibbles.

    Source: `block_q4_K`, ggml-common.h, ggml-org/llama.cpp.
    """
    outputs = len(blocks)
    blocks = blocks.reshape(outputs, -1, 144)
    two = blocks[..., :4].contiguous().view(torch.float16).float()  # [out, blocks, 2]
    packed = blocks[..., 4:16].to(torch.int32)
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = torch.cat((first & 63, (third & 15) | ((first >> 6) << 4)), dim=-1)
    lows = torch.cat((second & 63, (third >> 4) | ((second >> 6) << 4)), dim=-1)
    bytes_of_64 = blocks[..., 16:].reshape(outputs, -1, 4, 32)
    numbers = torch.stack((bytes_of_64 & 15, bytes_of_64 >> 4), dim=3)
    return Weight.grouped(
        numbers.reshape(outputs, -1),
        (two[..., :1] * scales).reshape(outputs, -1),
        (two[..., 1:] * lows).reshape(outputs, -1),
    )
