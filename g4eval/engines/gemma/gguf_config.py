"""A GGUF file's metadata under the names of a config.json.

Source: `Gemma3Model` and `Gemma4Model`, convert_hf_to_gguf.py, ggml-org/llama.cpp; Ollama's own
converter writes some keys otherwise (convert/convert_gemma3.go, ollama/ollama).
"""

from collections.abc import Mapping
from typing import Any

from g4eval.engines.gemma.gguf_fields import GgufFields
from g4eval.errors import EngineError

ARCHITECTURES = {"gemma3": "gemma3_text", "gemma4": "gemma4_text"}
MAX_LAYERS = 1024
_STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def config_values(
    fields: GgufFields, shapes: Mapping[str, tuple[int, ...]], rotated_share: float | None
) -> dict[str, Any]:
    """Return the values of a config.json.

    Args:
        fields: the file's metadata.
        shapes: of its tensors, by canonical name.
        rotated_share: of the pairs of a full layer, as a tensor of the file says; None: no such
            tensor.

    Raises:
        EngineError: another architecture, or a field is missing or of another type.
    """
    architecture = fields.text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise EngineError(
            f"architecture {architecture!r:.100} is not a Gemma 3 or Gemma 4 text model",
            where=fields.where,
            hint=f"the gemma engine runs {' and '.join(ARCHITECTURES)} GGUF files",
        )
    layers = _needed(fields, "{arch}.block_count")
    if not 0 < layers <= MAX_LAYERS:
        raise EngineError(f"metadata 'block_count' is {layers:,}", where=fields.where)
    values: dict[str, Any] = {
        "model_type": ARCHITECTURES[architecture],
        "vocab_size": _rows(shapes, "embed_tokens.weight"),
        "tie_word_embeddings": "lm_head.weight" not in shapes,
        "bos_token_id": _or(fields.integer("tokenizer.ggml.bos_token_id"), 2),
        "eos_token_id": _stop_ids(fields),
        "hidden_size": _needed(fields, "{arch}.embedding_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": _needed(fields, "{arch}.attention.head_count"),
        "max_position_embeddings": _needed(fields, "{arch}.context_length"),
        "sliding_window": _needed(fields, "{arch}.attention.sliding_window"),
    }
    epsilon = "{arch}.attention.layer_norm_rms_epsilon"
    values["rms_norm_eps"] = fields.required(fields.number(epsilon), epsilon)
    softcap = fields.number("{arch}.final_logit_softcapping")
    if softcap:
        values["final_logit_softcapping"] = softcap
    if architecture == "gemma3":
        return values | _gemma3(fields, layers, values)
    return values | _gemma4(fields, layers, shapes, rotated_share)


def _stop_ids(fields: GgufFields) -> list[int]:
    ids = [fields.integer(f"tokenizer.ggml.{key}") for key in _STOP_KEYS]
    for key in _STOP_KEYS:  # several of a kind, as Ollama writes them
        ids += fields.integers(f"tokenizer.ggml.{key}s") or []
    return sorted({1, *(i for i in ids if i is not None)})


def _gemma3(fields: GgufFields, layers: int, known: Mapping[str, Any]) -> dict[str, Any]:
    head_dim = _or(fields.integer("{arch}.attention.key_length"), 256)
    heads = known["num_attention_heads"]
    # The file doesn't carry the scale; of the released sizes only 27B (62 layers) departs from the
    # head size.
    scalar = known["hidden_size"] / max(1, heads) if layers == 62 else head_dim
    values: dict[str, Any] = {
        "head_dim": head_dim,
        "num_key_value_heads": _needed(fields, "{arch}.attention.head_count_kv"),
        "intermediate_size": _needed(fields, "{arch}.feed_forward_length"),
        "query_pre_attn_scalar": scalar,
        "rope_theta": _number(
            fields, 1_000_000.0, "{arch}.rope.freq_base", "{arch}.rope.global.freq_base"
        ),
        "rope_local_base_freq": _number(
            fields, 10_000.0, "{arch}.rope.freq_base_swa", "{arch}.rope.local.freq_base"
        ),
        "sliding_window_pattern": _or(fields.integer("{arch}.attention.sliding_window_pattern"), 6),
    }
    scaling = _or(fields.text("{arch}.rope.scaling.type"), "none")
    if scaling != "none":
        values["rope_scaling"] = {
            "rope_type": scaling,
            "factor": _number(fields, 1.0, "{arch}.rope.scaling.factor"),
        }
    return values


def _gemma4(
    fields: GgufFields,
    layers: int,
    shapes: Mapping[str, tuple[int, ...]],
    rotated_share: float | None,
) -> dict[str, Any]:
    pattern = "{arch}.attention.sliding_window_pattern"
    sliding = fields.required(fields.flags(pattern, layers), pattern)
    full_head_dim = _needed(fields, "{arch}.attention.key_length")
    kv_heads = _layers(fields, "{arch}.attention.head_count_kv", layers)
    mlp = _layers(fields, "{arch}.feed_forward_length", layers)
    experts = fields.integer("{arch}.expert_count")
    full = [index for index in range(layers) if not sliding[index]]
    return {
        "layer_types": [f"{'sliding' if s else 'full'}_attention" for s in sliding],
        "head_dim": _needed(fields, "{arch}.attention.key_length_swa"),
        "num_key_value_heads": kv_heads[0],
        "per_layer_config": {
            i: {"head_dim": full_head_dim, "num_key_value_heads": kv_heads[i]} for i in full
        },
        "attention_k_eq_v": any(
            f"layers.{i}.self_attn.v_proj.weight" not in shapes
            and f"layers.{i}.self_attn.k_proj.weight" in shapes
            for i in full
        ),
        "num_kv_shared_layers": _or(fields.integer("{arch}.attention.shared_kv_layers"), 0),
        "intermediate_size": mlp[0],
        "use_double_wide_mlp": mlp[-1] == 2 * mlp[0],
        "hidden_size_per_layer_input": _or(
            fields.integer("{arch}.embedding_length_per_layer_input"), 0
        ),
        "vocab_size_per_layer_input": _rows(shapes, "embed_tokens_per_layer.weight") or 1,
        "enable_moe_block": bool(experts),
        "num_experts": experts,
        "top_k_experts": fields.integer("{arch}.expert_used_count"),
        "moe_intermediate_size": fields.integer("{arch}.expert_feed_forward_length"),
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": _number(fields, 1_000_000.0, "{arch}.rope.freq_base"),
                "partial_rotary_factor": 0.25 if rotated_share is None else rotated_share,
            },
            "sliding_attention": {
                "rope_theta": _number(fields, 10_000.0, "{arch}.rope.freq_base_swa")
            },
        },
    }


def _rows(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    shape = shapes.get(name, ())
    return shape[0] if shape else 0


def _needed(fields: GgufFields, key: str) -> int:
    return fields.required(fields.integer(key), key)


def _layers(fields: GgufFields, key: str, count: int) -> list[int]:
    return fields.required(fields.layers(key, count), key)


def _number(fields: GgufFields, default: float, *keys: str) -> float:
    """Return the first of these fields that is there."""
    found = (fields.number(key) for key in keys)
    return next((value for value in found if value is not None), default)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
