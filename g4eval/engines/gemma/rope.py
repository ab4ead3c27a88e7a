"""Rotary positions, half-split layout: pair i is (x[i], x[i + H/2])."""

from dataclasses import dataclass

import torch
from torch import Tensor

from g4eval.engines.gemma.config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Return the angle a position adds to each of the H/2 pairs, float32.

    Proportional positions rotate only the first `rotated_share` of the pairs, with exponents over
    the whole head size; the rest keep angle 0 and pass unchanged.

    Source: `_compute_proportional_rope_parameters`, modeling_rope_utils.py, transformers.
    """
    rotated = int(rope.rotated_share * head_dim // 2)
    exponents = torch.arange(0, 2 * rotated, 2, dtype=torch.float32) / head_dim
    frequencies = torch.zeros(head_dim // 2)
    frequencies[:rotated] = 1.0 / rope.theta**exponents
    return frequencies / rope.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Cosines and sines of one batch of positions."""

    cos: Tensor  # [R, 1, H]
    sin: Tensor  # [R, 1, H / 2]

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [R, heads, H] rotated to its positions."""
        left, right = x.chunk(2, dim=-1)
        rotated = x * self.cos
        new_left, new_right = rotated.chunk(2, dim=-1)
        new_left.addcmul_(right, self.sin, value=-1)
        new_right.addcmul_(left, self.sin)
        return rotated


def rotation(frequencies: Tensor, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """Return the rotation for positions [R]; angles in float32, then cast."""
    angles = positions.float()[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return Rotation(
        cos=torch.cat((cos, cos), dim=-1)[:, None].to(dtype),
        sin=sin[:, None].to(dtype),
    )
