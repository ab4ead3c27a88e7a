"""Tensors of a checkpoint -> parameters of a `Gemma`, name by name.

A checkpoint is a `TensorSource`: canonical names (those of the text decoder in safetensors files,
without their prefix) to tensors, whatever the file format. Before the first tensor is read, its
names and shapes are compared with what the config asks for: anything missing, unknown or of another
shape is refused, so nothing is ever half loaded.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from g4eval.engines.gemma.config import GemmaConfig, LayerConfig
from g4eval.engines.gemma.head import Head, is_screened
from g4eval.engines.gemma.layers import GatedMlp, ScaledEmbedding
from g4eval.engines.gemma.linear import Linear, make_linear
from g4eval.engines.gemma.memory import keep_freed_memory
from g4eval.engines.gemma.model import (
    Block,
    Gemma,
    MixtureOfExperts,
    PerLayerEmbeddings,
    PerLayerGate,
)
from g4eval.engines.gemma.moe import Experts, Router
from g4eval.engines.gemma.quantized import Quantization
from g4eval.engines.gemma.rope import inverse_frequencies
from g4eval.errors import EngineError

Shape = tuple[int, ...]
_ROWS_COMPARED = 4096  # at a time, so that a comparison takes little memory


class TensorSource(Protocol):
    """The text decoder's tensors of one checkpoint, by canonical name."""

    @property
    def where(self) -> str:
        """File or folder, for messages."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape by name."""
        ...

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of each tensor as `load` returns it."""
        ...

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Stored dtype by name, as safetensors calls it; none where every one of them is run."""
        ...

    @property
    def norms_include_one(self) -> bool:
        """Whether Gemma 3's norm weights are stored as 1 + w."""
        ...

    def load(self, name: str) -> Tensor:
        """Return one tensor in the dtype of the file, on the device it will live on."""
        ...


def expected_shapes(config: GemmaConfig) -> dict[str, Shape]:
    """Return canonical name to shape of every tensor that this decoder needs."""
    width, heads = config.hidden_size, config.query_heads
    shapes: dict[str, Shape] = {
        "embed_tokens.weight": (config.vocab_size, width),
        "norm.weight": (width,),
    }
    if not config.tied_head:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    if config.ple_size:
        total = len(config.layers) * config.ple_size
        shapes["embed_tokens_per_layer.weight"] = (config.ple_vocab_size, total)
        shapes["per_layer_model_projection.weight"] = (total, width)
        shapes["per_layer_projection_norm.weight"] = (config.ple_size,)
    for layer in config.layers:
        for name, shape in _layer_shapes(config, layer, width, heads).items():
            shapes[f"layers.{layer.index}.{name}"] = shape
    return shapes


def _layer_shapes(
    config: GemmaConfig, layer: LayerConfig, width: int, heads: int
) -> dict[str, Shape]:
    head_dim, mlp = layer.head_dim, layer.mlp_size
    shapes: dict[str, Shape] = {
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
        "pre_feedforward_layernorm.weight": (width,),
        "post_feedforward_layernorm.weight": (width,),
        "self_attn.q_proj.weight": (heads * head_dim, width),
        "self_attn.o_proj.weight": (width, heads * head_dim),
        "self_attn.q_norm.weight": (head_dim,),
        "mlp.gate_proj.weight": (mlp, width),
        "mlp.up_proj.weight": (mlp, width),
        "mlp.down_proj.weight": (width, mlp),
    }
    if layer.kv_donor is None:
        shapes |= _key_value_shapes(layer, width)
    if config.generation == 4:
        shapes["layer_scalar"] = (1,)
    if config.ple_size:
        shapes["per_layer_input_gate.weight"] = (config.ple_size, width)
        shapes["per_layer_projection.weight"] = (width, config.ple_size)
        shapes["post_per_layer_input_norm.weight"] = (width,)
    if config.moe is not None:
        experts, inner = config.moe.experts, config.moe.inner_size
        shapes["router.proj.weight"] = (experts, width)
        shapes["router.scale"] = (width,)
        shapes["router.per_expert_scale"] = (experts,)
        shapes["experts.gate_up_proj"] = (experts, 2 * inner, width)
        shapes["experts.down_proj"] = (experts, width, inner)
        shapes["post_feedforward_layernorm_1.weight"] = (width,)
        shapes["post_feedforward_layernorm_2.weight"] = (width,)
        shapes["pre_feedforward_layernorm_2.weight"] = (width,)
    return shapes


