"""The fingerprint of each engine, as literals: a run that was stored under it must continue.

A new fact is left out of `identity()` at the value that it had before it existed. Where one of
these numbers moves, every stored run of that engine becomes another run.
"""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from g4eval.config import RunConfig
from g4eval.engines.base import EngineConfig
from g4eval.engines.fake import FakeEngine
from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.engines.server_facts import ServerFacts
from g4eval.engines.vllm_local import VllmEngine
from g4eval.engines.vllm_options import VllmOptions
from g4eval.importing import _facts as import_facts

FINGERPRINTS = {
    "fake": "97b0e140decdcf964a25e3020c99360f56bc64cf0bef34137ebe1a9dba1e841d",
    "fake, other options": "b8fa883ddf79ed7b311cd4c10cf956df725d87d22c3c013df835eaae68a367b4",
    "import": "5477b718a67950412fb8cc93558db75b282bf5d3718125b2861a131ae5bab886",
    "openai, nothing known": "6e3dee859c60eea6fd069c6de1715afd37d61fdebba69a9b5f00b443d3d5e98b",
    "openai on vllm": "12a5dc9113f687f863f99a189e36294f5d3eb5bb2187959a977bad27b87ce7ff",
    "openai on llama.cpp": "a3a2a0012451f2e182f64ac686d46274daa9ccbd37e87cf316d94c3f32728e73",
    "vllm": "824056e35868956af34b7d00d73b6ff4780bf59e0096ac5ee1a8616727b2457f",
}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "fake"),
        (
            {"accuracy": 0.5, "thinking": True, "quantization": "int4", "concurrency": 3},
            "fake, other options",
        ),
    ],
)
def test_fake(options: dict[str, object], name: str) -> None:
    engine = FakeEngine.configure(EngineConfig(model="m", options=options))
    assert engine.describe().fingerprint == FINGERPRINTS[name]


def test_imports() -> None:
    config = RunConfig(model="m", set={"engine.dtype": "bfloat16", "engine.thinking": True})
    assert import_facts(config).fingerprint == FINGERPRINTS["import"]


@pytest.mark.parametrize(
    ("options", "server", "name"),
    [
        ({}, ServerFacts(), "openai, nothing known"),
        (
            {"thinking": True, "dtype": "bfloat16", "omit": ("top_k",), "concurrency": 7},
            ServerFacts(kind="vllm", version="0.25.0", models=("tiny",), context_tokens=4096),
            "openai on vllm",
        ),
        (
            {"api": "completions"},
            ServerFacts(kind="llama.cpp", version="b1", dtype="f16"),
            "openai on llama.cpp",
        ),
    ],
)
def test_openai(options: dict[str, object], server: ServerFacts, name: str) -> None:
    engine = OpenAIEngine(
        OpenAIOptions.model_validate(options), model="tiny", base_url="http://127.0.0.1:1/v1"
    )
    engine._server = server
    assert engine.describe().fingerprint == FINGERPRINTS[name]


def test_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = ModuleType("vllm")
    vllm.__version__ = "0.25.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr("g4eval.engines.vllm_local.vllm_build", lambda: "cpu")
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    engine = VllmEngine(VllmOptions(thinking=True, stop_token_ids=(1, 106)), model="some/model")
    engine._tokenizer = SimpleNamespace(chat_template="{{ messages }}")
    engine._context_tokens = 4096
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            dtype="torch.bfloat16", quantization=None, enforce_eager=False
        ),
        parallel_config=SimpleNamespace(
            tensor_parallel_size=2, pipeline_parallel_size=1, data_parallel_size=1
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=64, max_num_batched_tokens=8192),
    )
    attention = [{"backends": ["FLASH_ATTN"], "kv_cache_dtypes": ["auto"]}]
    facts = engine._read_facts(config, attention, "w" * 64)
    assert facts.fingerprint == FINGERPRINTS["vllm"]
