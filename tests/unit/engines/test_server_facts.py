"""What other servers say of themselves, in the shapes their sources give."""

from typing import Any

import pytest

from g4eval.engines.server_facts import ServerFacts, ask_server, public_address
from tests.driving import run


def facts_of(models: dict[str, Any], **answers: Any) -> ServerFacts:
    """The facts, from a server whose own routes answer as given."""

    async def ask(address: str) -> dict[str, Any]:
        root, _, path = address.partition("://127.0.0.1:1/")
        assert root == "http"
        return dict(answers.get(path.replace("/", "_"), {}))

    return run(ask_server(ask, "http://127.0.0.1:1/v1", models, "tiny"))


def test_llama_cpp_gives_its_build_its_context_and_its_template() -> None:
    facts = facts_of(
        {"data": [{"id": "tiny", "owned_by": "llamacpp"}]},
        props={
            "build_info": "b6100-abc",
            "chat_template": "{{ messages }}",
            "default_generation_settings": {"n_ctx": 8192},
        },
    )
    assert (facts.kind, facts.version, facts.context_tokens) == ("llama.cpp", "b6100-abc", 8192)
    # SHA-256 of the template's UTF-8
    assert facts.chat_template_hash == (
        "f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171"
    )


def test_sglang_gives_nearly_everything() -> None:
    facts = facts_of(
        {"data": [{"id": "tiny", "owned_by": "sglang", "max_model_len": 4096}]},
        get_server_info={
            "version": "0.5.1",
            "dtype": "bfloat16",
            "quantization": None,
            "kv_cache_dtype": "auto",
            "attention_backend": "fa3",
            "tp_size": 2,
            "dp_size": 1,
            "speculative_algorithm": None,
            "reasoning_parser": "gemma4",
        },
    )
    assert facts == ServerFacts(
        kind="sglang",
        version="0.5.1",
        models=("tiny",),
        context_tokens=4096,
        dtype="bfloat16",
        quantization="none",
        kv_cache_dtype="auto",
        attention_backend="fa3",
        parallelism="tp2 dp1",
        speculative_decoding="none",
        reasoning_parser="gemma4",
    )


def test_an_sglang_that_tells_nothing_leaves_its_facts_unknown() -> None:
    facts = facts_of({"data": [{"id": "tiny", "owned_by": "sglang"}]})
    assert (facts.kind, facts.quantization, facts.parallelism) == ("sglang", "unknown", "unknown")


def test_ollama_is_known_by_its_version_route() -> None:
    facts = facts_of({"data": [{"id": "tiny"}]}, api_version={"version": "0.12"})
    assert (facts.kind, facts.version) == ("ollama", "0.12")


@pytest.mark.parametrize("models", [{}, {"data": None}, {"data": ["odd"]}, {"data": [{}]}])
def test_a_server_that_lists_nothing_is_simply_unknown(models: dict[str, Any]) -> None:
    assert facts_of(models) == ServerFacts()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://ann:secret@host:8000/v1/?key=x#y", "http://host:8000/v1"),
        ("https://host/v1", "https://host/v1"),
        ("http://u@[::1]:80/v1", "http://[::1]:80/v1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert public_address(address) == shown
