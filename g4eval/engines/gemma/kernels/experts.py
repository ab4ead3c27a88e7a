"""The router and the experts on the card; no row waits for the host to count its choices."""

import torch
import triton
from torch import Tensor

from g4eval.engines.gemma.kernels.launching import Launching, block_of
from g4eval.engines.gemma.kernels.products import CudaLinear
from g4eval.engines.gemma.kernels.programs import experts as programs
from g4eval.engines.gemma.kernels.programs import norms

FEW_ROWS = 4  # so many rows read each of their experts by themselves
SCAN = 1024  # choices a program looks through at once


class CudaRouter:
    """Picks experts a token and weighs them.

    Args:
        proj: [E, D].
        scale: [D], of the normed residual.
        per_expert_scale: [E].
        active: experts a token, A.
        eps: of the norm.
    """

    def __init__(
        self,
        proj: CudaLinear,
        *,
        scale: Tensor,
        per_expert_scale: Tensor,
        active: int,
        eps: float,
        launching: Launching,
    ) -> None:
        self.proj = proj
        self._scale = scale.float() * scale.shape[0] ** -0.5
        self._per_expert_scale = per_expert_scale.float()
        self._active = active
        self._eps = eps
        self._launching = launching

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [R, A] in float32 and experts [R, A] for the residual x [R, D]."""
        rows, width = x.shape
        normed = torch.empty_like(x)
        norms.add_norm[(rows,)](
            x, x, x, x, self._scale, self._scale, x, normed, normed, width, self._eps,
            HAS_BRANCH=False, HAS_SCALAR=False, NEXT=1, BLOCK=block_of(width),
            **self._launching.options(num_warps=8),
        )  # fmt: skip
        logits = self.proj.product(normed, dtype=torch.float32)
        weights = torch.empty((rows, self._active), dtype=torch.float32, device=x.device)
        chosen = torch.empty((rows, self._active), dtype=torch.int32, device=x.device)
        experts = logits.shape[1]
        programs.route[(rows,)](
            logits, self._per_expert_scale, weights, chosen,
            EXPERTS=experts, A=self._active, BLOCK=block_of(experts),
            **self._launching.options(num_warps=1),
        )  # fmt: skip
        return weights, chosen


class CudaExperts:
    """Small gated MLPs in two stacked tensors.

    Args:
        gate_up: [E, 2 F, D], gate first.
        down: [E, D, F].
    """

    def __init__(self, gate_up: Tensor, down: Tensor, launching: Launching) -> None:
        self.gate_up = gate_up
        self.down = down
        self._launching = launching

    def __call__(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Return [R, D]: for each row of x [R, D] the weighted sum over its chosen experts."""
        few = len(x) <= FEW_ROWS and not self._launching.batch_invariant
        return (self._choice_by_choice if few else self._tile_by_tile)(x, weights, chosen)

    def _choice_by_choice(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        (rows, width), active, inner = x.shape, chosen.shape[1], self.down.shape[2]
        between = torch.empty((rows * active, inner), dtype=x.dtype, device=x.device)
        block_n = 8
        programs.choice_gate_up[(triton.cdiv(inner, block_n), rows * active)](
            x, self.gate_up, chosen, between,
            K=width, F=inner, A=active, BLOCK_N=block_n, BLOCK_K=512, STAGES=0,
            **self._launching.options(num_warps=4),
        )  # fmt: skip
        out = torch.empty_like(x)
        programs.choices_down[(triton.cdiv(width, block_n), rows)](
            between, self.down, chosen, weights, out, width,
            F=inner, A=active, BLOCK_N=block_n, BLOCK_K=256, STAGES=0,
            **self._launching.options(num_warps=4),
        )  # fmt: skip
        return out

    def _tile_by_tile(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        (rows, width), active, inner = x.shape, chosen.shape[1], self.down.shape[2]
        tile = 16 if rows <= 256 and not self._launching.batch_invariant else 64
        order, tile_expert = self._sorted(chosen, tile)
        choices = rows * active
        between = torch.empty((choices, inner), dtype=x.dtype, device=x.device)
        self._product(x, self.gate_up, (order, tile_expert), weights, between)
        each = torch.empty((choices, width), dtype=x.dtype, device=x.device)
        self._product(between, self.down, (order, tile_expert), weights, each)
        out = torch.empty_like(x)
        programs.sum_choices[(rows, triton.cdiv(width, 1024))](
            each, out, width, A=active, BLOCK=1024, **self._launching.options(num_warps=4)
        )
        return out

    def _sorted(self, chosen: Tensor, tile: int) -> tuple[Tensor, Tensor]:
        """Return choices in tiles of one expert each, [tiles * tile], and each tile's expert."""
        choices, experts = chosen.numel(), len(self.down)
        tiles = triton.cdiv(choices, tile) + min(experts, choices)
        counts = torch.empty(experts, dtype=torch.int32, device=chosen.device)
        order = torch.empty(tiles * tile, dtype=torch.int32, device=chosen.device)
        tile_expert = torch.empty(tiles, dtype=torch.int32, device=chosen.device)
        options = self._launching.options(num_warps=4)
        programs.count_choices[(experts,)](chosen, counts, choices, BLOCK=SCAN, **options)
        programs.sort_choices[(experts,)](
            chosen, counts, order, tile_expert, choices, tiles,
            EXPERTS=experts, EXPERT_BLOCK=block_of(experts), TILE=tile, BLOCK=SCAN, **options,
        )  # fmt: skip
        return order, tile_expert

    def _product(
        self, x: Tensor, weight: Tensor, tiles: tuple[Tensor, Tensor], shares: Tensor, out: Tensor
    ) -> None:
        """Write each choice's product to its row of `out`: gated, or times its share."""
        order, tile_expert = tiles
        whole = x.dtype is torch.float32
        block_n, block_k = (32, 32) if whole else (64, 64)
        outputs = out.shape[1]
        programs.tile_experts[(triton.cdiv(outputs, block_n), len(tile_expert))](
            x, weight, order, tile_expert, shares, out, outputs,
            K=x.shape[1], A=shares.shape[1], IS_DOWN=weight is self.down,
            BLOCK_M=len(order) // len(tile_expert), BLOCK_N=block_n, BLOCK_K=block_k,
            PRECISION="ieee", STAGES=4, **self._launching.options(num_warps=4),
        )  # fmt: skip
