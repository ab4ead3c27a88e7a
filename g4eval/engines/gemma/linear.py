"""Matrix products with a fixed weight, in the form that suits device and checkpoint.

On CPU in float32 a row's result must not depend on how many rows travel with it, or a request's
tokens would depend on its neighbours. `PackedLinear` hands the product to oneDNN with the weight
laid out once; its kernels sum each row in one order from `MIN_ROWS` rows on. Where oneDNN is
missing, `BlockLinear` calls the plain product on blocks of one fixed shape. Neither is taken on
trust: `invariance.py` measures the loaded model.

The GELU belongs here for the same reason. PyTorch's own computes the last few values of each
thread's share with another tanh than the rest, so a value's bits depend on its place; oneDNN's,
fused behind the product, and `torch.tanh` treat every value alike.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import Tensor

# One row alone goes through a matrix-vector kernel, which sums in another order. Up to four rows
# take no longer than one: reading the weight is what takes the time.
MIN_ROWS = 4
BLOCK_ROWS = 64
# What torch.compile's CPU backend calls for weights that don't change; None in builds without it.
_reorder_weight: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_packed_product: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class Linear(Protocol):
    """`x @ weight.T`, never with a bias."""

    out_features: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in], in the dtype of x."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """Return the tanh-approximated GELU of the product, [R, out]."""
        ...

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`, value by value, [R, out]."""
        ...


class PlainLinear:
    """The framework's own product; used on accelerators and in reduced precision."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight  # [out, in]
        self.out_features = weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in]."""
        return F.linear(x, self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the GELU of the product."""
        return F.gelu(F.linear(x, self.weight), approximate="tanh")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`."""
        return F.linear(x, self.weight).mul_(factor)


class PackedLinear:
    """A weight on CPU in oneDNN's own layout: faster, and in float32 alike for every row count."""

    def __init__(self, weight: Tensor) -> None:
        self.out_features = weight.shape[0]
        self._packed = _reorder_weight(weight.contiguous(), BLOCK_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in]."""
        out: Tensor = _packed_product(_enough_rows(x), self._packed, None, "none", [], "")
        return out[: len(x)]

    def gelu(self, x: Tensor) -> Tensor:
        """Return the GELU of the product."""
        out: Tensor = _packed_product(_enough_rows(x), self._packed, None, "gelu", [], "tanh")
        return out[: len(x)]

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`."""
        rows, factors = _enough_rows(x), _enough_rows(factor)
        out: Tensor = _packed_product.binary(rows, factors, self._packed, None, "mul")
        return out[: len(x)]


def _enough_rows(x: Tensor) -> Tensor:
    missing = MIN_ROWS - len(x)
    return F.pad(x, (0, 0, 0, missing)) if missing > 0 else x.contiguous()


class BlockLinear:
    """A plain product over blocks of `BLOCK_ROWS` rows, the last filled up with zeros."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.out_features = weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in]."""
        rows = x.shape[0]
        x = F.pad(x, (0, 0, 0, -rows % BLOCK_ROWS))
        out = torch.cat([F.linear(block, self.weight) for block in torch.split(x, BLOCK_ROWS)])
        return out[:rows]

    def gelu(self, x: Tensor) -> Tensor:
        """Return the GELU of the product."""
        return _even_gelu(self(x))

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`."""
        return self(x).mul_(factor)


class Int4Linear:
    """compressed-tensors `pack-quantized`: signed 4-bit values, one scale a group of inputs.

    Eight values an int32, the lowest nibble first, each stored as value + 8. The weight stays
    packed; each call unpacks it, so memory is that of the checkpoint.

    Args:
        packed: [out, in / 8] int32.
        scale: [out, in / group].
        in_features: the number of inputs before padding to a whole int32.
    """

    def __init__(self, packed: Tensor, scale: Tensor, in_features: int) -> None:
        self.out_features = packed.shape[0]
        self.scale = scale
        self._packed = packed
        self._in_features = in_features

    def numbers(self) -> Tensor:
        """Return the stored numbers 0 to 15 [out, in], int32; 8 stands for 0."""
        shifts = torch.arange(0, 32, 4, device=self._packed.device, dtype=torch.int32)
        nibbles = (self._packed[..., None] >> shifts) & 0xF
        return nibbles.flatten(1)[:, : self._in_features]

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        values = self.numbers().sub_(8).to(self.scale.dtype)
        groups = self.scale.shape[1]
        grouped = values.reshape(len(values), groups, -1) * self.scale[..., None]
        weight: Tensor = grouped.flatten(1).to(dtype)
        return weight

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in]."""
        return _unpacked(self.unpack(x.dtype))(x)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the GELU of the product."""
        return _unpacked(self.unpack(x.dtype)).gelu(x)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`."""
        return self(x).mul_(factor)


class Fp8Linear:
    """An E4M3 weight with one scale an output row; unpacked at each call.

    Activations stay in their own dtype: a server that rounds them to FP8 as well adds an error
    that this engine, as the referee, doesn't.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self.out_features = weight.shape[0]
        self.weight = weight  # [out, in] float8_e4m3fn
        self.scale = scale  # [out, 1]

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return (self.weight.to(self.scale.dtype) * self.scale).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Return [R, out] for x [R, in]."""
        return _unpacked(self.unpack(x.dtype))(x)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the GELU of the product."""
        return _unpacked(self.unpack(x.dtype)).gelu(x)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """Return the product times `factor`."""
        return self(x).mul_(factor)


def _unpacked(weight: Tensor) -> Linear:
    exact = weight.device.type == "cpu" and weight.dtype is torch.float32
    return BlockLinear(weight) if exact else PlainLinear(weight)


def _even_gelu(z: Tensor) -> Tensor:
    """Return the tanh-approximated GELU by operations that treat every value alike."""
    inner = (z * z * z * 0.044715 + z) * (2.0 / math.pi) ** 0.5
    return z * 0.5 * (torch.tanh(inner) + 1.0)


def can_pack() -> bool:
    """Whether this build of PyTorch has oneDNN's packed product."""
    return _reorder_weight is not None and _packed_product is not None


def make_linear(weights: Sequence[Tensor]) -> Linear:
    """Return one product for weights [out_i, in] stacked along their outputs.

    The tensors may be freed afterwards: the packed form keeps its own copy only.
    """
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return PlainLinear(weight)
    return PackedLinear(weight) if can_pack() else BlockLinear(weight)