def _key_value_shapes(layer: LayerConfig, width: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "self_attn.k_proj.weight": (layer.kv_heads * layer.head_dim, width),
        "self_attn.k_norm.weight": (layer.head_dim,),
    }
    if not layer.value_is_key:
        shapes["self_attn.v_proj.weight"] = (layer.kv_heads * layer.head_dim, width)
    return shapes


def _may_be_left_over(config: GemmaConfig) -> set[str]:
    """Return names that some files carry and no forward pass reads."""
    names = {"lm_head.weight"}  # a copy of the tied embedding
    for layer in config.layers:
        if layer.kv_donor is not None:
            names |= {f"layers.{layer.index}.{name}" for name in _key_value_shapes(layer, 1)}
            names.add(f"layers.{layer.index}.self_attn.v_proj.weight")
    return names


def check_tensors(config: GemmaConfig, source: TensorSource, quantization: Quantization) -> None:
    """Compare a checkpoint's tensors with what the config asks for.

    Raises:
        EngineError: names the tensors that are missing, unknown or of another shape.
    """
    whole = ("embed_tokens.weight_", "embed_tokens_per_layer.weight_", "lm_head.weight_")
    rounded = [name for name in source.shapes if name.startswith(whole)]
    if rounded:
        raise EngineError(
            f"the embedding or the head is quantized: {_some(rounded)}",
            where=source.where,
            hint="use a checkpoint that keeps both in bfloat16 or float32",
        )
    expected = quantization.expected_shapes(expected_shapes(config), source.shapes)
    left_over = quantization.variants(_may_be_left_over(config))
    missing = expected.keys() - source.shapes.keys()
    unknown = source.shapes.keys() - expected.keys() - left_over
    if missing or unknown:
        parts = [
            f"{kind} {_some(names)}"
            for kind, names in (("missing:", missing), ("unknown:", unknown))
            if names
        ]
        raise EngineError(
            f"the tensors aren't those of this {config.model_type} config; {'; '.join(parts)}",
            where=source.where,
            hint="use config.json and weights of one revision, all shards there",
        )
    for name, shape in expected.items():
        if tuple(source.shapes[name]) != shape:
            raise EngineError(
                f"tensor {name!r} has shape {list(source.shapes[name])}, "
                f"the config asks for {list(shape)}",
                where=source.where,
            )
    for name, dtype in source.dtypes.items():
        allowed = quantization.dtypes(name, source.shapes)
        if name in expected and dtype not in allowed:
            raise EngineError(
                f"tensor {name!r} is stored as {dtype}, where {' or '.join(allowed)} is run",
                where=source.where,
            )


def weight_bytes(
    config: GemmaConfig, source: TensorSource, device: torch.device, dtype: torch.dtype
) -> int:
    """Return the memory that the loaded model will take, from names and shapes alone."""
    quantization = Quantization.of(config.quantization, where=source.where)
    as_stored = {"embed_tokens.weight", "embed_tokens_per_layer.weight"}
    total = 0
    for name, shape in expected_shapes(config).items():
        parts = [f"{name}_packed", f"{name}_scale"]
        if quantization.kind != "none" and (name in as_stored or parts[1] in source.nbytes):
            total += sum(source.nbytes.get(part, 0) for part in (name, *parts))
        elif name in as_stored:
            total += source.nbytes.get(name, 0)
        else:
            total += math.prod(shape) * dtype.itemsize
    packed_head = device.type == "cpu" and dtype is torch.float32
    stored_head = source.nbytes.get("embed_tokens.weight", 0)
    head = config.vocab_size * config.hidden_size * dtype.itemsize
    if config.tied_head and (packed_head or stored_head != head):
        total += head
    if is_screened(device, dtype):
        total += config.vocab_size * config.hidden_size * torch.bfloat16.itemsize
        if not config.tied_head:  # kept as stored too, to be read token by token
            total += source.nbytes.get("lm_head.weight", 0)
    return total


