"""The mixture of experts of Gemma 4 26B-A4B: a router and its experts.

Source: `Gemma4TextRouter` and `Gemma4TextExperts`, modeling_gemma4.py, transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from g4eval.engines.gemma.layers import GatedMlp, rms_norm
from g4eval.engines.gemma.linear import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """Picks experts a token and weighs them."""

    proj: Linear  # [E, D]
    scale: Tensor  # [D]
    per_expert_scale: Tensor  # [E]
    active: int
    eps: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [R, active] and expert indices [R, active] for the residual x [R, D].

        The softmax runs over all experts, in float32; the chosen ones are renormalised to sum 1
        and only then scaled, so the weights need not sum to 1.
        """
        normed = rms_norm(x, None, self.eps) * self.scale * x.shape[-1] ** -0.5
        shares = torch.softmax(self.proj(normed), dim=-1, dtype=torch.float32)
        weights, chosen = shares.topk(self.active, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights * self.per_expert_scale[chosen], chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Small gated MLPs, each applied to the tokens that chose it."""

    mlps: Sequence[GatedMlp]

    def __call__(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Return [R, D]: for each row of x [R, D] the weighted sum over its chosen experts.

        Experts go in ascending order, so a row's sum is formed in one order whatever the batch.
        """
        out = torch.zeros_like(x)
        for expert in torch.unique(chosen).tolist():
            rows, place = torch.where(chosen == expert)
            weighted = self.mlps[expert](x[rows]) * weights[rows, place, None].to(x.dtype)
            out.index_add_(0, rows, weighted)
        return out
