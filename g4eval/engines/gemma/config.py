"""Read a checkpoint's config.json into one frozen description of the text decoder.

Everything the forward pass asks is answered here once: per layer its kind, head size, KV heads,
KV donor and MLP size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from g4eval.engines.gemma.config_fields import (
    IGNORED_FIELDS,
    MULTIMODAL_TYPES,
    SHOWN,
    TEXT_TYPES,
    WRAPPER_FIELDS,
    Gemma3Fields,
    Gemma4Fields,
    Gemma4UnifiedFields,
    LayerFields,
    RopeFields,
    TextFields,
)
from g4eval.errors import EngineError, nearest

Fields = TypeVar("Fields", bound=TextFields)


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
    if isinstance(model_type, str) and model_type in MULTIMODAL_TYPES:
        _refuse_unknown(values, WRAPPER_FIELDS | IGNORED_FIELDS, where)
        text = _text_part(values, MULTIMODAL_TYPES[model_type], where)
        where = f"{where}, text_config"
    text_type = text.get("model_type")
    fields = {k: v for k, v in text.items() if k not in IGNORED_FIELDS}
    if text_type == "gemma3_text":
        return _checked_whole(_gemma3(_checked(Gemma3Fields, fields, where), text_type), where)
    if text_type == "gemma4_text":
        gemma4: Gemma4Fields = _checked(Gemma4Fields, fields, where)
        return _checked_whole(_gemma4(gemma4, text_type, where), where)
    if text_type == "gemma4_unified_text":
        gemma4 = _checked(Gemma4UnifiedFields, fields, where)
        return _checked_whole(_gemma4(gemma4, text_type, where), where)
    raise EngineError(
        f"model_type {model_type!r:.{SHOWN}} is not a Gemma 3 or Gemma 4 text model",
        where=where,
        hint=f"the gemma engine runs {', '.join((*MULTIMODAL_TYPES, *TEXT_TYPES))}",
    )


def _text_part(values: Mapping[str, Any], text_type: str, where: object) -> dict[str, Any]:
    """Return the text decoder's part of a multimodal config, with what the wrapper says of it."""
    part = values.get("text_config")
    if part is not None and not isinstance(part, dict):
        raise EngineError(f"text_config is {type(part).__name__}, not an object", where=where)
    text = dict(part or {})
    text.setdefault("model_type", text_type)
    if "tie_word_embeddings" in values:
        tied = values["tie_word_embeddings"]
        if text.setdefault("tie_word_embeddings", tied) != tied:
            raise EngineError(
                f"tie_word_embeddings is {tied!r:.{SHOWN}} here and "
                f"{text['tie_word_embeddings']!r:.{SHOWN}} in text_config",
                where=where,
                hint="make both say whether the file's lm_head is the model's own",
            )
    text.setdefault("quantization_config", values.get("quantization_config"))
    return text


def _checked_whole(config: GemmaConfig, where: object) -> GemmaConfig:
    """Refuse numbers that are in bounds one by one and don't fit together."""
    for layer in config.layers:
        if config.query_heads % layer.kv_heads or layer.head_dim % 2:
            raise EngineError(
                f"layer {layer.index} has {config.query_heads} query heads, {layer.kv_heads} key "
                f"heads and a head size of {layer.head_dim}, which don't fit together",
                where=where,
            )
    off = [i for i in (config.bos_id, *config.eos_ids) if i >= config.vocab_size]
    if off:
        raise EngineError(
            f"token id {off[0]} is outside the vocabulary of {config.vocab_size:,}", where=where
        )
    return config


def _refuse_unknown(values: Mapping[str, Any], known: frozenset[str], where: object) -> None:
    for name in values:
        if name not in known:
            raise EngineError(
                f"config field {name!r:.{SHOWN}} is not known, so its effect isn't either",
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
        message = first["msg"].removeprefix("Value error, ")
        raise EngineError(
            f"config field {name!r:.{SHOWN}} is {first['input']!r:.{SHOWN}}, which can't be run: "
            f"{message}"
            if name
            else f"the config can't be run: {message}",
            where=where,
        ) from error
    except RecursionError as error:
        raise EngineError("the config is nested too deeply", where=where) from error


def _layer_is_sliding(fields: TextFields, period: int) -> list[bool]:
    if fields.layer_types is not None:
        return [kind == "sliding_attention" for kind in fields.layer_types]
    return [(index + 1) % period != 0 for index in range(fields.num_hidden_layers)]


def _rope(fields: RopeFields, default_theta: float) -> RopeConfig:
    kind = fields.rope_type if fields.type is None else fields.type
    return RopeConfig(
        theta=fields.rope_theta or default_theta,
        rotated_share=fields.partial_rotary_factor if kind == "proportional" else 1.0,
        factor=1.0 if kind == "default" else fields.factor,
    )


def _eos_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None or value == []:
        return (1,)
    return tuple(value) if isinstance(value, list) else (value,)


def _common(fields: TextFields) -> dict[str, Any]:
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


def _gemma3(fields: Gemma3Fields, model_type: str) -> GemmaConfig:
    parameters = fields.rope_parameters or {}
    full = parameters.get("full_attention") or fields.rope_scaling or RopeFields()
    sliding = parameters.get("sliding_attention") or RopeFields()
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


def _gemma4(fields: Gemma4Fields, model_type: str, where: object) -> GemmaConfig:
    is_sliding = _layer_is_sliding(fields, 6)
    is_sliding[-1] = False  # whatever the list says
    parameters = fields.rope_parameters or {}
    proportional = RopeFields(rope_type="proportional", partial_rotary_factor=0.25)
    full = parameters.get("full_attention") or proportional
    sliding = parameters.get("sliding_attention") or RopeFields()
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
    fields: Gemma4Fields, index: int, sliding: list[bool], where: object
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
        own = fields.per_layer_config.get(index, LayerFields())
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
