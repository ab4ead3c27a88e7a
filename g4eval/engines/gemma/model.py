"""Gemma 3 and Gemma 4 text decoders: token ids to logits, the forward pass on one screen.

`Gemma.hidden` is that pass. Everything the two generations and the sizes differ in is data: a
`GemmaConfig` for shapes and kinds, and parts of a `Block` that are None where a size lacks them.
Letters: R rows (tokens of all requests, flat), N query heads, K key/value heads, H head size,
D model width, V vocabulary, L layers, P width of the per-layer embeddings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from g4eval.engines.gemma.attention import Attention
from g4eval.engines.gemma.batch import Batch
from g4eval.engines.gemma.cache import KeyValue, KVCache
from g4eval.engines.gemma.config import GemmaConfig, LayerConfig
from g4eval.engines.gemma.head import Head
from g4eval.engines.gemma.layers import GatedMlp, ScaledEmbedding, rms_norm
from g4eval.engines.gemma.linear import Linear
from g4eval.engines.gemma.moe import Experts, Router
from g4eval.engines.gemma.rope import Rotation, rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOfExperts:
    """What a layer of 26B-A4B has beside its dense MLP."""

    router: Router
    experts: Experts
    dense_out_norm: Tensor  # [D]
    experts_in_norm: Tensor  # [D]
    experts_out_norm: Tensor  # [D]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerGate:
    """How a layer of E2B and E4B takes up its own embedding of the token."""

    gate: Linear  # [P, D]
    projection: Linear  # [D, P]
    out_norm: Tensor  # [D]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The parameters of one decoder layer; norm weights are float32."""

    layer: LayerConfig
    input_norm: Tensor  # [D]
    qkv: Linear  # queries, then keys, then values, as far as the layer owns them
    qk_norm: Tensor  # [N + K, H], a head's norm a row; [N, H] where the donor's keys are read
    attention_out: Linear
    post_attention_norm: Tensor  # [D]
    pre_mlp_norm: Tensor  # [D]
    mlp: GatedMlp
    post_mlp_norm: Tensor  # [D]
    moe: MixtureOfExperts | None
    ple: PerLayerGate | None
    scalar: Tensor | None  # [1]; scales the whole residual stream


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerEmbeddings:
    """The second embedding of E2B and E4B: one vector a token and layer."""

    embedding: ScaledEmbedding  # [V, L * P]
    projection: Linear  # [L * P, D]
    norm: Tensor  # [P]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma:
    """A loaded decoder."""

    config: GemmaConfig
    device: torch.device
    dtype: torch.dtype
    embedding: ScaledEmbedding
    ple: PerLayerEmbeddings | None
    blocks: tuple[Block, ...]
    norm: Tensor  # [D]
    head: Head
    frequencies_sliding: Tensor  # [H / 2], float32
    frequencies_full: Tensor  # [H / 2], float32

    def hidden(self, batch: Batch, cache: KVCache, *, ends_only: bool = False) -> Tensor:
        """Run every block over the batch's rows, adding their keys and values to the cache.

        Args:
            batch: whose rows.
            cache: what they see, and what they are added to.
            ends_only: return `Batch.ends` only. From the attention of the last layer that has keys
                of its own on, nothing is computed for the others: in E2B for 20 of 35 layers more.

        Returns:
            [R, D], normed: what `head` takes.
        """
        config = self.config
        x = self.embedding(batch.token_ids)
        layer_inputs = self._layer_inputs(batch.token_ids, x)
        rotate, last_owner = self._rotations(batch.positions), config.owners[-1]
        attention = Attention(batch, cache, config.attention_scale, self.dtype)
        for block in self.blocks:
            normed = rms_norm(x, block.input_norm, config.rms_eps)
            query, new = self._query_key_value(block, normed, rotate[block.layer.sliding])
            if new is not None:
                attention.store(block.layer, new)
            if ends_only and block.layer is last_owner:
                rows, batch = batch.ends()
                query, x = query[rows], x[rows]
                layer_inputs = None if layer_inputs is None else layer_inputs[rows]
                rotate = self._rotations(batch.positions)
                attention.narrow(batch)
            attended = block.attention_out(attention(block.layer, query))
            x = rms_norm(attended, block.post_attention_norm, config.rms_eps).add_(x)
            fed = self._feed_forward(block, x)
            x = rms_norm(fed, block.post_mlp_norm, config.rms_eps).add_(x)
            if block.ple is not None and layer_inputs is not None:
                gated = block.ple.gate.gelu(x) * layer_inputs[:, block.layer.index]
                own = block.ple.projection(gated)
                x = rms_norm(own, block.ple.out_norm, config.rms_eps).add_(x)
            if block.scalar is not None:
                x = x * block.scalar
        return rms_norm(x, self.norm, config.rms_eps)

    def _rotations(self, positions: Tensor) -> tuple[Rotation, Rotation]:
        """Return how full layers and sliding ones rotate rows at these positions."""
        return (
            rotation(self.frequencies_full, positions, self.dtype),
            rotation(self.frequencies_sliding, positions, self.dtype),
        )

    def _query_key_value(
        self, block: Block, x: Tensor, rotate: Rotation
    ) -> tuple[Tensor, KeyValue | None]:
        """Return queries [R, N, H] and, where the layer owns them, keys and values [R, K, H]."""
        layer, eps = block.layer, self.config.rms_eps
        heads = block.qkv(x).view(len(x), -1, layer.head_dim)
        normed, query_heads = len(block.qk_norm), self.config.query_heads
        rotated = rotate(rms_norm(heads[:, :normed], block.qk_norm, eps))
        query, key = rotated[:, :query_heads], rotated[:, query_heads:]
        if layer.kv_donor is not None:
            return query, None
        value = heads[:, query_heads:normed] if layer.value_is_key else heads[:, normed:]
        if self.config.generation != 3:
            value = rms_norm(value, None, eps)
        return query, KeyValue(key, value)

    def _feed_forward(self, block: Block, x: Tensor) -> Tensor:
        """Return the MLP of x [R, D]; with experts, the sum of both branches from the same x."""
        eps = self.config.rms_eps
        dense = block.mlp(rms_norm(x, block.pre_mlp_norm, eps))
        if block.moe is None:
            return dense
        moe = block.moe
        weights, chosen = moe.router(x)  # on the residual itself, not on the normed input
        expert = moe.experts(rms_norm(x, moe.experts_in_norm, eps), weights, chosen)
        return rms_norm(dense, moe.dense_out_norm, eps) + rms_norm(
            expert, moe.experts_out_norm, eps
        )

    def _layer_inputs(self, token_ids: Tensor, x: Tensor) -> Tensor | None:
        """Return [R, L, P]: the token's own embedding of each layer, mixed with its context's."""
        if self.ple is None:
            return None
        shape = (len(x), len(self.blocks), self.config.ple_size)
        token = self.ple.embedding(token_ids).view(shape)
        context = (self.ple.projection(x) * self.config.hidden_size**-0.5).view(shape)
        context = rms_norm(context, self.ple.norm, self.config.rms_eps)
        mixed: Tensor = (context + token) * 2.0**-0.5
        return mixed
