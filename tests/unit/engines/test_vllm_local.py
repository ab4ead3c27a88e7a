"""What engine vllm says where vLLM itself isn't asked."""

from types import SimpleNamespace

import pytest

from g4eval.engines.vllm_local import VllmEngine, _loading_advice
from g4eval.engines.vllm_options import VllmOptions
from g4eval.errors import EngineError
from g4eval.records import Message


def engine_without_template(prompt: str) -> VllmEngine:
    engine = VllmEngine(VllmOptions.model_validate({"prompt": prompt}), model="some/model")
    engine._tokenizer = SimpleNamespace(chat_template=None, encode=lambda text: [len(text)])
    return engine


def test_a_tokenizer_without_a_chat_template_is_refused_by_name() -> None:
    messages = [Message(role="user", content="Hello")]
    with pytest.raises(EngineError, match="no chat template") as caught:
        engine_without_template("chat")._render(messages)
    assert "engine.prompt=plain" in str(caught.value)
    assert engine_without_template("plain")._render(messages)[1] == [5]


def test_a_config_that_this_vllm_cannot_read_is_told_from_a_full_memory() -> None:
    error = AttributeError("'head_dim' is a per-layer attribute and may vary across layers.")
    assert "transformers" in _loading_advice(error)
    assert "engine.tensor_parallel_size" in _loading_advice(RuntimeError("CUDA out of memory"))
