"""Read a checkpoint's config.json into one frozen description of the text decoder.

Everything the forward pass asks is answered here once: per layer its kind, head size, KV heads,
KV donor and MLP size. A field we don't know is refused by name, because a field we don't know may
change the arithmetic. Flat keys (`global_head_dim`) and `per_layer_config` are both understood.

Source: shared facts of `configuration_gemma3.py` and `configuration_gemma4.py`, transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from g4eval.errors import EngineError, nearest

# What wraps the text decoder in a multimodal checkpoint; vision and audio are not run.
MULTIMODAL_TYPES = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
}
TEXT_TYPES = tuple(MULTIMODAL_TYPES.values())


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Fields of any transformers config that say nothing about a decoder's forward pass.
IGNORED_FIELDS = _words("""
    _attn_implementation_autoset _model_name_or_path _name_or_path _sliding_window_pattern
    add_cross_attention architectures attention_dropout bad_words_ids begin_suppress_tokens
    cache_implementation chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    id2label initializer_range is_decoder is_encoder_decoder label2id length_penalty
    max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id
    prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p unk_token_id use_bfloat16 use_cache
""")
# Fields of the multimodal wrapper that concern images and sound, or repeat the text config's.
WRAPPER_FIELDS = _words("""
    audio_config audio_token_id audio_token_index boa_token_id boa_token_index boi_token_id
    boi_token_index bos_token_id eoa_token_id eoa_token_index eoi_token_id eoi_token_index
    eos_token_id image_token_id image_token_index mm_tokens_per_image quantization_config
    text_config tie_word_embeddings video_token_id vision_config vision_soft_tokens_per_image
