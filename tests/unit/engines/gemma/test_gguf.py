"""GGUF files: written by the gguf package from a safetensors checkpoint, read back as the model."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from g4eval.engines.gemma.checkpoint import open_checkpoint  # noqa: E402  after the skips
from g4eval.engines.gemma.gguf_file import _GLOBAL_NAMES, _LAYER_NAMES, GgufSource  # noqa: E402
from g4eval.engines.gemma.gguf_header import GgufHeader  # noqa: E402
from g4eval.engines.gemma.scoring import score_tokens  # noqa: E402
from g4eval.engines.gemma.weights import load_model  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402

CPU = torch.device("cpu")
TO_GGUF = {ours: theirs for theirs, ours in _GLOBAL_NAMES.items()}
LAYER_TO_GGUF = {ours: theirs for theirs, ours in _LAYER_NAMES.items()}


def gguf_name(name):
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    return TO_GGUF[name] if layer is None else f"blk.{layer[1]}.{LAYER_TO_GGUF[layer[2]]}"


def write_gguf(checkpoint, path, kind=gguf.GGMLQuantizationType.F32):
    """Write a checkpoint's text decoder as llama.cpp's converter does."""
    config = checkpoint.config
    writer = gguf.GGUFWriter(path, f"gemma{config.generation}")
    writer.add_context_length(config.context_tokens)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(len(config.layers))
    writer.add_head_count(config.query_heads)
    writer.add_layer_norm_rms_eps(config.rms_eps)
    writer.add_sliding_window(config.window)
    if config.generation == 3:
        layer = config.layers[0]
        writer.add_key_length(layer.head_dim)
        writer.add_head_count_kv(layer.kv_heads)
        writer.add_feed_forward_length(layer.mlp_size)
        writer.add_rope_freq_base(config.rope_full.theta)
        if config.rope_full.factor != 1:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(config.rope_full.factor)
    else:
        write_gemma4_fields(writer, config)
    for name in checkpoint.source.shapes:
        values = checkpoint.source.load(name).float()
        if config.generation == 3 and name.endswith("norm.weight"):
            values = values + 1
        rows = values.numpy()
        # Rows whose length the block format can't divide stay wide, as in real files.
        block = gguf.GGML_QUANT_SIZES[kind][0]
        if rows.ndim > 1 and rows.shape[-1] % block == 0:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(rows, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gemma4_fields(writer, config):
    full = next(layer for layer in config.layers if not layer.sliding)
    sliding = next(layer for layer in config.layers if layer.sliding)
    writer.add_key_length(full.head_dim)
    writer.add_key_length_swa(sliding.head_dim)
    writer.add_head_count_kv([layer.kv_heads for layer in config.layers])
    writer.add_feed_forward_length([layer.mlp_size for layer in config.layers])
    writer.add_shared_kv_layers(sum(layer.kv_donor is not None for layer in config.layers))
    writer.add_sliding_window_pattern([layer.sliding for layer in config.layers])
    writer.add_embedding_length_per_layer_input(config.ple_size)
    writer.add_rope_freq_base(config.rope_full.theta)
    writer.add_rope_freq_base_swa(config.rope_sliding.theta)
    writer.add_final_logit_softcapping(config.logit_softcap)
    if config.moe is not None:
        writer.add_expert_count(config.moe.experts)
        writer.add_expert_used_count(config.moe.active)
        writer.add_expert_feed_forward_length(config.moe.inner_size)
    pairs = full.head_dim // 2
    rotated = int(config.rope_full.rotated_share * pairs)
    divisors = np.array([1.0] * rotated + [1e30] * (pairs - rotated), np.float32)
    writer.add_tensor("rope_freqs.weight", divisors)


def score(checkpoint, ids):
    model = load_model(checkpoint.config, checkpoint.source, CPU, torch.float32)
    return score_tokens(model, ids).logprobs


@pytest.mark.parametrize(
    "variant",
    ["gemma3", "gemma3_linear_rope", "dense_k_is_v", "ple_shared_kv", "ple_double_wide", "mixture"],
)
def test_a_gguf_file_scores_as_its_safetensors_do(
    variant, variants, make_tiny, random_ids, tmp_path
):
    values = dict(variants[variant])
    if "query_pre_attn_scalar" in values:
        values["query_pre_attn_scalar"] = values["head_dim"]  # a GGUF file can't say otherwise
    checkpoint = make_tiny(variant, values, shake=True).open()
    write_gguf(checkpoint, tmp_path / "model.gguf")
    again = open_checkpoint(str(tmp_path / "model.gguf"), CPU)
    ids = random_ids(30)
    assert score(again, ids) == pytest.approx(score(checkpoint, ids), abs=1e-5)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_1", "Q5_1"])
def test_widened_blocks_are_what_the_gguf_package_says(kind, make_tiny, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    checkpoint = make_tiny("gemma3").open()
    write_gguf(checkpoint, tmp_path / "model.gguf", kind)
    source = GgufSource(tmp_path / "model.gguf", CPU)
    name = "layers.1.mlp.gate_proj.weight"
    packed = gguf.quants.quantize(checkpoint.source.load(name).numpy(), kind)
    expected = gguf.quants.dequantize(packed, kind)
    assert source.load(name).float().numpy() == pytest.approx(expected, abs=0)
    assert source.quantization == ("none" if kind.name in ("F16", "BF16") else f"gguf {kind.name}")


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_super_blocks_are_widened_row_by_row(kind, tmp_path):
    # The package can't write these, so any bytes stand for a tensor of 2 rows of 256 values.
    kind = gguf.GGMLQuantizationType[kind]
    row_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    raw = np.random.default_rng(0).integers(0, 60, (2, row_bytes), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma3")
    writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = GgufSource(tmp_path / "x.gguf", CPU).load("layers.0.mlp.up_proj.weight")
    assert tuple(loaded.shape) == (2, 256)
    assert loaded.numpy() == pytest.approx(gguf.quants.dequantize(raw, kind), abs=0, nan_ok=True)


def test_the_header_holds_what_the_gguf_package_reads(make_tiny, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(make_tiny("ple_double_wide").open(), path)
    header, reader = GgufHeader(path), gguf.GGUFReader(path)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            assert header.fields[name] == field.contents(), name
    assert {t.name: t.data_offset for t in reader.tensors} == {
        t.name: t.offset for t in header.tensors.values()
    }


@pytest.mark.parametrize("kept", [3, 40, 500, 20_000])
def test_a_file_cut_anywhere_is_refused(kept, make_tiny, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(make_tiny("gemma3").open(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(EngineError, match="is not a whole GGUF file") as caught:
        open_checkpoint(str(path), CPU)
    assert caught.value.where == str(path)


def test_another_architecture_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(EngineError, match="architecture 'llama' is not a Gemma"):
        open_checkpoint(str(tmp_path / "x.gguf"), CPU)


def test_a_tensor_missing_from_the_file_is_named(make_tiny, tmp_path):
    checkpoint = make_tiny("gemma3").open()
    shapes = dict(checkpoint.source.shapes)
    shapes.pop("layers.4.mlp.down_proj.weight")
    checkpoint.source.shapes = shapes
    write_gguf(checkpoint, tmp_path / "model.gguf")
    again = open_checkpoint(str(tmp_path / "model.gguf"), CPU)
    with pytest.raises(EngineError, match=r"missing: layers\.4\.mlp\.down_proj\.weight"):
        load_model(again.config, again.source, CPU, torch.float32)
