"""Grouped-query attention over the cache, for decode rows and prompt chunks alike."""

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import Tensor

from g4eval.engines.gemma.batch import Batch, Chunk, Run
from g4eval.engines.gemma.cache import KeyValue, KVCache, first_visible
from g4eval.engines.gemma.config import LayerConfig


class Attention:
    """Attention of one forward pass; masks and donors' chunk keys live as long as the pass.

    Args:
        batch: whose rows these are.
        cache: keys and values; decode rows and chunks are added to it layer by layer.
        scale: of the scores, before the softmax.
        dtype: of queries; masks are made in it.
    """

    def __init__(self, batch: Batch, cache: KVCache, scale: float, dtype: torch.dtype) -> None:
        self._batch = batch
        self._cache = cache
        self._scale = scale
        self._dtype = dtype
        self._masks: dict[tuple[Chunk | Run | int, ...], Tensor] = {}
        self._chunk_keys: dict[tuple[int, int], KeyValue] = {}  # by owner and slot

    def store(self, layer: LayerConfig, new: KeyValue) -> None:
        """Add the rows' keys and values, [R, K, H] each, normed and rotated, to a layer's."""
        decoded = len(self._batch.decode_slots)
        if decoded:
            first = KeyValue(new.keys[:decoded], new.values[:decoded])
            self._cache.write_decoded(layer.index, self._batch, first)
        for chunk in self._batch.chunks:
            own = KeyValue(*(x[chunk.rows].transpose(0, 1) for x in (new.keys, new.values)))
            self._chunk_keys[layer.index, chunk.slot] = self._cache.extend(layer.index, chunk, own)

    def narrow(self, batch: Batch) -> None:
        """Go on with fewer rows: those of `Batch.ends`."""
        self._batch = batch

    def __call__(self, layer: LayerConfig, query: Tensor) -> Tensor:
        """Attend from every row to the keys of its request that it may see.

        Args:
            layer: its kind, and where its keys and values live.
            query: [R, N, H], normed and rotated.

        Returns:
            [R, N * H] in the dtype of `query`; N is a multiple of K, query head h reads KV head
            h // (N / K).
        """
        owner = layer.index if layer.kv_donor is None else layer.kv_donor
        out = torch.empty_like(query)
        for run in self._batch.runs:
            out[run.rows] = self._decode(owner, run, query[run.rows])
        for chunk in self._batch.chunks:
            out[chunk.rows] = self._prefill(layer, owner, chunk, query[chunk.rows])
        return out.flatten(1)

    def _decode(self, owner: int, run: Run, query: Tensor) -> Tensor:
        seen = self._cache.read_run(owner, run)
        kv_heads, span = seen.keys.shape[1:3]
        # The query heads of one KV head become its query rows: keys are read once a group.
        grouped = query.view(len(query), kv_heads, -1, query.shape[-1])
        mask = self._run_mask(run, span)
        if query.device.type == "cpu" and query.dtype is torch.float32:
            return attend_by_products(grouped, seen, mask, self._scale).flatten(1, 2)
        out = F.scaled_dot_product_attention(
            grouped, seen.keys, seen.values, attn_mask=mask, scale=self._scale
        )
        return out.flatten(1, 2)

    def _prefill(self, layer: LayerConfig, owner: int, chunk: Chunk, query: Tensor) -> Tensor:
        seen = self._chunk_keys[owner, chunk.slot]
        mask = self._chunk_mask(chunk, sliding=layer.sliding)
        span = mask.shape[1]  # less than is there where the chunk was narrowed to its end
        out = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            seen.keys[None, :, -span:],
            seen.values[None, :, -span:],
            attn_mask=mask,
            scale=self._scale,
            enable_gqa=True,
        )
        return out[0].transpose(0, 1)

    def _run_mask(self, run: Run, span: int) -> Tensor:
        """Return [n, 1, 1, span]: a row sees the places up to its position, or a whole ring."""
        if (run, span) not in self._masks:
            positions = self._batch.positions[run.rows]
            places = torch.arange(span, device=positions.device)
            self._masks[run, span] = self._additive(places <= positions[:, None])[:, None, None]
        return self._masks[run, span]

    def _chunk_mask(self, chunk: Chunk, *, sliding: bool) -> Tensor:
        """Return [T, S]: causal, and no further back than the window on sliding layers."""
        window = self._cache.window if sliding else chunk.stop
        if (chunk, window) not in self._masks:
            device = self._batch.positions.device
            first = first_visible(chunk, self._cache.window) if sliding else 0
            keys = torch.arange(first, chunk.stop, device=device)
            queries = torch.arange(chunk.start, chunk.stop, device=device)[:, None]
            visible = (keys <= queries) & (keys > queries - window)
            self._masks[chunk, window] = self._additive(visible)
        return self._masks[chunk, window]

    def _additive(self, visible: Tensor) -> Tensor:
        mask = torch.zeros(visible.shape, device=visible.device, dtype=self._dtype)
        return mask.masked_fill_(~visible, float("-inf"))


def attend_by_products(query: Tensor, seen: KeyValue, mask: Tensor, scale: float) -> Tensor:
    """Return [n, K, G, H]: what PyTorch's fused kernel gives, faster for one token a request.

    Args:
        query: [n, K, G, H], the G query heads of a KV head as its rows.
        seen: keys and values, [n, K, S, H] each.
        mask: [n, 1, 1, S], added to the scores.
        scale: of the scores.
    """
    shape = query.shape
    query, keys, values = (x.flatten(0, 1) for x in (query, seen.keys, seen.values))
    if len(query) == 1:  # a product alone is summed in another order than one of several
        query, keys, values = (x.expand(2, -1, -1) for x in (query, keys, values))
    scores = torch.bmm(keys, query.transpose(1, 2)).transpose(1, 2)  # [nK, G, S]
    scores = (scores * scale).view(-1, *shape[1:3], mask.shape[-1]) + mask
    weights = torch.softmax(scores, dim=-1).flatten(0, 1)
    return torch.bmm(weights, values)[: shape[0] * shape[1]].view(shape)
