"""GGUF checkpoints: memory-mapped files with config, tensors, tokenizer and template.

The file's own names are turned into those of a config.json and of safetensors files, so everything
after this module sees one format. Quantized tensors are widened to float32 as they are loaded. A
model split over several files is read from all of them; vision and audio tensors, which Ollama
keeps in the same file, are left out.

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

from g4eval.engines.gemma.gguf_config import config_values
from g4eval.engines.gemma.gguf_fields import GgufFields
from g4eval.engines.gemma.gguf_header import GgufHeader, StoredTensor
from g4eval.engines.model_files import gguf_parts
from g4eval.errors import EngineError

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
# Vision, its projector, audio; no tensor of the text decoder begins so.
SKIPPED_PREFIXES = ("v.", "mm.", "a.", "s.")
_PLAIN = {
    gguf.GGMLQuantizationType.F32: torch.float32,
    gguf.GGMLQuantizationType.F16: torch.float16,
    gguf.GGMLQuantizationType.BF16: torch.bfloat16,
}


class GgufSource:
    """One GGUF model, open.

    Args:
        path: the file, or any part of one that is split.
        device: where tensors are put.

    Raises:
        EngineError: a file is no GGUF file or not whole, or parts are missing or don't belong
            together.
    """

    norms_include_one = True  # the converter adds Gemma 3's one

    def __init__(self, path: Path, device: torch.device) -> None:
        self.where = str(path)
        self.path = path
        self._device = device
        self._headers = _open_parts(path)
        self.fields = GgufFields(self._headers[0].fields, path)
        self._tensors: dict[str, tuple[GgufHeader, StoredTensor]] = {}  # by the file's own name
        for header in self._headers:
            for name, tensor in header.tensors.items():
                if name in self._tensors:
                    raise EngineError(f"tensor {name!r:.100} is stored twice", where=header.path)
                self._tensors[name] = (header, tensor)
        self._names: dict[str, str] = {}
        self.skipped = 0  # tensors of vision and audio
        self.shapes = self._read_shapes()
        self.dtypes: dict[str, str] = {}  # a header names no type that can't be run or widened
        self.nbytes = {name: self._loaded_bytes(stored) for name, stored in self._names.items()}

    def _read_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for stored, (_, tensor) in self._tensors.items():
            if stored == ROPE_DIVISORS:
                continue
            if stored.startswith(SKIPPED_PREFIXES):
                self.skipped += 1
                continue
            name = canonical_name(stored)
            self._names[name] = stored
            shapes[name] = tensor.shape
        return shapes

    def _loaded_bytes(self, stored: str) -> int:
        _, tensor = self._tensors[stored]
        itemsize = _PLAIN.get(tensor.kind, torch.float32).itemsize
        return math.prod(tensor.shape) * itemsize

    def load(self, name: str) -> Tensor:
        """Return one tensor, widened to float32 unless stored in half precision."""
        header, tensor = self._tensors[self._names[name]]
        data = header.data(tensor)
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

    @property
    def quantization(self) -> str:
        """The tensor types of the text decoder, most common first: `Q5_0 Q4_K Q8_0`."""
        counts: dict[str, int] = {}
        for stored in self._names.values():
            _, tensor = self._tensors[stored]
            if len(tensor.shape) > 1:
                kind = tensor.kind.name
                counts[kind] = counts.get(kind, 0) + math.prod(tensor.shape)
        plain = {"F32", "F16", "BF16"}
        ordered = sorted(counts, key=lambda kind: -counts[kind])
        return "none" if plain.issuperset(ordered) else "gguf " + " ".join(ordered)

    def config_values(self) -> dict[str, Any]:
        """Return the file's metadata under the names of a config.json.

        Raises:
            EngineError: another architecture, a key is missing or of another type, or rotary
                divisors that this engine would not apply.
        """
        return config_values(self.fields, self.shapes, self._rotated_share())

    def _rotated_share(self) -> float | None:
        """Return the share of pairs that rotate; None where no tensor says it."""
        if ROPE_DIVISORS not in self._tensors:
            return None
        header, tensor = self._tensors[ROPE_DIVISORS]
        values = np.zeros(0, np.float32)
        if tensor.kind is gguf.GGMLQuantizationType.F32:
            values = header.data(tensor).view(np.float32).reshape(-1)
        rotated = int((values == 1).sum())
        # Anything but ones, then huge ones, scales frequencies in a way of its own.
        if not rotated or not bool((values[:rotated] == 1).all() and _huge(values[rotated:])):
            raise EngineError(
                f"tensor {ROPE_DIVISORS!r} divides rotary frequencies in a way that isn't run",
                where=self.where,
                hint="use --engine openai with llama.cpp, or the safetensors weights",
            )
        share = rotated / len(values)
        if share < 1 and self.fields.text("general.architecture") == "gemma3":
            raise EngineError(
                f"tensor {ROPE_DIVISORS!r} leaves positions out, which no Gemma 3 does",
                where=self.where,
            )
        return share


def _huge(values: NDArray[np.float32]) -> bool:
    return bool((values >= HUGE_DIVISOR).all())


def _open_parts(path: Path) -> list[GgufHeader]:
    """Open a file, or every part of a split one, the first part first."""
    header = GgufHeader(path)
    count = GgufFields(header.fields, path).integer("split.count") or 1
    if count == 1:
        return [header]
    paths = gguf_parts(path)
    if len(paths) != count:
        raise EngineError(
            f"is one of {count:,} parts, and its name says otherwise",
            where=path,
            hint="keep the names NAME-00001-of-0000N.gguf that the parts came with",
        )
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        raise EngineError(
            f"parts are missing: {', '.join(missing[:6])}", where=path.parent, hint="download them"
        )
    headers = [GgufHeader(part) for part in paths]
    for number, part in enumerate(headers):
        fields = GgufFields(part.fields, part.path)
        if (fields.integer("split.no"), fields.integer("split.count")) != (number, count):
            raise EngineError(
                f"is not part {number + 1} of {count}", where=part.path, hint="download it again"
            )
    total = GgufFields(headers[0].fields, path).integer("split.tensors.count")
    found = sum(len(part.tensors) for part in headers)
    if total is not None and total != found:
        raise EngineError(f"the parts hold {found:,} tensors, and {total:,} are stated", where=path)
    return headers


def canonical_name(stored: str) -> str:
    """Return the safetensors name of a GGUF tensor; unknown names come back unchanged."""
    if stored in _GLOBAL_NAMES:
        return _GLOBAL_NAMES[stored]
    match = re.fullmatch(r"blk\.(\d{1,4})\.(.+)", stored)
    if match is None or match[2] not in _LAYER_NAMES:
        return stored
    return f"layers.{match[1]}.{_LAYER_NAMES[match[2]]}"
