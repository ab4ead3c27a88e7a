"""Memory a model needs, against sizes worked out by hand from the published configurations."""

from pathlib import Path
from typing import Any

import pytest

from g4eval.engines.hardware import Device, read_gpu_list
from g4eval.engines.memory_plan import (
    GIB,
    cache_of,
    loaded_bytes,
    plan_memory,
    weights_on_disk,
)
from g4eval.errors import EngineError

# google/gemma-4-31B-it: 10 full layers of 4 heads x 512, 50 sliding ones of 16 heads x 256.
GEMMA_31B: dict[str, Any] = {
    "num_hidden_layers": 60,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "num_global_key_value_heads": 4,
    "attention_k_eq_v": True,
    "head_dim": 256,
    "global_head_dim": 512,
    "sliding_window": 1024,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10,
}
H100 = Device(name="H100", memory_bytes=80 * GIB)
WEIGHTS = 58 * GIB


def test_sliding_layers_stop_growing_at_their_window() -> None:
    cache = cache_of({"text_config": GEMMA_31B})
    assert cache.full_bytes_per_token == 10 * 2 * 4 * 512 * 2
    assert cache.sliding_bytes_per_token == 50 * 2 * 16 * 256 * 2
    # A full layer's page holds 32 tokens, as many bytes as 16 of a sliding layer; one page more.
    assert cache.bytes_at(1000) == 1024 * 81_920 + (63 + 1) * 16 * 819_200
    assert cache.bytes_at(65_536) == 65_536 * 81_920 + (64 + 1) * 16 * 819_200


def test_a_window_holds_the_tokens_of_one_step_as_well() -> None:
    cache = cache_of(GEMMA_31B, step_tokens=2048)
    assert cache.bytes_at(65_536) == 65_536 * 81_920 + (192 + 1) * 16 * 819_200


GEMMA_270M: dict[str, Any] = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
}


@pytest.mark.parametrize(
    ("dtype", "context", "n_tensor", "available", "found"),
    [("bfloat16", 24_576, 1, 54.94, 512.69), ("float32", 4096, 2, 40.47, 416.64)],
)
def test_a_sequence_takes_what_vllm_counts(
    dtype: str, context: int, n_tensor: int, available: float, found: float
) -> None:
    # Logged by vLLM 0.25 with Gemma 3 270M: GiB a GPU for its cache, and sequences that fit.
    cache = cache_of(GEMMA_270M, dtype, step_tokens=2048, n_tensor=n_tensor)
    assert n_tensor * available * GIB / cache.bytes_at(context) == pytest.approx(found, rel=2e-4)


def test_the_plan_promises_no_more_than_vllm_found_room_for() -> None:
    # 24,576 tokens, four tenths of the GPU: 285 on an H100, 512 on an H200.
    for mebibytes, found in ((81_559, 285), (143_771, 512)):
        device = Device(name="GPU", memory_bytes=mebibytes * 2**20)
        plan = plan_memory(
            511 * 2**20, GEMMA_270M, [device], context_tokens=24_576, share=0.4, step_tokens=2048
        )
        assert 0.9 * found < plan.n_sequences <= found


def test_groups_of_one_size_are_filled_up_with_layers_that_hold_nothing() -> None:
    # Gemma 3 27B: 10 full layers, and room for 60 sliding ones where it has 52.
    config = {**GEMMA_31B, "num_hidden_layers": 62, "global_head_dim": None}
    config["layer_types"] = [*GEMMA_31B["layer_types"], *["sliding_attention"] * 2]
    cache = cache_of(config)
    assert cache.sliding_bytes_per_token == 60 * 2 * 16 * 256 * 2
    # Nearly as many of one kind as of the other: the fewer are filled up.
    config["layer_types"] = ["sliding_attention"] * 34 + ["full_attention"] * 28
    assert cache_of(config).full_bytes_per_token == 34 * 2 * 4 * 256 * 2


def test_devices_beyond_the_heads_each_keep_a_copy() -> None:
    cache = cache_of(GEMMA_31B, n_tensor=8)
    assert cache.full_bytes_per_token == 10 * 2 * 8 * 512 * 2
    assert cache.sliding_bytes_per_token == 50 * 2 * 16 * 256 * 2


