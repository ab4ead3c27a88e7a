"""What vLLM gets from the options, and what must be there before it is started."""

import json
from pathlib import Path
from typing import Any

import pytest

from g4eval.engines.hardware import Device
from g4eval.engines.vllm_options import VllmOptions, engine_arguments
from g4eval.engines.vllm_plan import Machine, plan_vllm
from g4eval.errors import ConfigError, EngineError, MissingExtraError, SeveralError

GIB = 2**30
H100 = Device(name="H100", memory_bytes=80 * GIB)
KNOWN = {"model", "max_model_len", "language_model_only", "seed", "trust_remote_code"}


def machine(
    *gpus: Device, vllm: str | None = "cuda", environment: dict[str, str] | None = None
) -> Machine:
    memory = Device(name="memory", memory_bytes=16 * GIB)
    return Machine(lambda: gpus, lambda: memory, lambda: vllm, environment or {})


def make_model(folder: Path, **config: Any) -> Path:
    values = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 262_144,
        "dtype": "bfloat16",
        **config,
    }
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


def test_everything_missing_is_named_at_once() -> None:
    offline = machine(vllm=None, environment={"HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere"})
    with pytest.raises(SeveralError) as caught:
        plan_vllm(VllmOptions(), "google/gemma-4-31B-it", offline)
    assert [type(part) for part in caught.value.parts] == [
        MissingExtraError,
        EngineError,
        EngineError,
    ]
    message = str(caught.value)
    assert message.startswith("3 things are missing:\n- vLLM isn't installed")
    assert "no NVIDIA GPU is found" in message
    assert "hf download google/gemma-4-31B-it" in message
    assert caught.value.exit_code == 5


def test_weights_that_can_be_fetched_are_not_missing() -> None:
    plan = plan_vllm(VllmOptions(), "google/gemma-4-31B-it", machine(H100))
    assert plan.memory is None


def test_parallelism_and_context_are_settled_by_what_fits(tmp_path: Path) -> None:
    plan = plan_vllm(VllmOptions(), str(make_model(tmp_path)), machine(H100, H100))
    assert plan.options.tensor_parallel_size == 1
    assert plan.options.context_tokens == 98_304
    assert plan.memory is not None
    assert plan.memory.n_copies == 1


def test_stages_of_a_pipeline_get_a_device_each(tmp_path: Path) -> None:
    options = VllmOptions(pipeline_parallel_size=2)
    plan = plan_vllm(options, str(make_model(tmp_path)), machine(H100, H100))
    assert plan.options.tensor_parallel_size == 1
    assert plan.memory is not None
    assert plan.memory.n_together == 2


def test_more_stages_than_devices_are_refused(tmp_path: Path) -> None:
    options = VllmOptions(pipeline_parallel_size=3)
    with pytest.raises(EngineError, match="3 stages needs as many devices, and there are 2"):
        plan_vllm(options, str(make_model(tmp_path)), machine(H100, H100))


def test_a_context_shorter_than_the_default_is_the_models_own(tmp_path: Path) -> None:
    folder = make_model(tmp_path, max_position_embeddings=8192)
    assert plan_vllm(VllmOptions(), str(folder), machine(H100)).options.context_tokens == 8192


def test_the_cache_has_the_dtype_asked_for_and_holds_a_step(tmp_path: Path) -> None:
    folder = str(make_model(tmp_path, sliding_window=64, layer_types=["sliding_attention"] * 2))
    caches = []
    for options in (
        VllmOptions(),
        VllmOptions(dtype="float32"),
        VllmOptions(dtype="float32", kv_cache_dtype="fp8"),
        VllmOptions(max_num_batched_tokens=4096),
    ):
        memory = plan_vllm(options, folder, machine(H100)).memory
        assert memory is not None
        caches.append(memory.cache)
    assert [cache.sliding_bytes_per_token for cache in caches] == [128, 256, 64, 128]
    assert [cache.window_tokens for cache in caches] == [2111, 2111, 2111, 4159]


def test_the_cpu_build_needs_no_gpu(tmp_path: Path) -> None:
    plan = plan_vllm(VllmOptions(), str(make_model(tmp_path)), machine(vllm="cpu"))
    assert plan.memory is not None
    assert plan.memory.devices[0].name == "memory"


def test_the_cpu_builds_own_cache_setting_is_what_the_plan_counts_on(tmp_path: Path) -> None:
    # 2 layers x 2 x 2 heads x 8 values x 2 bytes = 128 bytes a token, 2^23 of them in 1 GiB.
    folder = str(make_model(tmp_path))
    options = VllmOptions(context_tokens=2**22)
    space = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    set_by_user = plan_vllm(options, folder, machine(vllm="cpu", environment=space)).memory
    on_a_gpu = plan_vllm(options, folder, machine(H100, environment=space)).memory
    assert set_by_user is not None
    assert on_a_gpu is not None
    assert set_by_user.n_sequences == 2
    assert on_a_gpu.n_sequences > 100


def test_more_copies_than_gpus_are_refused(tmp_path: Path) -> None:
    options = VllmOptions(tensor_parallel_size=2, data_parallel_size=2)
    with pytest.raises(EngineError, match="need 4, and there are 2"):
        plan_vllm(options, str(make_model(tmp_path)), machine(H100, H100))


def test_options_reach_vllm_by_its_own_names() -> None:
    options = VllmOptions(context_tokens=4096, tensor_parallel_size=2, more={"seed": 1})
    arguments = engine_arguments(options, "m", KNOWN)
    assert arguments["max_model_len"] == 4096
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["seed"] == 1
    assert arguments["language_model_only"] is True
    ours = {"context_tokens", "prompt", "thinking", "concurrency", "text_only", "more"}
    assert not ours & set(arguments)
    assert "quantization" not in arguments  # None is vLLM's own choice


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trust_remote_code": True}, "trust_remote_code is refused"),
        ({"max_model_len": 1}, "'max_model_len' has an option of its own"),
        ({"dtype": "half"}, "'dtype' has an option of its own"),
        ({"sede": 1}, "'sede' is not an argument of this vLLM"),
    ],
)
def test_more_arguments_are_checked(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine_arguments(VllmOptions(more=more), "m", KNOWN)