def _some(names: Iterable[str], most: int = 6) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more


class _Loader:
    """Turns names into parameters on one device, in one dtype."""

    def __init__(
        self,
        config: GemmaConfig,
        source: TensorSource,
        quantization: Quantization,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._source = source
        self._quantization = quantization
        self._device = device
        self._dtype = dtype
        self._norm_offset = config.generation == 3 and not source.norms_include_one

    def raw(self, name: str) -> Tensor:
        tensor = self._source.load(name)
        values = tensor.float() if tensor.dtype is torch.float8_e4m3fn else tensor
        if not bool(torch.isfinite(values).all()):
            raise EngineError(
                f"tensor {name!r} holds NaN or infinity: the file is damaged",
                where=self._source.where,
                hint="download it again and compare its SHA-256",
            )
        return tensor.to(self._device)

    def vector(self, name: str) -> Tensor:
        return self.raw(name).to(self._dtype)

    def norm(self, name: str) -> Tensor:
        weight = self.raw(name + ".weight").float()
        return weight + 1.0 if self._norm_offset else weight

    def linear(self, *names: str) -> Linear:
        return self._quantization.linear(names, self._source.shapes, self.raw, self._dtype)

    def experts(self, prefix: str) -> Experts:
        gate_up = self.raw(prefix + "gate_up_proj")
        down = self.raw(prefix + "down_proj")
        inner = down.shape[2]
        return Experts(
            mlps=[
                GatedMlp(
                    gate=make_linear([gate_up[e, :inner].to(self._dtype)]),
                    up=make_linear([gate_up[e, inner:].to(self._dtype)]),
                    down=make_linear([down[e].to(self._dtype)]),
                )
                for e in range(len(down))
            ]
        )


def load_model(
    config: GemmaConfig, source: TensorSource, device: torch.device, dtype: torch.dtype
) -> Gemma:
    """Load a checkpoint; at most one tensor exists twice at any moment, but for the head.

    The embedding tables keep the file's dtype and are widened row by row. A float32 model on CPU
    holds its head a second time, in the layout of its product, and rounded for `Screen`.

    Raises:
        EngineError: the tensors don't fit the config, or one is damaged; nothing stays loaded.
    """
    if device.type == "cpu":
        keep_freed_memory()
    quantization = Quantization.of(config.quantization, where=source.where)
    check_tensors(config, source, quantization)
    load = _Loader(config, source, quantization, device, dtype)
    table = load.raw("embed_tokens.weight")
    if config.tied_head and "lm_head.weight" in source.shapes:
        _refuse_another_head(table, load.raw("lm_head.weight"), source.where)
    head = table if config.tied_head else load.raw("lm_head.weight")
    sliding = next((x.head_dim for x in config.layers if x.sliding), 2)
    full = next((x.head_dim for x in config.layers if not x.sliding), 2)
    return Gemma(
        config=config,
        device=device,
        dtype=dtype,
        embedding=ScaledEmbedding(table=table, scale=config.hidden_size**0.5, dtype=dtype),
        ple=_per_layer_embeddings(config, load, dtype) if config.ple_size else None,
        blocks=tuple(_block(config, layer, load) for layer in config.layers),
        norm=load.norm("norm"),
        head=Head(head, dtype, config.logit_softcap, screened=is_screened(device, dtype)),
        frequencies_sliding=inverse_frequencies(config.rope_sliding, sliding).to(device),
        frequencies_full=inverse_frequencies(config.rope_full, full).to(device),
    )


def _refuse_another_head(table: Tensor, head: Tensor, where: object) -> None:
    """Refuse a stored head that isn't the copy of the embedding that the config says it is.

    transformers would use it, vLLM and llama.cpp's converter would leave it out; which of them is
    meant stands nowhere.
    """
    same = head.shape == table.shape and all(
        torch.equal(a.float(), b.float())
        for a, b in zip(
            torch.split(head, _ROWS_COMPARED), torch.split(table, _ROWS_COMPARED), strict=True
        )
    )
    if not same:
        raise EngineError(
            "the config ties the head to the embedding (tie_word_embeddings), and the file holds "
            "an lm_head.weight with other values",
            where=where,
            hint="set tie_word_embeddings to false in config.json where this head is the model's, "
            "as transformers takes it; take the tensor out where it is not, as vLLM does",
        )


def _per_layer_embeddings(
    config: GemmaConfig, load: _Loader, dtype: torch.dtype
) -> PerLayerEmbeddings:
    table = load.raw("embed_tokens_per_layer.weight")
    return PerLayerEmbeddings(
        embedding=ScaledEmbedding(table=table, scale=config.ple_size**0.5, dtype=dtype),
        projection=load.linear("per_layer_model_projection"),
        norm=load.norm("per_layer_projection_norm"),
    )


def _block(config: GemmaConfig, layer: LayerConfig, load: _Loader) -> Block:
    at = f"layers.{layer.index}."
    owns = layer.kv_donor is None
    projections = ["q_proj"]
    if owns:
        projections += ["k_proj"] if layer.value_is_key else ["k_proj", "v_proj"]
    return Block(
        layer=layer,
        input_norm=load.norm(at + "input_layernorm"),
        qkv=load.linear(*(f"{at}self_attn.{name}" for name in projections)),
        qk_norm=_head_norms(config, layer, at, load),
        attention_out=load.linear(at + "self_attn.o_proj"),
        post_attention_norm=load.norm(at + "post_attention_layernorm"),
        pre_mlp_norm=load.norm(at + "pre_feedforward_layernorm"),
        mlp=GatedMlp(
            gate=load.linear(at + "mlp.gate_proj"),
            up=load.linear(at + "mlp.up_proj"),
            down=load.linear(at + "mlp.down_proj"),
        ),
        post_mlp_norm=load.norm(at + "post_feedforward_layernorm"),
        moe=None if config.moe is None else _mixture(config, at, load),
        ple=_per_layer_gate(at, load) if config.ple_size else None,
        scalar=load.vector(at + "layer_scalar") if config.generation == 4 else None,
    )


def _head_norms(config: GemmaConfig, layer: LayerConfig, at: str, load: _Loader) -> Tensor:
    """Return the norm of every query head, then of every key head that the layer owns."""
    norms = [load.norm(at + "self_attn.q_norm").expand(config.query_heads, -1)]
    if layer.kv_donor is None:
        norms.append(load.norm(at + "self_attn.k_norm").expand(layer.kv_heads, -1))
    return torch.cat(norms)


def _per_layer_gate(at: str, load: _Loader) -> PerLayerGate:
    return PerLayerGate(
        gate=load.linear(at + "per_layer_input_gate"),
        projection=load.linear(at + "per_layer_projection"),
        out_norm=load.norm(at + "post_per_layer_input_norm"),
    )


def _mixture(config: GemmaConfig, at: str, load: _Loader) -> MixtureOfExperts:
    assert config.moe is not None
    return MixtureOfExperts(
        router=Router(
            proj=load.linear(at + "router.proj"),
            scale=load.vector(at + "router.scale"),
            per_expert_scale=load.vector(at + "router.per_expert_scale"),
            active=config.moe.active,
            eps=config.rms_eps,
        ),
        experts=load.experts(at + "experts."),
        dense_out_norm=load.norm(at + "post_feedforward_layernorm_1"),
        experts_in_norm=load.norm(at + "pre_feedforward_layernorm_2"),
        experts_out_norm=load.norm(at + "post_feedforward_layernorm_2"),
    )
