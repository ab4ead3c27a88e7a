"""GGUF checkpoints: one memory-mapped file with config, tensors, tokenizer and template.

The file's own names are turned into those of a config.json and of safetensors files, so everything
after this module sees one format. Quantized tensors are widened to float32 as they are loaded.

Source: `Gemma3Model` and `Gemma4Model`, convert_hf_to_gguf.py, ggml-org/llama.cpp.
"""

import math
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from g4eval.engines.gemma.gguf_header import GgufHeader, StoredTensor
from g4eval.errors import EngineError

ARCHITECTURES = {"gemma3": "gemma3_text", "gemma4": "gemma4_text"}

_GLOBAL_NAMES = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
    "per_layer_token_embd.weight": "embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "per_layer_projection_norm.weight",
}
_LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "layer_output_scale.weight": "layer_scalar",
    "inp_gate.weight": "per_layer_input_gate.weight",
    "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
}
ROPE_DIVISORS = "rope_freqs.weight"  # 1 for pairs that rotate, a huge number for the rest
HUGE_DIVISOR = 1e20
_PLAIN = {
    gguf.GGMLQuantizationType.F32: torch.float32,
    gguf.GGMLQuantizationType.F16: torch.float16,
    gguf.GGMLQuantizationType.BF16: torch.bfloat16,
}