def test_layers_that_share_a_cache_have_none_of_their_own() -> None:
    e2b = {
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_kv_shared_layers": 20,
        "sliding_window": 512,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
    }
    cache = cache_of(e2b)
    assert cache.full_bytes_per_token == 3 * 2 * 512 * 2
    assert cache.sliding_bytes_per_token == 12 * 2 * 256 * 2


def test_gemma_3_without_layer_types_has_one_full_layer_in_six() -> None:
    cache = cache_of(GEMMA_270M)
    assert cache.full_bytes_per_token == 3 * 2 * 256 * 2
    assert cache.sliding_bytes_per_token == 15 * 2 * 256 * 2


def test_a_model_without_windows_grows_in_every_layer_and_an_8_bit_cache_halves_it() -> None:
    llama = {
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "hidden_size": 576,
    }
    assert cache_of(llama).full_bytes_per_token == 30 * 2 * 3 * 64 * 2
    assert cache_of(llama, "fp8").full_bytes_per_token == 30 * 2 * 3 * 64


def test_as_few_gpus_as_hold_weights_and_eight_sequences() -> None:
    # One holds 72 - 3 - 58 = 11 GiB of cache, a sequence takes 5.8: one fits. Two hold 80: 13 fit.
    plan = plan_memory(WEIGHTS, GEMMA_31B, [H100] * 4, context_tokens=65_536)
    assert (plan.n_together, plan.n_sequences) == (2, 13)
    assert "2 idle: engine.data_parallel_size uses them" in str(plan)


def test_one_gpu_is_used_alone_where_it_is_all_there_is() -> None:
    plan = plan_memory(WEIGHTS, GEMMA_31B, [H100], context_tokens=65_536)
    assert (plan.n_together, plan.n_sequences) == (1, 1)
    assert "idle" not in str(plan)


def test_a_model_that_cannot_fit_is_refused_with_both_sizes() -> None:
    small = Device(name="RTX 4090", memory_bytes=24 * GIB)
    with pytest.raises(EngineError, match=r"needs 63.8 GiB .* 2 x RTX 4090 have 37.2 GiB") as e:
        plan_memory(WEIGHTS, GEMMA_31B, [small] * 2, context_tokens=65_536)
    assert "quantized" in str(e.value)


def test_a_cache_of_a_set_size_limits_how_many_fit() -> None:
    # Two sequences of 5.8 GiB in 12, however much the device could hold.
    plan = plan_memory(0, GEMMA_31B, [H100], context_tokens=65_536, cache_bytes=12 * GIB)
    assert plan.n_sequences == 2
    assert "in a cache of 12.0 GiB" in str(plan)


def test_a_cache_of_a_set_size_that_holds_no_sequence_is_refused_with_its_size() -> None:
    with pytest.raises(EngineError, match=r"the cache is set to 5.0 GiB, .* needs 5.8 GiB"):
        plan_memory(0, GEMMA_31B, [H100], context_tokens=65_536, cache_bytes=5 * GIB)


def test_a_count_that_was_asked_for_is_kept() -> None:
    plan = plan_memory(WEIGHTS, GEMMA_31B, [H100] * 8, context_tokens=65_536, n_together=4)
    assert plan.n_together == 4


def test_weights_change_their_size_with_the_dtype_unless_quantized() -> None:
    assert loaded_bytes(100, {"torch_dtype": "bfloat16"}, "float32") == 200
    assert loaded_bytes(100, {"dtype": "float32"}, "bfloat16") == 50
    assert loaded_bytes(100, {"dtype": "bfloat16"}, "auto") == 100
    assert loaded_bytes(100, {"dtype": "bfloat16", "quantization_config": {}}, "float32") == 100


def test_only_one_format_of_the_weights_counts(tmp_path: Path) -> None:
    for name, size in (("a.safetensors", 5), ("b.safetensors", 6), ("c.gguf", 40), ("d.json", 9)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert weights_on_disk(tmp_path) == 11
    assert weights_on_disk(tmp_path / "c.gguf") == 40


def test_nvidia_smis_list_is_read() -> None:
    listed = "NVIDIA H100 80GB HBM3, 81559, 580.159.04\n" * 2
    gpu = Device(name="NVIDIA H100 80GB HBM3", memory_bytes=81_559 * 2**20, driver="580.159.04")
    assert read_gpu_list(listed) == (gpu, gpu)
    assert read_gpu_list("No devices were found\n") == ()
