"""Kernels for CUDA: Triton programs over a paged cache."""

from dataclasses import dataclass, field

import torch
import triton
from torch import Tensor

from g4eval.engines.gemma.batch import Batch
from g4eval.engines.gemma.config import LayerConfig
from g4eval.engines.gemma.kernels import sampling
from g4eval.engines.gemma.kernels.base import Draws
from g4eval.engines.gemma.kernels.launching import Launching, block_of
from g4eval.engines.gemma.kernels.paged_cache import PagedCache
from g4eval.engines.gemma.kernels.products import GELU, CudaLinear
from g4eval.engines.gemma.kernels.programs import attention, norms
from g4eval.engines.gemma.linear import Linear
from g4eval.engines.gemma.model import Block, Gemma

FIXED_SPLIT = 512  # keys a stretch where the batch may not matter
SPLITS = (64, 128, 256, 512, 1024)
PROGRAMS = 264  # two for each multiprocessor of an H100 or H200


class CudaRows:
    """The rows of one pass over a paged cache: decode rows first, then chunks."""

    def __init__(self, model: Gemma, batch: Batch, cache: PagedCache, launching: Launching) -> None:
        self._model = model
        self._cache = cache
        self._launching = launching
        self._take(batch)

    def _take(self, batch: Batch) -> None:
        device = batch.positions.device
        self._decoded = len(batch.decode_slots)
        self._positions = batch.positions.to(torch.int32)
        self._longest = max((run.span for run in batch.runs), default=1)
        self._tallest = max((chunk.length for chunk in batch.chunks), default=0)
        slots = batch.decode_slots.to(torch.int32)
        self._chunks = None
        if batch.chunks:
            values = [(c.row, c.length, c.start, c.slot) for c in batch.chunks]
            self._chunks = torch.tensor(values, dtype=torch.int32).to(device, non_blocking=True)
            chunk_slots = [slot for _, length, _, slot in values for _ in range(length)]
            own = torch.tensor(chunk_slots, dtype=torch.int32).to(device, non_blocking=True)
            slots = torch.cat((slots, own))
        self._slots = slots

    def narrow(self, batch: Batch) -> None:
        """Go on with fewer rows: those of `Batch.ends`."""
        self._take(batch)

    def heads(self, block: Block, projected: Tensor) -> Tensor:
        """Return queries [R, N, H]; keys and values go to the cache where the layer owns them."""
        model, layer = self._model, block.layer
        queries, owns = model.config.query_heads, layer.kv_donor is None
        kv_heads = layer.kv_heads if owns else 0
        values = 0 if layer.value_is_key else kv_heads
        keys_at, values_at = self._cache.layer(layer)
        rows = len(projected)
        query = torch.empty(
            (rows, queries, layer.head_dim), dtype=projected.dtype, device=projected.device
        )
        table = self._cache.tables[layer.sliding]
        attention.heads[(rows, queries + kv_heads + values)](
            projected,
            block.qk_norm,
            model.frequencies_sliding if layer.sliding else model.frequencies_full,
            self._positions,
            self._slots,
            table,
            query,
            keys_at,
            values_at,
            model.config.rms_eps,
            table.shape[1],
            QUERIES=queries,
            KEYS=kv_heads,
            VALUES=values,
            VALUE_IS_KEY=layer.value_is_key and owns,
            NORM_VALUES=model.config.generation != 3,
            H=layer.head_dim,
            PAGE=self._cache.page,
            **self._launching.options(num_warps=1 if layer.head_dim < 512 else 2),
        )
        return query

    def attend(self, layer: LayerConfig, query: Tensor) -> Tensor:
        """Attend from every row [R, N, H] to what it may see; return [R, N * H]."""
        out = torch.empty_like(query)
        if self._decoded:
            self._decode(layer, query, out)
        if self._chunks is not None:
            self._prefill(layer, query, out)
        return out.view(len(query), -1)

    def _decode(self, layer: LayerConfig, query: Tensor, out: Tensor) -> None:
        keys, values = self._cache.layer(layer)
        table, window = self._cache.tables[layer.sliding], self._window(layer)
        rows, (heads, size) = self._decoded, query.shape[1:]
        split, splits = self._splits(layer, rows)
        part = torch.empty((rows, heads, splits, size), dtype=torch.float32, device=query.device)
        stats = torch.empty((rows, heads, splits, 2), dtype=torch.float32, device=query.device)
        whole = splits == 1
        attention.attend_decoding[(rows, layer.kv_heads, splits)](
            query,
            keys,
            values,
            self._positions,
            self._slots,
            table,
            out,
            part,
            stats,
            self._model.config.attention_scale,
            table.shape[1],
            window,
            splits,
            G=heads // layer.kv_heads,
            H=size,
            PAGE=self._cache.page,
            SPLIT=split,
            BLOCK_M=block_of(heads // layer.kv_heads),
            BLOCK_S=self._block(query),
            WHOLE=whole,
            PRECISION="ieee",
            STAGES=2,
            **self._launching.options(num_warps=4),
        )
        if not whole:
            attention.join_splits[(rows, heads)](
                part, stats, self._positions, out, window, splits,
                H=size, SPLIT=split, **self._launching.options(num_warps=4),
            )  # fmt: skip

    def _splits(self, layer: LayerConfig, rows: int) -> tuple[int, int]:
        """Return how many keys a stretch has, and how many stretches the longest row may need."""
        window = self._window(layer)
        seen = min(self._longest, window or self._longest)

        def count(split: int) -> int:
            return -(-seen // split) + (1 if window and seen == window else 0)

        if self._launching.batch_invariant:
            return FIXED_SPLIT, max(2, count(FIXED_SPLIT))
        if rows * layer.kv_heads >= PROGRAMS:
            return SPLITS[-1], 1
        for split in SPLITS:
            if rows * layer.kv_heads * count(split) <= 2 * PROGRAMS:
                return split, count(split)
        return SPLITS[-1], count(SPLITS[-1])

    def _prefill(self, layer: LayerConfig, query: Tensor, out: Tensor) -> None:
        assert self._chunks is not None
        keys, values = self._cache.layer(layer)
        table = self._cache.tables[layer.sliding]
        heads, size = query.shape[1:]
        block_m = 16 if query.dtype is torch.float32 else 64
        grid = (triton.cdiv(self._tallest, block_m), heads, len(self._chunks))
        attention.attend_chunks[grid](
            query,
            keys,
            values,
            self._chunks,
            table,
            out,
            self._model.config.attention_scale,
            table.shape[1],
            self._window(layer),
            N=heads,
            G=heads // layer.kv_heads,
            H=size,
            PAGE=self._cache.page,
            BLOCK_M=block_m,
            BLOCK_S=self._block(query),
            PRECISION="ieee",
            STAGES=2,
            **self._launching.options(num_warps=8),
        )

    def _window(self, layer: LayerConfig) -> int:
        return self._cache.window if layer.sliding else 0

    def _block(self, query: Tensor) -> int:
        """Return how many keys are taken at once: a divisor of a page, as shared memory allows."""
        most = 16 if query.dtype is torch.float32 else 32 if query.shape[2] > 256 else 64
        return min(most, self._cache.page)


@dataclass(frozen=True, slots=True)
class CudaKernels:
    """Triton programs; `convert` (parts.py) makes a model's parts for them."""

    launching: Launching = field(default_factory=Launching)
    name: str = "cuda"
    most_candidates: int = sampling.MOST_CANDIDATES

    def prepare(self, model: Gemma, batch: Batch, cache: PagedCache) -> CudaRows:
        """Return the batch's rows, ready to be run through the model's blocks."""
        return CudaRows(model, batch, cache, self.launching)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x [R, D] over its root mean square, times the weight [D]."""
        out = torch.empty_like(x)
        self._add_norm(x, None, weight, x, following=((weight, out),), scalar=None, eps=eps)
        return out

    def add_norm(
        self,
        x: Tensor,
        branch: Tensor,
        weight: Tensor,
        *,
        scalar: Tensor | None,
        following: tuple[Tensor, ...],
        eps: float,
    ) -> tuple[Tensor, ...]:
        """Return the sum of x and the normed branch, scaled, then the norms that follow."""
        total = torch.empty_like(x)
        pairs = tuple((norm, torch.empty_like(x)) for norm in following)
        self._add_norm(x, branch, weight, total, following=pairs, scalar=scalar, eps=eps)
        return total, *(out for _, out in pairs)

    def _add_norm(
        self,
        x: Tensor,
        branch: Tensor | None,
        weight: Tensor,
        total: Tensor,
        *,
        following: tuple[tuple[Tensor, Tensor], ...],
        scalar: Tensor | None,
        eps: float,
    ) -> None:
        """Write the sum to `total`, and to each second of `following` its norm by the first."""
        rows, width = x.shape
        (first, first_out), (second, second_out) = (*following, *[(weight, total)] * 2)[:2]
        norms.add_norm[(rows,)](
            x, x if branch is None else branch, weight, x if scalar is None else scalar,
            first, second, total, first_out, second_out, width, eps,
            HAS_BRANCH=branch is not None, HAS_SCALAR=scalar is not None, NEXT=len(following),
            BLOCK=block_of(width), **self.launching.options(num_warps=_norm_warps(width)),
        )  # fmt: skip

    def gelu_times(self, product: Linear, x: Tensor, factor: Tensor) -> Tensor:
        """Return the GELU of a product of x [R, in] times `factor` [R, out]."""
        assert isinstance(product, CudaLinear)
        return product.product(x, kind=GELU, factor=factor)

    def sum_of_norms(
        self, left: Tensor, left_weight: Tensor, right: Tensor, right_weight: Tensor, eps: float
    ) -> Tensor:
        """Return norm(left) + norm(right), [R, D]."""
        out = torch.empty_like(left)
        rows, width = left.shape
        norms.sum_of_norms[(rows,)](
            left, left_weight, right, right_weight, out, width, eps,
            BLOCK=block_of(width), **self.launching.options(num_warps=_norm_warps(width)),
        )  # fmt: skip
        return out

    def sample(self, logits: Tensor, draws: Draws) -> Tensor:
        """Return each row's next token [R] for logits [R, V] in float32."""
        return sampling.sample(logits, draws, self.launching)


def _norm_warps(width: int) -> int:
    """Return the warps for a row: one row is all there is to share among them when decoding."""
    return 16 if width > 2048 else 8 if width > 512 else 1
