"""Packed weights: unpacked by hand, and as a whole checkpoint."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  after the skips

from g4eval.engines.gemma.linear import Fp8Linear, Int4Linear  # noqa: E402
from g4eval.engines.gemma.quantized import Quantization  # noqa: E402
from g4eval.engines.gemma.scoring import score_tokens  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402

GROUP = 32


def test_nibbles_are_unpacked_lowest_first_and_scaled_by_group():
    # Values -8..-1 then 0..7, each stored plus 8: nibbles 0..7, then 8..15.
    packed = torch.tensor([[0x76543210, 0xFEDCBA98 - 2**32]], dtype=torch.int32)
    scale = torch.tensor([[0.5, 2.0]])
    weight = Int4Linear(packed, scale, 16).unpack(torch.float32)
    expected = [-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0, 2, 4, 6, 8, 10, 12, 14]
    assert weight.tolist() == [expected]


def test_fp8_rows_are_scaled_each_by_its_own():
    weight = torch.tensor([[1.0, -2.0], [0.5, 448.0]]).to(torch.float8_e4m3fn)
    linear = Fp8Linear(weight, torch.tensor([[2.0], [0.25]]))
    assert linear.unpack(torch.float32).tolist() == [[2.0, -4.0], [0.125, 112.0]]


def pack(values):
    """Pack signed 4-bit values [out, in], in a multiple of 8, into int32 [out, in / 8]."""
    shifted = (values + 8).to(torch.int64).reshape(len(values), -1, 8)
    words = sum(shifted[..., i] << (4 * i) for i in range(8))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def quantize_folder(folder, kind):
    """Quantize every projection of a checkpoint; write back the rounded weights it stands for."""
    tensors = load_file(folder / "model.safetensors")
    rounded = dict(tensors)
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        weight = tensors.pop(name)
        if kind == "int4":
            groups = weight.unflatten(1, (-1, GROUP))
            scale = groups.abs().amax(-1, keepdim=True) / 7
            values = (groups / scale).round().clamp(-8, 7)
            rounded[name] = (values * scale).flatten(1)
            tensors[name + "_packed"] = pack(values.flatten(1))
            tensors[name + "_scale"] = scale[..., 0].contiguous()
            tensors[name + "_shape"] = torch.tensor(weight.shape)
        else:
            scale = weight.abs().amax(1, keepdim=True) / 448
            small = (weight / scale).to(torch.float8_e4m3fn)
            rounded[name] = small.float() * scale
            tensors[name], tensors[name + "_scale"] = small, scale
    save_file(tensors, folder / "model.safetensors")
    return rounded


CONFIGS = {
    "int4": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "symmetric": True, "group_size": GROUP}}
        },
    },
    "fp8": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
    },
}


@pytest.mark.parametrize("kind", ["int4", "fp8"])
def test_a_quantized_checkpoint_scores_as_its_rounded_weights_do(
    kind, device, make_tiny, random_ids
):
    tiny = make_tiny("dense_k_is_v", shake=True)
    path = tiny.folder / "config.json"
    plain = path.read_text()
    rounded = quantize_folder(tiny.folder, kind)
    path.write_text(json.dumps(json.loads(plain) | {"quantization_config": CONFIGS[kind]}))
    ids = random_ids(20)
    quantized = score_tokens(tiny.load(device), ids).logprobs
    path.write_text(plain)
    save_file(rounded, tiny.folder / "model.safetensors")
    assert quantized == pytest.approx(score_tokens(tiny.load(device), ids).logprobs, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "nvfp4-pack-quantized"}, "nvfp4-pack-quantized"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        ({"config_groups": {}}, "0 config_groups"),
        ({"quant_method": "awq"}, "quant_method 'awq'"),
    ],
)
def test_other_formats_are_refused_by_name(change, named):
    with pytest.raises(EngineError, match=named):
        Quantization.of(CONFIGS["int4"] | change, where="config.json")


def test_an_unquantized_qat_checkpoint_runs_as_it_is():
    assert Quantization.of({"bits": 4}, where="config.json") == Quantization()
