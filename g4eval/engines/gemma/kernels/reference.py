"""The kernels of every device: today's arithmetic, exact, and what the others are compared with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from g4eval.engines.gemma.attention import Attention
from g4eval.engines.gemma.batch import Batch
from g4eval.engines.gemma.cache import KeyValue, KVCache
from g4eval.engines.gemma.config import LayerConfig
from g4eval.engines.gemma.kernels.base import Draws
from g4eval.engines.gemma.layers import rms_norm
from g4eval.engines.gemma.linear import Linear
from g4eval.engines.gemma.model import Block, Gemma
from g4eval.engines.gemma.rope import Rotation, rotation


class ReferenceRows:
    """The rows of one pass over a cache of slots."""

    def __init__(self, model: Gemma, batch: Batch, cache: KVCache) -> None:
        self._model = model
        self._attention = Attention(batch, cache, model.config.attention_scale, model.dtype)
        self._rotate = self._rotations(batch.positions)

    def _rotations(self, positions: Tensor) -> tuple[Rotation, Rotation]:
        """Return how full layers and sliding ones rotate rows at these positions."""
        model = self._model
        return (
            rotation(model.frequencies_full, positions, model.dtype),
            rotation(model.frequencies_sliding, positions, model.dtype),
        )

    def heads(self, block: Block, projected: Tensor) -> Tensor:
        """Return queries [R, N, H]; keys and values go to the cache where the layer owns them."""
        config, layer = self._model.config, block.layer
        heads = projected.view(len(projected), -1, layer.head_dim)
        normed, queries = len(block.qk_norm), config.query_heads
        rotated = self._rotate[layer.sliding](
            rms_norm(heads[:, :normed], block.qk_norm, config.rms_eps)
        )
        query, key = rotated[:, :queries], rotated[:, queries:]
        if layer.kv_donor is None:
            value = heads[:, queries:normed] if layer.value_is_key else heads[:, normed:]
            if config.generation != 3:
                value = rms_norm(value, None, config.rms_eps)
            self._attention.store(layer, KeyValue(key, value))
        return query

    def attend(self, layer: LayerConfig, query: Tensor) -> Tensor:
        """Attend from every row [R, N, H] to what it may see; return [R, N * H]."""
        return self._attention(layer, query)

    def narrow(self, batch: Batch) -> None:
        """Go on with fewer rows: those of `Batch.ends`."""
        self._attention.narrow(batch)
        self._rotate = self._rotations(batch.positions)


@dataclass(frozen=True, slots=True)
class ReferenceKernels:
    """PyTorch's own operations, one after another."""

    name: str = "reference"
    most_candidates: int = 1 << 30

    def prepare(self, model: Gemma, batch: Batch, cache: KVCache) -> ReferenceRows:
        """Return the batch's rows, ready to be run through the model's blocks."""
        return ReferenceRows(model, batch, cache)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x [R, D] over its root mean square, times the weight [D]."""
        return rms_norm(x, weight, eps)

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
        total = rms_norm(branch, weight, eps).add_(x)
        if scalar is not None:
            total = total * scalar
        return total, *(rms_norm(total, norm, eps) for norm in following)

    def gelu_times(self, product: Linear, x: Tensor, factor: Tensor) -> Tensor:
        """Return the GELU of a product of x [R, in] times `factor` [R, out]."""
        return product.gelu(x) * factor

    def sum_of_norms(
        self, left: Tensor, left_weight: Tensor, right: Tensor, right_weight: Tensor, eps: float
    ) -> Tensor:
        """Return norm(left) + norm(right), [R, D]."""
        return rms_norm(left, left_weight, eps) + rms_norm(right, right_weight, eps)

    def sample(self, logits: Tensor, draws: Draws) -> Tensor:
        """Return each row's next token [R], as `sampling.Sampler` draws it from these logits."""
        return torch.stack([_draw(row, draws, i) for i, row in enumerate(logits)])


def _draw(logits: Tensor, draws: Draws, row: int) -> Tensor:
    """Draw from one row of logits [V]; of equal ones the first counts as the more likely."""
    temperature = draws.temperature[row]
    if temperature == 0:
        return logits.argmax()
    ordered = logits.sort(descending=True, stable=True)
    count = int(draws.top_k[row])
    shares = torch.softmax(ordered.values[:count].double() / temperature, dim=0)
    before = torch.cumsum(shares, 0) - shares
    kept = (before < draws.top_p[row]) & (shares >= draws.min_p[row] * shares[0])
    kept[0] = True
    shares = torch.where(kept, shares, 0.0)
    reached = torch.cumsum(shares, 0)
    chosen = torch.searchsorted(reached, draws.uniform[row] * reached[-1], right=True)
    return ordered.indices[chosen.clamp(max=torch.count_nonzero(shares) - 1)]
