"""How programs are launched: one record of what holds for every launch of a model."""

from dataclasses import dataclass
from typing import Any

import triton


@dataclass(frozen=True, slots=True, kw_only=True)
class Launching:
    """What every launch of a model's programs has in common."""

    batch_invariant: bool = False  # fixed tiles and stretches whatever the batch
    early: bool = True  # programs may start before their predecessor ends: Hopper and later

    def options(self, **others: Any) -> dict[str, Any]:
        """Return the keyword arguments of a launch."""
        if triton.knobs.runtime.interpret:
            return {"PDL": False, **{k: v for k, v in others.items() if not k.startswith("num_")}}
        return {"PDL": self.early, **({"launch_pdl": True} if self.early else {}), **others}


def block_of(width: int, least: int = 16) -> int:
    """Return the power of two that holds so many values."""
    return max(least, 1 << (width - 1).bit_length())
