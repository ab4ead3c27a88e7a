"""The fields of a Gemma config.json, each with its type and its bounds.

A field we don't know is refused by name, because a field we don't know may change the arithmetic.
Flat keys (`global_head_dim`) and `per_layer_config` are both understood.

Source: shared facts of `configuration_gemma3.py` and `configuration_gemma4.py`, transformers.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Bounds on what a config may say; the largest released model has 62 layers and 262,208 rows.
MAX_LAYERS = 1024
MAX_SIZE = 1 << 20  # of a width, a head, an MLP; of heads and experts
MAX_ROWS = 1 << 24
MAX_TOKENS = 1 << 40
SHOWN = 200  # characters of a wrong value

Size = Annotated[int, Field(gt=0, le=MAX_SIZE)]
Rows = Annotated[int, Field(gt=0, le=MAX_ROWS)]
Tokens = Annotated[int, Field(gt=0, le=MAX_TOKENS)]
TokenId = Annotated[int, Field(ge=0, lt=MAX_ROWS)]
Real = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# What wraps the text decoder in a multimodal checkpoint; vision and audio are not run.
MULTIMODAL_TYPES = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
}
TEXT_TYPES = tuple(MULTIMODAL_TYPES.values())


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Fields of any transformers config, and notes of mirrors and trainers (Unsloth, Axolotl), that say
# nothing about a decoder's forward pass.
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
    _commit_hash _experts_implementation _flash_attn_2_enabled attn_implementation base_model
    gradient_checkpointing ignore_index keys_to_ignore_at_inference license model_name
    name_or_path unsloth_fixed unsloth_tokenizer unsloth_version
""")
# Fields of the multimodal wrapper that concern images and sound, or repeat the text config's.
WRAPPER_FIELDS = _words("""
    audio_config audio_token_id audio_token_index boa_token_id boa_token_index boi_token_id
    boi_token_index bos_token_id eoa_token_id eoa_token_index eoi_token_id eoi_token_index
    eos_token_id image_token_id image_token_index mm_tokens_per_image quantization_config
    text_config tie_word_embeddings video_token_id vision_config vision_soft_tokens_per_image
""")


class RopeFields(BaseModel):
    """Rotary positions of one kind of layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: Literal["default", "linear", "proportional"] = "default"
    type: Literal["default", "linear"] | None = None  # the old name of rope_type
    rope_theta: Real | None = None
    factor: Real = 1.0
    partial_rotary_factor: float = Field(default=1.0, gt=0, le=1)


class LayerFields(BaseModel):
    """What one layer has of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head_dim: Size | None = None
    num_key_value_heads: Size | None = None


class TextFields(BaseModel):
    """The fields that Gemma 3 and Gemma 4 text configs share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: Rows
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: int = Field(gt=0, le=MAX_LAYERS)
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size = 256
    hidden_activation: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    max_position_embeddings: Tokens = 131_072
    rms_norm_eps: Real = 1e-6
    eos_token_id: TokenId | list[TokenId] | None = 1
    bos_token_id: TokenId | None = 2
    tie_word_embeddings: bool = True
    attention_bias: Literal[False] = False
    sliding_window: Tokens = 512
    layer_types: list[Literal["sliding_attention", "full_attention"]] | None = None
    rope_parameters: dict[str, RopeFields | None] | None = None
    final_logit_softcapping: Real | None = None
    quantization_config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kinds, layers = self.layer_types, self.num_hidden_layers
        if kinds is not None and len(kinds) != layers:
            raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
        return self


class Gemma3Fields(TextFields):
    """Gemma 3's own."""

    query_pre_attn_scalar: Real = 256
    attn_logit_softcapping: None = None
    use_bidirectional_attention: Literal[False] | None = False
    sliding_window_pattern: Size = 6
    rope_theta: Real = 1_000_000.0
    rope_local_base_freq: Real = 10_000.0
    rope_scaling: RopeFields | None = None


class Gemma4Fields(TextFields):
    """Gemma 4's own."""

    # "vision" concerns image tokens only: text is causal in every size.
    use_bidirectional_attention: Literal["vision"] | None = None
    global_head_dim: Size = 512
    num_global_key_value_heads: Size | None = None
    per_layer_config: dict[int, LayerFields] | None = None
    attention_k_eq_v: bool = False
    num_kv_shared_layers: int = Field(default=0, ge=0, le=MAX_LAYERS)
    use_double_wide_mlp: bool = False
    hidden_size_per_layer_input: int = Field(default=256, ge=0, le=MAX_SIZE)
    vocab_size_per_layer_input: Rows = 262_144
    enable_moe_block: bool = False
    num_experts: Size | None = None
    top_k_experts: Size | None = None
    moe_intermediate_size: Size | None = None

    @model_validator(mode="after")
    def _experts_fit(self) -> Self:
        if self.enable_moe_block and (self.top_k_experts or 0) > (self.num_experts or 0):
            raise ValueError("top_k_experts is more than num_experts")
        return self


class Gemma4UnifiedFields(Gemma4Fields):
    """Gemma 4 12B's own."""

    hidden_size_per_layer_input: int = Field(default=0, ge=0, le=MAX_SIZE)
    use_bidirectional_attention: Literal["vision"] | None = "vision"
