"""Keys of stored runs don't move: fingerprints of engine `openai` as literals.

They were computed before contexts, slots and products were read in newer ways; such facts stand
with the facts of operation.
"""

from typing import Any

import pytest

from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.engines.server_facts import ServerFacts, ask_server
from tests.driving import run

ROOT = "http://127.0.0.1:8000"
SGLANG = {
    "version": "0.5.6",
    "tp_size": 1,
    "dp_size": 1,
    "dtype": "bfloat16",
    "kv_cache_dtype": "auto",
    "attention_backend": "fa3",
    "quantization": None,
    "reasoning_parser": None,
    "speculative_algorithm": None,
    "max_running_requests": 48,
}
LLAMA_CPP = {
    "build_info": "b7000",
    "total_slots": 1,
    "chat_template": "{{ messages }}",
    "default_generation_settings": {"n_ctx": 131072},
}
LOADED = {"models": [{"name": "m", "context_length": 4096}]}
BASE = {"id": "base", "owned_by": "vllm", "max_model_len": 32768}
ADAPTER = {"id": "m", "owned_by": "vllm", "parent": "base", "max_model_len": None}
METRICS = 'vllm:engine_config{max_num_seqs="256",x="1"} 1.0\n'

# name: rows of /models, what other addresses answer, fingerprint, facts learned in newer ways
SERVERS: dict[str, tuple[Any, dict[str, Any], str, dict[str, Any]]] = {
    "unknown": (
        [{"id": "m", "owned_by": "someone"}],
        {},
        "d0350a00d25c051078cd61bbb4096e7696c6a90759931b26fe5b3b88c374fc8a",
        {},
    ),
    "a gateway that states a context": (
        [{"id": "m", "owned_by": "someone", "context_length": 8192}],
        {},
        "d0350a00d25c051078cd61bbb4096e7696c6a90759931b26fe5b3b88c374fc8a",
        {"context_limit": 8192},
    ),
    "vllm with an adapter": (
        [BASE, ADAPTER],
        {"/version": {"version": "0.17.0"}, "/metrics": METRICS},
        "50e6e5c98f645182376072ef52d08f1f4698c4e2d0c5ac80c2336101d115241d",
        {"context_limit": 32768, "slots": 256},
    ),
    "sglang": (
        [{"id": "m", "owned_by": "sglang", "max_model_len": 32768}],
        {"/get_server_info": SGLANG},
        "2a65506992b0826fe2b62ea4268c7a4cb7507be8754d943f90ac3b4ce8984aaa",
        {"slots": 48},
    ),
    "llama.cpp": (
        [{"id": "m", "owned_by": "llamacpp"}],
        {"/props": LLAMA_CPP},
        "1893b41cab11e15dbbf53d03eb0302f03a2556dbdc1a77a1e9574fce3f99eb0c",
        {"slots": 1},
    ),
    "llama.cpp behind another name": (
        [{"id": "m", "owned_by": "someone"}],
        {"/props": LLAMA_CPP},
        "d0350a00d25c051078cd61bbb4096e7696c6a90759931b26fe5b3b88c374fc8a",
        {"slots": 1, "context_limit": 131072, "server": "llama.cpp b7000"},
    ),
    "ollama": (
        [{"id": "m", "owned_by": "library"}],
        {"/api/version": {"version": "0.12.3"}, "/api/ps": LOADED},
        "64a59774a2a4759d26e2b51f8d5421f8b61b226ad967e95bc9a17b4493a21a96",
        {"context_limit": 4096},
    ),
    "ollama with a model that isn't loaded": (
        [{"id": "m", "owned_by": "library"}],
        {
            "/api/version": {"version": "0.12.3"},
            "/api/show": {"parameters": "top_k 64\nnum_ctx      8192", "model_info": {}},
        },
        "64a59774a2a4759d26e2b51f8d5421f8b61b226ad967e95bc9a17b4493a21a96",
        {"context_limit": 8192},
    ),
    "tgi": (
        [{"id": "m", "owned_by": "huggingface"}],
        {"/info": {"version": "3.0.0", "max_total_tokens": 4096, "max_concurrent_requests": 128}},
        "d0350a00d25c051078cd61bbb4096e7696c6a90759931b26fe5b3b88c374fc8a",
        {"server": "tgi 3.0.0", "context_limit": 4096, "slots": 128},
    ),
}


def engine_of(facts: ServerFacts, **options: Any) -> OpenAIEngine:
    engine = OpenAIEngine(OpenAIOptions(**options), model="m", base_url=f"{ROOT}/v1")
    engine._server = facts
    return engine


@pytest.mark.parametrize("name", SERVERS)
def test_what_is_learned_in_a_new_way_moves_no_key(name: str) -> None:
    rows, answers, fingerprint, learned = SERVERS[name]

    async def ask(address: str, body: object = None) -> Any:
        return answers.get(address.removeprefix(ROOT), {})

    async def read(address: str) -> str:
        return str(answers.get(address.removeprefix(ROOT), ""))

    server = run(ask_server(ask, f"{ROOT}/v1", {"data": rows}, "m", post=ask, read=read))
    facts = engine_of(server).describe()
    assert facts.fingerprint == fingerprint
    plain = ("address", "concurrency", "stream")
    assert {k: v for k, v in facts.operation.items() if k not in plain} == learned
    assert facts.room_tokens == (facts.context_tokens or learned.get("context_limit"))


def test_declared_facts_and_bodies_make_the_key_they_made() -> None:
    engine = engine_of(
        ServerFacts(),
        api="completions",
        omit=("top_k",),
        extra_body={"password": "hunter2"},
        dtype="bfloat16",
        context_tokens=8192,
    )
    assert engine.describe().fingerprint == (
        "110969ee59b596ee3bf8f19fa28187e8acf7e615b19e09ab0ecaf86d049c0f0d"
    )
