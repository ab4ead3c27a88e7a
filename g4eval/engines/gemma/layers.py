"""The small parts of a block: norms, the gated MLP, scaled embeddings."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import Tensor

from g4eval.engines.gemma.linear import Linear


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Normalise the last dimension in float32, scale it in float32, return the dtype of `x`.

    Args:
        x: [..., D].
        weight: [D] float32, the factor itself: Gemma 3's `1 + w` is formed at loading. None: 1.
        eps: added to the mean square, before the root.

    Returns:
        A tensor of its own, which the caller may change in place.
    """
    # Two passes over x where F.rms_norm makes five on CPU.
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    normed = x * size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    if weight is not None:
        normed.mul_(weight)
    return normed.to(x.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMlp:
    """`down(gelu_tanh(gate(x)) * up(x))`."""

    gate: Linear  # [F, D]
    up: Linear  # [F, D]
    down: Linear  # [D, F]

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, D] for x [R, D]."""
        return self.down(self.up.times(x, self.gate.gelu(x)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledEmbedding:
    """Rows of a table times a scale; the table keeps the checkpoint's dtype."""

    table: Tensor  # [V, D]
    scale: float
    dtype: torch.dtype  # of activations

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Return [R, D] for ids [R]; the scale is rounded to the activations' dtype first."""
        rows = F.embedding(token_ids, self.table).to(self.dtype)
        return rows * torch.tensor(self.scale, dtype=self.dtype, device=rows.device)