""")


class _RopeFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: Literal["default", "linear", "proportional"] = "default"
    type: Literal["default", "linear"] | None = None  # the old name of rope_type
    rope_theta: float | None = Field(default=None, gt=0)
    factor: float = Field(default=1.0, gt=0)
    partial_rotary_factor: float = Field(default=1.0, gt=0, le=1)


class _LayerFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    head_dim: int | None = Field(default=None, gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)


class _TextFields(BaseModel):
    """The fields that Gemma 3 and Gemma 4 text configs share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(default=256, gt=0)
    hidden_activation: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    max_position_embeddings: int = Field(default=131_072, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    eos_token_id: int | list[int] | None = 1
    bos_token_id: int | None = 2
    tie_word_embeddings: bool = True
    attention_bias: Literal[False] = False
    sliding_window: int = Field(default=512, gt=0)
    layer_types: list[Literal["sliding_attention", "full_attention"]] | None = None
    rope_parameters: dict[str, _RopeFields | None] | None = None
    final_logit_softcapping: float | None = Field(default=None, gt=0)
    quantization_config: dict[str, Any] | None = None


class _Gemma3Fields(_TextFields):
    query_pre_attn_scalar: float = Field(default=256, gt=0)
    attn_logit_softcapping: None = None
    use_bidirectional_attention: Literal[False] | None = False
    sliding_window_pattern: int = Field(default=6, gt=0)
    rope_theta: float = Field(default=1_000_000.0, gt=0)
    rope_local_base_freq: float = Field(default=10_000.0, gt=0)
    rope_scaling: _RopeFields | None = None


class _Gemma4Fields(_TextFields):
    # "vision" concerns image tokens only: text is causal in every size.
    use_bidirectional_attention: Literal["vision"] | None = None
    global_head_dim: int = Field(default=512, gt=0)
    num_global_key_value_heads: int | None = Field(default=None, gt=0)
    per_layer_config: dict[int, _LayerFields] | None = None
    attention_k_eq_v: bool = False
    num_kv_shared_layers: int = Field(default=0, ge=0)
    use_double_wide_mlp: bool = False
    hidden_size_per_layer_input: int = Field(default=256, ge=0)
    vocab_size_per_layer_input: int = Field(default=262_144, gt=0)
    enable_moe_block: bool = False
    num_experts: int | None = Field(default=None, gt=0)
    top_k_experts: int | None = Field(default=None, gt=0)
    moe_intermediate_size: int | None = Field(default=None, gt=0)


class _Gemma4UnifiedFields(_Gemma4Fields):
    hidden_size_per_layer_input: int = 0
    use_bidirectional_attention: Literal["vision"] | None = "vision"


Fields = TypeVar("Fields", bound=_TextFields)


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary positions of one kind of layer."""

    theta: float
    rotated_share: float = 1.0  # of the D/2 pairs, the first ones; the rest pass unchanged
    factor: float = 1.0  # divides every frequency


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConfig:
    """A mixture of experts beside the dense MLP of every layer."""

    experts: int  # E
    active: int  # experts a token
    inner_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerConfig:
    """What sets one layer apart."""

    index: int
    sliding: bool  # False: full attention
    head_dim: int  # H of this layer
    kv_heads: int  # K of this layer
    kv_donor: int | None  # the layer whose keys and values this one reads; None: its own
    value_is_key: bool  # the value projection is the key projection
    mlp_size: int  # F of this layer


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaConfig:
    """The text decoder of one checkpoint, Gemma 3 or 4."""

    model_type: str
    generation: Literal[3, 4]
    vocab_size: int  # V, rows of the embedding
    hidden_size: int  # D
    query_heads: int  # N
    layers: tuple[LayerConfig, ...]
    window: int  # keys a query of a sliding layer sees, itself included
    rms_eps: float
    rope_sliding: RopeConfig
    rope_full: RopeConfig
    attention_scale: float
    logit_softcap: float | None
    ple_size: int  # width of the per-layer embeddings; 0: none
    ple_vocab_size: int
    moe: MoeConfig | None
    context_tokens: int
    tied_head: bool
    bos_id: int
    eos_ids: tuple[int, ...]
    quantization: Mapping[str, Any] | None = None

    @property
    def owners(self) -> tuple[LayerConfig, ...]:
        """The layers that compute keys and values of their own."""
        return tuple(layer for layer in self.layers if layer.kv_donor is None)


def parse_config(values: Mapping[str, Any], *, where: object) -> GemmaConfig:
    """Return the text decoder that a config.json describes.

    Raises:
        EngineError: not a Gemma 3 or 4 text model, an unknown field, or a value we can't run.
    """
    model_type = values.get("model_type")
    text = dict(values)
    if model_type in MULTIMODAL_TYPES:
        _refuse_unknown(values, WRAPPER_FIELDS | IGNORED_FIELDS, where)
        text = dict(values.get("text_config") or {})
        text.setdefault("model_type", MULTIMODAL_TYPES[model_type])
        text.setdefault("tie_word_embeddings", values.get("tie_word_embeddings", True))
        text.setdefault("quantization_config", values.get("quantization_config"))
        where = f"{where}, text_config"
    text_type = text.get("model_type")
    fields = {k: v for k, v in text.items() if k not in IGNORED_FIELDS}
    if text_type == "gemma3_text":
        return _gemma3(_checked(_Gemma3Fields, fields, where), text_type)
    if text_type == "gemma4_text":
        return _gemma4(_checked(_Gemma4Fields, fields, where), text_type, where)
    if text_type == "gemma4_unified_text":
        return _gemma4(_checked(_Gemma4UnifiedFields, fields, where), text_type, where)
    raise EngineError(
        f"model_type {model_type!r} is not a Gemma 3 or Gemma 4 text model",
        where=where,
        hint=f"the gemma engine runs {', '.join((*MULTIMODAL_TYPES, *TEXT_TYPES))}",
    )


def _refuse_unknown(values: Mapping[str, Any], known: frozenset[str], where: object) -> None:
    for name in values:
        if name not in known:
            raise EngineError(
                f"config field {name!r} is not known, so its effect isn't either",
                where=where,
                hint=nearest(name, known),
            )


def _checked(model: type[Fields], fields: Mapping[str, Any], where: object) -> Fields:
    _refuse_unknown(fields, frozenset(model.model_fields), where)
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise EngineError(
            f"config field {name!r} is {first['input']!r}, which can't be run: {first['msg']}",
            where=where,
        ) from error


def _layer_is_sliding(fields: _TextFields, period: int) -> list[bool]:
    if fields.layer_types is not None:
        return [kind == "sliding_attention" for kind in fields.layer_types]
    return [(index + 1) % period != 0 for index in range(fields.num_hidden_layers)]


def _rope(fields: _RopeFields, default_theta: float) -> RopeConfig:
    kind = fields.rope_type if fields.type is None else fields.type
    return RopeConfig(
        theta=fields.rope_theta or default_theta,
        rotated_share=fields.partial_rotary_factor if kind == "proportional" else 1.0,
        factor=1.0 if kind == "default" else fields.factor,
    )


def _eos_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return (1,)
    return tuple(value) if isinstance(value, list) else (value,)


def _common(fields: _TextFields) -> dict[str, Any]:
    return {
        "vocab_size": fields.vocab_size,
        "hidden_size": fields.hidden_size,
        "query_heads": fields.num_attention_heads,
        "window": fields.sliding_window,
        "rms_eps": fields.rms_norm_eps,
        "logit_softcap": fields.final_logit_softcapping,
        "context_tokens": fields.max_position_embeddings,
        "tied_head": fields.tie_word_embeddings,
        "bos_id": 2 if fields.bos_token_id is None else fields.bos_token_id,
        "eos_ids": _eos_ids(fields.eos_token_id),
        "quantization": fields.quantization_config,
    }


def _gemma3(fields: _Gemma3Fields, model_type: str) -> GemmaConfig:
    parameters = fields.rope_parameters or {}
    full = parameters.get("full_attention") or fields.rope_scaling or _RopeFields()
    sliding = parameters.get("sliding_attention") or _RopeFields()
    layers = tuple(
        LayerConfig(
            index=index,
            sliding=is_sliding,
            head_dim=fields.head_dim,
            kv_heads=fields.num_key_value_heads,
            kv_donor=None,
            value_is_key=False,
            mlp_size=fields.intermediate_size,
        )
        for index, is_sliding in enumerate(_layer_is_sliding(fields, fields.sliding_window_pattern))
    )
    return GemmaConfig(
        **_common(fields),
        model_type=model_type,
        generation=3,
        layers=layers,
        rope_sliding=_rope(sliding, fields.rope_local_base_freq),
        rope_full=_rope(full, fields.rope_theta),
        attention_scale=fields.query_pre_attn_scalar**-0.5,
        ple_size=0,
        ple_vocab_size=0,
        moe=None,
    )


def _gemma4(fields: _Gemma4Fields, model_type: str, where: object) -> GemmaConfig:
    is_sliding = _layer_is_sliding(fields, 6)
    is_sliding[-1] = False  # whatever the list says
    parameters = fields.rope_parameters or {}
    proportional = _RopeFields(rope_type="proportional", partial_rotary_factor=0.25)
    full = parameters.get("full_attention") or proportional
    sliding = parameters.get("sliding_attention") or _RopeFields()
    moe = None
    if fields.enable_moe_block:
        if not (fields.num_experts and fields.top_k_experts and fields.moe_intermediate_size):
            raise EngineError(
                "enable_moe_block is set, but num_experts, top_k_experts or "
                "moe_intermediate_size is not",
                where=where,
            )
        moe = MoeConfig(
            experts=fields.num_experts,
            active=fields.top_k_experts,
            inner_size=fields.moe_intermediate_size,
        )
    return GemmaConfig(
        **_common(fields),
        model_type=model_type,
        generation=4,
        layers=tuple(
            _gemma4_layer(fields, index, is_sliding, where)
            for index in range(fields.num_hidden_layers)
        ),
        rope_sliding=_rope(sliding, 10_000.0),
        rope_full=_rope(full, 1_000_000.0),
        attention_scale=1.0,
        ple_size=fields.hidden_size_per_layer_input,
        ple_vocab_size=fields.vocab_size_per_layer_input,
        moe=moe,
    )


def _gemma4_layer(
    fields: _Gemma4Fields, index: int, sliding: list[bool], where: object
) -> LayerConfig:
    first_shared = fields.num_hidden_layers - fields.num_kv_shared_layers
    donor = None
    if index >= first_shared:
        same_kind = [j for j in range(first_shared) if sliding[j] == sliding[index]]
        if not same_kind:
            raise EngineError(
                f"layer {index} shares keys and values, but no layer of its kind owns any",
                where=where,
            )
        donor = same_kind[-1]
    head_dim, kv_heads = fields.head_dim, fields.num_key_value_heads
    if fields.per_layer_config is not None:
        own = fields.per_layer_config.get(index, _LayerFields())
        head_dim, kv_heads = own.head_dim or head_dim, own.num_key_value_heads or kv_heads
    elif not sliding[index]:
        head_dim = fields.global_head_dim
        if fields.attention_k_eq_v and fields.num_global_key_value_heads is not None:
            kv_heads = fields.num_global_key_value_heads
    doubled = fields.use_double_wide_mlp and index >= first_shared
    return LayerConfig(
        index=index,
        sliding=sliding[index],
        head_dim=head_dim,
        kv_heads=kv_heads,
        kv_donor=donor,
        value_is_key=fields.attention_k_eq_v and not sliding[index],
        mlp_size=fields.intermediate_size * (2 if doubled else 1),
    )
