"""The model's products on the card: `Linear`, the gated MLP, embeddings, in the kernels' form."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
import triton
from torch import Tensor

from g4eval.engines.gemma.kernels.launching import Launching
from g4eval.engines.gemma.kernels.programs import products as programs

NONE, GELU, GATED = programs.NONE.value, programs.GELU.value, programs.GATED.value
PLAIN, SCALED, GROUPED = programs.PLAIN.value, programs.SCALED.value, programs.GROUPED.value
# Where `grouped_sums` looks for nibbles, and the exponent of 1.
NIBBLES = (0x780000, 0x78000, 0x3F800000)
GROUP = 32  # values that share a scale in GROUPED weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight as the programs read it; programs/products.py says what the formats are."""

    format: int
    values: Tensor  # [out, in], or int32 words [out, in / 8]
    scale: Tensor  # [out] float32; pairs [out, in / 32] int32; any tensor if PLAIN
    inputs: int

    @classmethod
    def plain(cls, values: Tensor) -> "Weight":
        """A weight in floating point [out, in]."""
        return cls(format=PLAIN, values=values, scale=values, inputs=values.shape[1])

    @classmethod
    def scaled(cls, values: Tensor, scale: Tensor) -> "Weight":
        """FP8 values [out, in] with one scale a row [out, 1]."""
        scale = scale.reshape(-1).float().contiguous()
        return cls(format=SCALED, values=values, scale=scale, inputs=values.shape[1])

    @classmethod
    def grouped(cls, values: Tensor, scale: Tensor, low: Tensor) -> "Weight":
        """Numbers 0 to 15 [out, in] of any integer type: value = scale * number - low.

        Args:
            values: [out, in], `in` a multiple of 32.
            scale: [out, in / 32].
            low: [out, in / 32].
        """
        outputs, inputs = values.shape
        # [out, group, nibble j, word c] -> a word holds its j's, lowest first
        parts = values.to(torch.int64).reshape(outputs, inputs // GROUP, 8, 4)
        shifts = torch.arange(0, 32, 4, device=values.device)[:, None]
        words = (parts << shifts).sum(dim=2).reshape(outputs, inputs // 8)
        words = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
        return cls(
            format=GROUPED,
            values=words,
            scale=torch.stack((scale.half(), low.half()), dim=-1).view(torch.int32)[..., 0],
            inputs=inputs,
        )

    @property
    def outputs(self) -> int:
        """Rows."""
        return self.values.shape[0]

    @property
    def nbytes(self) -> int:
        """What a product reads of it."""
        return self.values.nbytes + (0 if self.format == PLAIN else self.scale.nbytes)


@dataclass(frozen=True, slots=True)
class RowTiles:
    """The shape of `row_product`'s programs."""

    block_n: int
    block_k: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Tiles:
    """The shape of `tile_product`'s programs."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


def row_tiles(weight: Weight) -> RowTiles:
    """Return the shape that reads this weight fastest, by measurement on one H200.

    A large weight streams through shared memory; a small one is over before that gets going, so its
    first tile is read before the wait for x instead.
    """
    if weight.format == GROUPED:
        # One warp a program where there are programs enough, else several on longer rows.
        warps = 1 if weight.outputs >= 16_000 else 4 if weight.inputs >= 8192 else 2
        rows = 16 if weight.inputs > 16_384 else 8
        return RowTiles(block_n=rows, block_k=1024 * warps, warps=warps, stages=1)
    if weight.format == SCALED:
        return RowTiles(block_n=16, block_k=512, warps=4, stages=3)
    if weight.nbytes >= 150e6:
        return RowTiles(block_n=4, block_k=1024, warps=4, stages=4)
    return RowTiles(block_n=8, block_k=512 if weight.outputs > 4096 else 1024, warps=4, stages=0)


class CudaLinear:
    """`x @ weight.T` for a weight on the card."""

    def __init__(self, weight: Weight, launching: Launching) -> None:
        self.weight = weight
        self.out_features = weight.outputs
        self._launching = launching

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in]."""
        return self.product(x)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the GELU of the product."""
        return self.product(x, kind=GELU)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`."""
        return self.product(x, factor=factor)

    def product(
        self,
        x: Tensor,
        *,
        kind: int = NONE,
        factor: Tensor | None = None,
        cap: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return kind(x @ weight.T) * factor.

        Args:
            x: [R, in], contiguous.
            kind: NONE, GELU, or GATED: the weight's upper half gates its lower half.
            factor: [R, out]; each row in one piece.
            cap: of the soft cap, behind everything but the factor.
            dtype: of what comes back; None: of x.
        """
        rows, outputs = len(x), self.out_features // (2 if kind == GATED else 1)
        plain = self.weight.format == PLAIN
        if rows > 1 and plain and not self._launching.batch_invariant:
            return self._library(x, kind, factor, cap, dtype)
        out = torch.empty((rows, outputs), dtype=dtype or x.dtype, device=x.device)
        if rows == 1 and not self._launching.batch_invariant:
            self._row(x, out, kind, factor, cap)
        else:
            self._tiles(x, out, kind, factor, cap)
        return out

    def _row(
        self, x: Tensor, out: Tensor, kind: int, factor: Tensor | None, cap: float | None
    ) -> None:
        weight, tiles = self.weight, row_tiles(self.weight)
        programs.row_product[(triton.cdiv(out.shape[1], tiles.block_n),)](
            x,
            weight.values,
            weight.scale,
            x if factor is None else factor,
            out,
            out.shape[1],
            cap or 1.0,
            *NIBBLES,
            K=weight.inputs,
            BLOCK_N=tiles.block_n,
            BLOCK_K=tiles.block_k,
            FORMAT=weight.format,
            KIND=kind,
            HAS_FACTOR=factor is not None,
            HAS_CAP=cap is not None,
            STAGES=tiles.stages,
            **self._launching.options(num_warps=tiles.warps),
        )

    def _tiles(
        self, x: Tensor, out: Tensor, kind: int, factor: Tensor | None, cap: float | None
    ) -> None:
        weight, (rows, outputs) = self.weight, out.shape
        tiles = self._tile_shape(x, outputs)
        programs.tile_product[
            (triton.cdiv(rows, tiles.block_m) * triton.cdiv(outputs, tiles.block_n),)
        ](
            x,
            weight.values,
            weight.scale,
            x if factor is None else factor,
            out,
            rows,
            outputs,
            cap or 1.0,
            0 if factor is None else factor.stride(0),
            K=weight.inputs,
            BLOCK_M=tiles.block_m,
            BLOCK_N=tiles.block_n,
            BLOCK_K=tiles.block_k,
            FORMAT=weight.format,
            KIND=kind,
            HAS_FACTOR=factor is not None,
            HAS_CAP=cap is not None,
            PRECISION="ieee",  # never TF32
            STAGES=tiles.stages,
            **self._launching.options(num_warps=tiles.warps),
        )

    def _tile_shape(self, x: Tensor, outputs: int) -> Tiles:
        """Return the shape of `tile_product`'s programs.

        Where the batch may not matter, every shape sums a row by the same instructions, 16 values
        at a time: with 64 rows a tile or more, and the values of a step in order.
        """
        rows, grouped = len(x), self.weight.format == GROUPED
        block_m = 64 if self._launching.batch_invariant or rows > 32 else 32 if rows > 16 else 16
        if x.dtype is torch.float32:
            return Tiles(block_m, 32, 128 if grouped else 32, warps=4, stages=1 if grouped else 3)
        if grouped:
            return Tiles(block_m, 64, 128, warps=4, stages=1)
        if rows > 256:
            return Tiles(128, 128, 64, warps=8, stages=3)
        return Tiles(block_m, 32 if outputs <= 8192 else 64, 128, warps=4, stages=4)

    def _library(
        self,
        x: Tensor,
        kind: int,
        factor: Tensor | None,
        cap: float | None,
        dtype: torch.dtype | None,
    ) -> Tensor:
        """The library's product: several rows have use for its tiles, and order is free."""
        out = F.linear(x, self.weight.values)
        if kind == GATED:
            both, (rows, width) = out, (len(x), self.out_features // 2)
            out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
            programs.gate[(rows, triton.cdiv(width, 1024))](
                both, out, width, BLOCK=1024, **self._launching.options(num_warps=4)
            )
        elif kind == GELU:
            out = F.gelu(out, approximate="tanh")
        if cap is not None:
            out = torch.tanh_(out.float().div_(cap)).mul_(cap)
        if factor is not None:
            out = out * factor
        return out.to(dtype or x.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaMlp:
    """`down(gelu_tanh(gate(x)) * up(x))`, gate and up as one product."""

    gate_up: CudaLinear  # [2 F, D], gate first
    down: CudaLinear  # [D, F]

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, D] for x [R, D]."""
        return self.down(self.gate_up.product(x, kind=GATED))


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaEmbedding:
    """Rows of a table times a scale that is a plain number: nothing is copied to the card."""

    table: Tensor  # [V, D]
    scale: float
    dtype: torch.dtype  # of activations

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Return [R, D] for ids [R]; the scale is rounded to the activations' dtype first."""
        scale = torch.tensor(self.scale, dtype=self.dtype).item()
        return F.embedding(token_ids, self.table).to(self.dtype) * scale


class CudaHead:
    """Logits of hidden rows over the vocabulary."""

    def __init__(self, product: CudaLinear, softcap: float | None) -> None:
        self.product = product
        self._softcap = softcap

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits [R, V] in float32."""
        return self.product.product(hidden, cap=self._softcap, dtype=torch.float32)
