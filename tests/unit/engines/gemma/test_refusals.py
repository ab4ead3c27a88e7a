"""Checkpoints that are refused, by name, before anything is loaded."""

import json
from types import SimpleNamespace
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  after the skips

from g4eval.engines.gemma import weights  # noqa: E402
from g4eval.engines.gemma.config import parse_config  # noqa: E402
from g4eval.engines.gemma.memory import GIB, plan_memory  # noqa: E402
from g4eval.engines.gemma.quantized import Quantization  # noqa: E402
from g4eval.engines.gemma.scoring import log_probability_rows  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402
from tests.unit.engines.gemma.test_parity import logprobs  # noqa: E402

WEIGHTS = "model.safetensors"
IDS = [2, 7, 11, 5, 3]


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def refusal(tiny):
    """The message with which loading is refused; no tensor may have been read by then."""
    began = AssertionError("loading began")
    with (
        patch.object(weights, "Head", side_effect=began),
        pytest.raises(EngineError) as caught,
    ):
        tiny.load()
    return str(caught.value)


def test_a_field_nobody_knows_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    edit_config(tiny.folder, rotary_twist=3)
    assert "'rotary_twist' is not known" in refusal(tiny)


def test_fields_that_transformers_takes_over_from_a_gguf_file_are_left_out(make_tiny):
    tiny = make_tiny("gemma3")
    edit_config(tiny.folder, _model_name_or_path="Gemma 3 270m", unk_token_id=3)
    assert tiny.load().config == make_tiny("gemma3", seed=1).load().config


def test_a_value_that_cant_be_run_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    edit_config(tiny.folder, attention_bias=True)
    assert "'attention_bias' is True, which can't be run" in refusal(tiny)


@pytest.mark.parametrize("kind", ["gemma4_assistant", "llama", None])
def test_other_models_are_refused_by_type(kind):
    with pytest.raises(EngineError, match="is not a Gemma 3 or Gemma 4 text model"):
        parse_config({"model_type": kind}, where="config.json")


def test_a_missing_tensor_is_named(make_tiny):
    tiny = make_tiny("dense_k_is_v")
    edit_weights(tiny.folder, lambda t: t.pop("model.layers.3.mlp.up_proj.weight"))
    assert "missing: layers.3.mlp.up_proj.weight" in refusal(tiny)


def test_an_unknown_tensor_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    edit_weights(tiny.folder, lambda t: t.update({"model.layers.0.twist": torch.ones(2)}))
    assert "unknown: layers.0.twist" in refusal(tiny)


def test_a_tensor_of_another_shape_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    edit_weights(tiny.folder, lambda t: t.update({"model.norm.weight": torch.ones(63)}))
    assert "'norm.weight' has shape [63], the config asks for [64]" in refusal(tiny)


def test_vision_and_audio_tensors_are_left_out(make_tiny):
    tiny = make_tiny("dense_k_is_v")
    before = logprobs(tiny.load(), IDS)
    extra = {
        "model.vision_tower.encoder.weight": torch.ones(2),
        "model.embed_audio.embedding_projection.weight": torch.ones(2),
    }
    edit_weights(tiny.folder, lambda t: t.update(extra))
    assert torch.equal(logprobs(tiny.load(), IDS), before)


def test_keys_that_shared_layers_dont_use_are_left_out(make_tiny):
    tiny = make_tiny("ple_shared_kv")
    before = logprobs(tiny.load(), IDS)
    extra = {
        f"model.layers.5.self_attn.{name}": torch.ones(2)
        for name in ("k_proj.weight", "v_proj.weight", "k_norm.weight")
    }
    edit_weights(tiny.folder, lambda t: t.update(extra))
    assert torch.equal(logprobs(tiny.load(), IDS), before)


def test_the_prefixes_of_multimodal_files_are_understood(make_tiny, random_ids):
    tiny = make_tiny("gemma3", shake=True)
    ids = random_ids(12)
    before = _last_logits(tiny.load(), ids)

    def rename(tensors):
        for name in list(tensors):
            tensors["language_model." + name] = tensors.pop(name)

    edit_weights(tiny.folder, rename)
    text = json.loads((tiny.folder / "config.json").read_text())
    wrapper = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}}
    (tiny.folder / "config.json").write_text(json.dumps(wrapper))
    assert torch.equal(_last_logits(tiny.load(), ids), before)


