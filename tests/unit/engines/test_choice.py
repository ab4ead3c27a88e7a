"""`--engine auto`: which engine, and the reason."""

import json
from pathlib import Path

import pytest

from g4eval.engines.choice import EngineChoice, choose_engine
from g4eval.engines.hardware import Device
from g4eval.errors import ConfigError
from g4eval.profile import get_profile

H100 = Device(name="NVIDIA H100", memory_bytes=80 * 2**30)


def choose(
    model: str | None = "google/gemma-4-E2B-it",
    *,
    asked_for: str = "auto",
    base_url: str | None = None,
    gpus: tuple[Device, ...] = (),
    vllm: bool = False,
) -> EngineChoice:
    return choose_engine(
        asked_for,
        model=model,
        base_url=base_url,
        gpus=lambda: gpus,
        is_installed=lambda name: vllm and name == "vllm",
    )


def test_a_name_that_was_given_is_kept_without_a_word() -> None:
    assert choose(asked_for="fake", model=None) == EngineChoice(name="fake")


def test_an_address_means_a_server() -> None:
    choice = choose(base_url="http://127.0.0.1:8000/v1", gpus=(H100,), vllm=True)
    assert choice.name == "openai"


def test_vllm_where_it_is_installed_and_there_is_a_gpu() -> None:
    choice = choose(gpus=(H100,), vllm=True)
    assert choice == EngineChoice(name="vllm", reason="vLLM is installed and there is NVIDIA H100")


@pytest.mark.parametrize(
    ("vllm", "reason"),
    [
        (True, "vLLM sees no GPU, and the model is a Gemma"),
        (False, "vLLM isn't installed, and the model is a Gemma"),
    ],
)
def test_gemma_where_vllm_cannot_run_on_cuda(vllm: bool, reason: str) -> None:
    assert choose(vllm=vllm) == EngineChoice(name="gemma", reason=reason)


def test_another_model_runs_on_vllms_cpu_build() -> None:
    assert choose("HuggingFaceTB/SmolLM2-135M-Instruct", vllm=True).name == "vllm"


def test_another_model_without_vllm_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="no engine here runs") as caught:
        choose("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert "g4eval[vllm]" in str(caught.value)


def test_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="no model is named"):
        choose(None)


def test_a_checkpoint_is_known_by_its_profile_or_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    assert choose(str(tmp_path)).name == "gemma"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError):
        choose(str(tmp_path))
    profiled = choose_engine(
        "auto",
        model="my-finetune",
        profile=get_profile("gemma-4-31b"),
        gpus=tuple,
        is_installed=lambda _: False,
    )
    assert profiled.name == "gemma"