class GgufSource:
    """One GGUF file, open."""

    norms_include_one = True  # the converter adds Gemma 3's one

    def __init__(self, path: Path, device: torch.device) -> None:
        self.where = str(path)
        self.path = path
        self._device = device
        self._header = GgufHeader(path)
        self._tensors = self._header.tensors
        self._names: dict[str, str] = {}
        self.shapes = self._read_shapes()
        self.nbytes = {name: self._loaded_bytes(stored) for name, stored in self._names.items()}

    def _read_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for stored, tensor in self._tensors.items():
            if stored == ROPE_DIVISORS:
                continue
            name = canonical_name(stored)
            self._names[name] = stored
            shapes[name] = tensor.shape
        return shapes

    def _loaded_bytes(self, stored: str) -> int:
        tensor = self._tensors[stored]
        itemsize = _PLAIN.get(tensor.kind, torch.float32).itemsize
        return math.prod(tensor.shape) * itemsize

    def load(self, name: str) -> Tensor:
        """Return one tensor, widened to float32 unless stored in half precision."""
        tensor = self._tensors[self._names[name]]
        data = self._header.data(tensor)
        plain = _PLAIN.get(tensor.kind)
        if plain is not None:
            # A copy, because the file is mapped read-only.
            values = torch.from_numpy(data.copy()).view(plain)
        else:
            values = torch.from_numpy(self._widened(tensor, data))
        return values.reshape(tensor.shape).to(self._device)

    def _widened(self, tensor: StoredTensor, data: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return gguf.quants.dequantize(data, tensor.kind)
        except NotImplementedError as error:
            raise EngineError(
                f"tensor {tensor.name!r} is stored as {tensor.kind.name}, which can't be widened",
                where=self.where,
                hint="use F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_K, Q5_K or Q6_K weights",
            ) from error

    def field(self, key: str, default: Any = None) -> Any:
        """Return a metadata value; `{arch}` in the key stands for the architecture."""
        if "{arch}" in key:
            key = key.replace("{arch}", str(self.field("general.architecture")))
        return self._header.fields.get(key, default)

    @property
    def quantization(self) -> str:
        """The tensor types of the file, most common first: `Q5_0 Q4_K Q8_0`."""
        counts: dict[str, int] = {}
        for tensor in self._tensors.values():
            if len(tensor.shape) > 1:
                kind = tensor.kind.name
                counts[kind] = counts.get(kind, 0) + math.prod(tensor.shape)
        plain = {"F32", "F16", "BF16"}
        ordered = sorted(counts, key=lambda kind: -counts[kind])
        return "none" if plain.issuperset(ordered) else "gguf " + " ".join(ordered)

    def config_values(self) -> dict[str, Any]:
        """Return the file's metadata under the names of a config.json.

        Raises:
            EngineError: another architecture, or a key is missing.
        """
        architecture = self.field("general.architecture")
        if architecture not in ARCHITECTURES:
            raise EngineError(
                f"architecture {architecture!r} is not a Gemma 3 or Gemma 4 text model",
                where=self.path,
                hint=f"the gemma engine runs {' and '.join(ARCHITECTURES)} GGUF files",
            )
        values: dict[str, Any] = {
            "model_type": ARCHITECTURES[architecture],
            "vocab_size": self.shapes.get("embed_tokens.weight", (0,))[0],
            "tie_word_embeddings": "lm_head.weight" not in self.shapes,
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id", 2),
            "eos_token_id": self._stop_ids(),
        }
        for name, key in _CONFIG_KEYS.items():
            value = self.field(key)
            if value is None:
                raise EngineError(f"metadata {key!r} is missing", where=self.path)
            values[name] = value
        softcap = self.field("{arch}.final_logit_softcapping")
        if softcap:
            values["final_logit_softcapping"] = softcap
        return values | (self._gemma3() if architecture == "gemma3" else self._gemma4())

    def _stop_ids(self) -> list[int]:
        keys = ("eos_token_id", "eot_token_id", "eom_token_id")
        ids = [self.field(f"tokenizer.ggml.{key}") for key in keys]
        return sorted({1, *(int(i) for i in ids if i is not None)})

    def _gemma3(self) -> dict[str, Any]:
        head_dim = int(self.field("{arch}.attention.key_length", 256))
        layers = int(self.field("{arch}.block_count"))
        heads = int(self.field("{arch}.attention.head_count"))
        # The file doesn't carry the scale; of the released sizes only 27B (62 layers) departs
        # from the head size.
        scalar = self.field("{arch}.embedding_length") / heads if layers == 62 else head_dim
        values: dict[str, Any] = {
            "head_dim": head_dim,
            "num_key_value_heads": self.field("{arch}.attention.head_count_kv"),
            "intermediate_size": self.field("{arch}.feed_forward_length"),
            "query_pre_attn_scalar": scalar,
            "rope_theta": self.field("{arch}.rope.freq_base", 1_000_000.0),
            "rope_local_base_freq": self.field("{arch}.rope.freq_base_swa", 10_000.0),
            "sliding_window_pattern": self.field("{arch}.attention.sliding_window_pattern", 6),
        }
        if self.field("{arch}.rope.scaling.type", "none") != "none":
            values["rope_scaling"] = {
                "rope_type": self.field("{arch}.rope.scaling.type"),
                "factor": self.field("{arch}.rope.scaling.factor"),
            }
        return values

    def _gemma4(self) -> dict[str, Any]:
        layers = int(self.field("{arch}.block_count"))
        sliding = list(self.field("{arch}.attention.sliding_window_pattern"))
        full_head_dim = int(self.field("{arch}.attention.key_length"))
        head_dim = int(self.field("{arch}.attention.key_length_swa"))
        kv_heads = _per_layer(self.field("{arch}.attention.head_count_kv"), layers)
        mlp = _per_layer(self.field("{arch}.feed_forward_length"), layers)
        experts = self.field("{arch}.expert_count")
        full = [index for index in range(layers) if not sliding[index]]
        return {
            "layer_types": [f"{'sliding' if s else 'full'}_attention" for s in sliding],
            "head_dim": head_dim,
            "num_key_value_heads": kv_heads[0],
            "per_layer_config": {
                i: {"head_dim": full_head_dim, "num_key_value_heads": kv_heads[i]} for i in full
            },
            "attention_k_eq_v": any(
                f"layers.{i}.self_attn.v_proj.weight" not in self.shapes
                and f"layers.{i}.self_attn.k_proj.weight" in self.shapes
                for i in full
            ),
            "num_kv_shared_layers": self.field("{arch}.attention.shared_kv_layers", 0),
            "intermediate_size": mlp[0],
            "use_double_wide_mlp": mlp[-1] == 2 * mlp[0],
            "hidden_size_per_layer_input": self.field("{arch}.embedding_length_per_layer_input", 0),
            "vocab_size_per_layer_input": self.shapes.get("embed_tokens_per_layer.weight", (1,))[0],
            "enable_moe_block": bool(experts),
            "num_experts": experts,
            "top_k_experts": self.field("{arch}.expert_used_count"),
            "moe_intermediate_size": self.field("{arch}.expert_feed_forward_length"),
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": self.field("{arch}.rope.freq_base", 1_000_000.0),
                    "partial_rotary_factor": self._rotated_share(),
                },
                "sliding_attention": {
                    "rope_theta": self.field("{arch}.rope.freq_base_swa", 10_000.0)
                },
            },
        }

    def _rotated_share(self) -> float:
        divisors = self._tensors.get(ROPE_DIVISORS)
        if divisors is None:
            return 0.25
        values = self._header.data(divisors).view(np.float32)
        return float((values < HUGE_DIVISOR).mean())


_CONFIG_KEYS = {
    "hidden_size": "{arch}.embedding_length",
    "num_hidden_layers": "{arch}.block_count",
    "num_attention_heads": "{arch}.attention.head_count",
    "max_position_embeddings": "{arch}.context_length",
    "rms_norm_eps": "{arch}.attention.layer_norm_rms_epsilon",
    "sliding_window": "{arch}.attention.sliding_window",
}


def canonical_name(stored: str) -> str:
    """Return the safetensors name of a GGUF tensor; unknown names come back unchanged."""
    if stored in _GLOBAL_NAMES:
        return _GLOBAL_NAMES[stored]
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", stored)
    if match is None or match[2] not in _LAYER_NAMES:
        return stored
    return f"layers.{match[1]}.{_LAYER_NAMES[match[2]]}"


def _per_layer(value: int | list[int], layers: int) -> list[int]:
    return list(value) if isinstance(value, list) else [int(value)] * layers