def _last_logits(model, ids):
    return list(log_probability_rows(model, ids))[-1][-1]


def test_a_truncated_shard_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    path = tiny.folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    message = refusal(tiny)
    assert "is not a whole safetensors file" in message
    assert str(path) in message


def test_a_missing_shard_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (tiny.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "shards are missing: model-00002-of-00002.safetensors" in refusal(tiny)


def test_a_tensor_with_nan_is_named(make_tiny):
    tiny = make_tiny("gemma3")

    def damage(tensors):
        tensors["model.layers.2.mlp.down_proj.weight"][0, 0] = float("nan")

    edit_weights(tiny.folder, damage)
    with pytest.raises(EngineError, match=r"'layers.2.mlp.down_proj.weight' holds NaN"):
        tiny.load()


def test_a_tokenizer_of_another_model_is_refused(make_tiny, add_tokenizer):
    tiny = make_tiny("gemma3")
    add_tokenizer(tiny.folder, tokens=310)
    with pytest.raises(EngineError, match="the tokenizer doesn't match the model: 310 tokens"):
        _ = tiny.open().codec


def test_without_a_tokenizer_the_model_still_loads(make_tiny):
    tiny = make_tiny("gemma3")
    tiny.load()
    with pytest.raises(EngineError, match=r"has no tokenizer\.json"):
        _ = tiny.open().codec


def test_a_model_that_doesnt_fit_is_refused_with_the_numbers(make_tiny):
    checkpoint = make_tiny("gemma3").open()
    with pytest.raises(EngineError) as caught:
        plan_memory(
            checkpoint.config,
            3 * GIB,
            torch.float32,
            max_batch=8,
            free_bytes=2 * GIB,
            where=checkpoint.path,
        )
    assert "the model needs 3." in caught.value.what
    assert "1.8 GiB of 2.0 free may be used" in caught.value.what


def test_the_plan_gives_no_more_than_there_is(make_tiny):
    config = make_tiny("gemma3").open().config
    plan = plan_memory(config, 1000, torch.float32, max_batch=64, free_bytes=GIB // 8, where="here")
    # Gemma 3 tiny: one full layer of 2 KV heads x 16, keys and values, 4 bytes: 256 a token.
    # Seven sliding layers of window 7: 1,792 bytes each.
    slots, tokens = plan.capacity.slots, plan.capacity.cached_tokens
    used = 1000 + plan.work_bytes + plan.capacity.prefix_bytes + slots * 7 * 1792 + tokens * 256
    assert slots == 64
    assert 0.89 * GIB / 8 < used <= 0.9 * GIB / 8


def test_quantization_we_cant_run_is_named(make_tiny):
    tiny = make_tiny("gemma3")
    edit_config(tiny.folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quant_method 'gptq'" in refusal(tiny)


def test_the_plan_counts_the_head_that_is_rounded_for_the_screen(make_tiny):
    checkpoint = make_tiny("gemma3").open()
    config, source = checkpoint.config, checkpoint.source
    counted = {}
    for screened in (False, True):
        with patch.object(weights, "is_screened", return_value=screened):
            counted[screened] = weights.weight_bytes(
                config, source, torch.device("cpu"), torch.float32
            )
    assert counted[True] - counted[False] == config.vocab_size * config.hidden_size * 2


@pytest.mark.parametrize("name", ["embed_tokens.weight_scale", "lm_head.weight_packed"])
def test_a_quantized_embedding_or_head_is_named(name, make_tiny):
    checkpoint = make_tiny("gemma3").open()
    shapes = {**checkpoint.source.shapes, name: (300, 1)}
    source = SimpleNamespace(shapes=shapes, where="here")
    scheme = Quantization.of({}, where="here")
    with pytest.raises(EngineError, match=f"the embedding or the head is quantized: {name}"):
        weights.check_tensors(checkpoint.config, source, scheme)
