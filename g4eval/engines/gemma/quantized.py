"""Quantized safetensors: which tensors stand for a weight, and the product made from them.

Understood: compressed-tensors `pack-quantized` (4-bit integers, symmetric, grouped or by channel)
and `float-quantized` / `naive-quantized` with E4M3 weights by channel or tensor. Weights stay
packed in memory. Every other format is refused by name, as are quantized activations, dynamic ones
too, and KV scales: this engine could only ignore them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from g4eval.engines.gemma.linear import Fp8Linear, Int4Linear, Linear, make_linear
from g4eval.errors import EngineError

INT4_FORMAT = "pack-quantized"
FP8_FORMATS = ("float-quantized", "naive-quantized")
PLAIN_DTYPES = ("BF16", "F16", "F32", "F64")
MAX_GROUP = 1 << 20
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights of linear layers are stored."""

    kind: Literal["none", "int4", "fp8"] = "none"
    group_size: int | None = None  # inputs a scale of int4; None: one a row

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, *, where: object) -> "Quantization":
        """Read a `quantization_config`; raises EngineError for what can't be run exactly."""
        method = (config or {}).get("quant_method")
        if config is None or method is None:
            return cls()  # unquantized QAT checkpoints carry one without a method
        if method != "compressed-tensors":
            raise _refused(f"quant_method {method!r:.100}", where)
        if config.get("kv_cache_scheme"):
            raise _refused("a kv_cache_scheme", where)
        groups = config.get("config_groups") or {}
        if not isinstance(groups, Mapping) or len(groups) != 1:
            count = len(groups) if isinstance(groups, Mapping) else groups
            raise _refused(f"{count!r:.100} config_groups", where)
        (group,) = groups.values()
        group = group if isinstance(group, Mapping) else {}
        for activations in ("input_activations", "output_activations"):
            if group.get(activations):
                raise _refused(f"quantized activations ({activations})", where)
        form = group.get("format") or config.get("format")
        weights = group.get("weights")
        weights = dict(weights) if isinstance(weights, Mapping) else {}
        size = weights.get("group_size")
        if size is not None and (type(size) is not int or not 0 < size <= MAX_GROUP):
            raise _refused(f"group_size {size!r:.100}", where)
        asymmetric = not weights.get("symmetric", True) or weights.get("actorder")
        if form == INT4_FORMAT and weights.get("num_bits") == 4 and not asymmetric:
            return cls("int4", size)
        if form in FP8_FORMATS and weights.get("type") == "float" and not asymmetric:
            return cls("fp8")
        raise _refused(f"format {form!r:.100} with weights {weights!r:.300}", where)

    @property
    def name(self) -> str:
        """As the engine's facts say it."""
        return {"none": "none", "int4": "w4a16", "fp8": "fp8-weights"}[self.kind]

    def expected_shapes(
        self, plain: Mapping[str, Shape], there: Mapping[str, Shape]
    ) -> dict[str, Shape]:
        """Replace the plain shapes of weights that are stored quantized by those of their parts."""
        shapes: dict[str, Shape] = {}
        for name, shape in plain.items():
            shapes |= self._parts(name, shape, there)
        return shapes

    def _parts(self, name: str, shape: Shape, there: Mapping[str, Shape]) -> dict[str, Shape]:
        if self.kind == "int4" and f"{name}_packed" in there and len(shape) == 2:
            rows, columns = shape
            groups = 1 if self.group_size is None else -(-columns // self.group_size)
            return {
                f"{name}_packed": (rows, -(-columns // 8)),
                f"{name}_scale": (rows, groups),
                f"{name}_shape": (2,),
            }
        if self.kind == "fp8" and f"{name}_scale" in there:
            scale = there[f"{name}_scale"]
            one_a_tensor = scale in ((), (1,), (1, 1))
            return {name: shape, f"{name}_scale": scale if one_a_tensor else (shape[0], 1)}
        return {name: shape}

    def variants(self, names: Iterable[str]) -> set[str]:
        """Return every name under which one of these weights may be stored."""
        suffixes = ("", "_packed", "_scale", "_shape") if self.kind != "none" else ("",)
        return {name + suffix for name in names for suffix in suffixes}

    def dtypes(self, name: str, there: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return the dtypes, as safetensors names them, that a tensor may be stored in."""
        if self.kind == "int4" and name.endswith("_packed"):
            return ("I32",)
        if self.kind == "int4" and name.endswith("_shape"):
            return ("I64", "I32")
        if self.kind == "fp8" and f"{name}_scale" in there:
            return ("F8_E4M3",)
        return PLAIN_DTYPES

    def linear(
        self,
        names: Sequence[str],
        there: Mapping[str, Shape],
        raw: Callable[[str], Tensor],
        dtype: torch.dtype,
    ) -> Linear:
        """Return the product of the named weights, stacked along their outputs."""
        for part in ("weight_packed", "weight_scale"):
            stored = [f"{name}.{part}" in there for name in names]
            if any(stored) and not all(stored):
                raise _refused(f"only some of {', '.join(names)} quantized", "its tensors")
        if self.kind == "int4" and f"{names[0]}.weight_packed" in there:
            packed = torch.cat([raw(f"{name}.weight_packed") for name in names])
            scale = torch.cat([raw(f"{name}.weight_scale") for name in names])
            columns = int(raw(f"{names[0]}.weight_shape")[1])
            if -(-columns // 8) != packed.shape[1]:
                raise _refused(f"weight_shape {columns:,} over {packed.shape[1]:,} words", names[0])
            return Int4Linear(packed, scale.to(dtype), columns)
        if self.kind == "fp8" and f"{names[0]}.weight_scale" in there:
            weights = [raw(f"{name}.weight") for name in names]
            scales = [raw(f"{name}.weight_scale").reshape(-1, 1) for name in names]
            rows = [s.expand(len(w), 1) for s, w in zip(scales, weights, strict=True)]
            return Fp8Linear(torch.cat(weights), torch.cat(rows).float())
        return make_linear([raw(f"{name}.weight").to(dtype) for name in names])


def _refused(what: str, where: object) -> EngineError:
    return EngineError(
        f"quantized weights with {what} are not run by the gemma engine",
        where=where,
        hint="use --engine vllm, or the unquantized or GGUF weights",
    )
