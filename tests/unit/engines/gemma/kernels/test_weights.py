"""Weights in the programs' forms: no value changes on the way."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch isn't installed: extra gemma")
pytest.importorskip("triton", reason="Triton isn't installed; it is on Linux with a CUDA PyTorch")
gguf = pytest.importorskip("gguf", reason="the gguf package isn't installed: extra gemma")

from g4eval.engines.gemma.kernels.launching import Launching  # noqa: E402  after the skips
from g4eval.engines.gemma.kernels.parts import grouped_from_q4_k, weight_of  # noqa: E402
from g4eval.engines.gemma.kernels.products import (  # noqa: E402
    GATED,
    GELU,
    GROUPED,
    PLAIN,
    CudaLinear,
    Weight,
)
from g4eval.engines.gemma.linear import Fp8Linear, Int4Linear  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def values_of(weight):
    """What the programs multiply by, read off products with unit vectors."""
    product = CudaLinear(weight, Launching(batch_invariant=True))
    return product(torch.eye(weight.inputs, device=DEVICE)).T.double().cpu()


def relative(found, expected):
    return ((found.double().cpu() - expected).norm() / expected.norm()).item()


def test_q4_k_blocks_keep_their_values():
    made = np.random.default_rng(0)
    blocks = made.integers(0, 256, (6, 144), dtype=np.uint8)
    halves = made.uniform(0.001, 0.02, (6, 2)).astype(np.float16)
    blocks[:, :4] = halves.view(np.uint8).reshape(6, 4)
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_K)
    weight = grouped_from_q4_k(torch.from_numpy(blocks).to(DEVICE))
    assert weight.format == GROUPED
    assert weight.values.nbytes == expected.size // 2
    # A scale times a 6-bit number needs 17 bits and gets 11.
    assert relative(values_of(weight), torch.from_numpy(expected).double()) < 3e-4


def test_packed_int4_keeps_its_values_whatever_the_width_of_its_groups():
    made = torch.Generator().manual_seed(0)
    for group in (32, 64, 128):
        packed = torch.randint(-(2**31), 2**31, (5, 16), generator=made).to(torch.int32)
        scale = torch.rand(5, 128 // group, generator=made).bfloat16()
        product = Int4Linear(packed.to(DEVICE), scale.to(DEVICE), 128)
        expected = (product.numbers().cpu() - 8) * scale.double().repeat_interleave(group, dim=1)
        assert relative(values_of(weight_of(product)), expected) < 1e-6


def test_groups_of_another_size_are_widened():
    packed = torch.zeros(5, 6, dtype=torch.int32, device=DEVICE)
    weight = weight_of(Int4Linear(packed, torch.ones(5, 1, device=DEVICE), 48))
    assert weight.format == PLAIN
    assert weight.values.unique().tolist() == [-8.0]


def weights_of_each_kind():
    made = torch.Generator().manual_seed(1)
    plain = torch.randn(70, 96, generator=made)
    numbers = torch.randint(0, 16, (70, 96), generator=made)
    scale, low = torch.rand(2, 70, 3, generator=made).half()
    grouped = numbers * scale.double().repeat_interleave(32, 1)
    grouped -= low.double().repeat_interleave(32, 1)
    eights, rows = plain.to(torch.float8_e4m3fn), torch.rand(70, 1, generator=made)
    scaled = weight_of(Fp8Linear(eights.to(DEVICE), rows.to(DEVICE)))
    return {
        "plain": (Weight.plain(plain.to(DEVICE)), plain.double()),
        "grouped": (Weight.grouped(*(t.to(DEVICE) for t in (numbers, scale, low))), grouped),
        "scaled": (scaled, eights.double() * rows),
    }


@pytest.mark.parametrize("kind", ["plain", "grouped", "scaled"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("invariant", [False, True])
def test_products_of_packed_weights_are_those_of_their_values(kind, rows, invariant):
    weight, values = weights_of_each_kind()[kind]
    product = CudaLinear(weight, Launching(batch_invariant=invariant))
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(2))
    factor = torch.randn(rows, 70, generator=torch.Generator().manual_seed(3))
    exact = x.double() @ values.T
    gelu = torch.nn.functional.gelu(exact, approximate="tanh")
    x, on_card = x.to(DEVICE), factor.to(DEVICE)
    assert relative(product(x), exact) < 5e-6
    assert relative(product.times(x, on_card), exact * factor) < 5e-6
    assert relative(product.product(x, kind=GELU, cap=3.0), 3 * (gelu / 3).tanh()) < 5e-6
    gate, up = gelu[:, :35], exact[:, 35:]
    assert relative(product.product(x, kind=GATED), gate * up) < 5e-6
