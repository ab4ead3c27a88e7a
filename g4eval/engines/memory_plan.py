"""Will it fit: the memory a model needs, against what the devices have, said before loading.

An estimate from config.json and file sizes alone. Weights count as stored (changed to the dtype
asked for), the key/value cache layer by layer as vLLM counts it: full attention grows with the
context, a sliding window doesn't past its end and what one step adds to it, layers that share
another's cache have none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g4eval.engines.hardware import Device
from g4eval.errors import EngineError

GIB = 2**30
# Beside weights and cache: CUDA's context, its graphs, activations. Measured on none: a reserve.
_RESERVE_BYTES = 3 * GIB
_BLOCK_TOKENS = 16  # vLLM's cache is cut into pages of so many tokens of a layer, or more
_WANTED_SEQUENCES = 8  # fewer at once leave a GPU waiting for its memory
_DTYPE_BYTES = {
    name: size
    for size, names in {
        4: ("float32", "float"),
        2: ("float16", "half", "bfloat16"),
        1: ("fp8", "fp8_e4m3", "fp8_e5m2"),
    }.items()
    for name in names
}
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What one sequence keeps of its past, in bytes."""

    full_bytes_per_token: int
    sliding_bytes_per_token: int
    window_tokens: int  # with the tokens of one step
    full_block: int = 1  # tokens a page
    sliding_block: int = 1

    def bytes_at(self, tokens: int) -> int:
        """Return the size of one sequence's cache at a length, in whole pages."""
        full = math.ceil(tokens / self.full_block) * self.full_block
        if not self.sliding_bytes_per_token:
            return self.full_bytes_per_token * full
        # One page more: a window begins anywhere in a page.
        pages = math.ceil(min(tokens, self.window_tokens) / self.sliding_block) + 1
        sliding = self.sliding_bytes_per_token * pages * self.sliding_block
        return self.full_bytes_per_token * full + sliding


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How a model lies on the devices."""

    weights_bytes: int
    cache: Cache
    context_tokens: int
    devices: tuple[Device, ...]
    usable_bytes: int  # of one device, for weights and cache together
    n_together: int  # devices that share one copy of the weights
    n_copies: int = 1  # of the weights, data parallel
    cache_bytes: int | None = None  # set by the user; None: all that the weights leave

    @property
    def n_sequences(self) -> int:
        """How many sequences of full length fit at once."""
        left = self.usable_bytes * self.n_together - self.weights_bytes
        if self.cache_bytes is not None:
            left = min(left, self.cache_bytes)
        return max(0, left // max(1, self.cache.bytes_at(self.context_tokens)))

    def __str__(self) -> str:
        copies = f" over {self.n_together} devices" if self.n_together > 1 else ""
        limit = self.cache_bytes
        within = "" if limit is None else f" in a cache of {limit / GIB:.1f} GiB"
        idle = len(self.devices) - self.n_together * self.n_copies
        return (
            f"memory plan: weights {self.weights_bytes / GIB:.1f} GiB{copies},"
            f" cache {self.cache.bytes_at(self.context_tokens) / GIB:.2f} GiB for"
            f" {self.context_tokens:,} tokens, so {self.n_sequences} of that length at once"
            f"{within} in {self.n_together} x {self.usable_bytes / GIB:.1f} GiB usable"
            f" ({self.devices[0].name})"
            + (f"; {idle} idle: engine.data_parallel_size uses them" if idle > 0 else "")
        )


def plan_memory(
    weights_bytes: int,
    config: Mapping[str, Any],
    devices: Sequence[Device],
    *,
    context_tokens: int,
    cache_dtype: str = "auto",
    share: float = 0.9,
    n_together: int | None = None,
    n_stages: int = 1,
    step_tokens: int = 1,
    cache_bytes: int | None = None,
) -> MemoryPlan:
    """Return the plan with the fewest devices that hold the weights and eight full sequences.

    Where none holds eight, the one that holds most; one must fit.

    Args:
        weights_bytes: as loaded.
        config: the model's config.json.
        devices: all of one kind.
        context_tokens: prompt and completion together.
        cache_dtype: of keys and values; auto: of two bytes, as vLLM takes float32 models too.
        share: of a device's memory that the engine may use.
        n_together: how many devices share the weights; None: choose.
        n_stages: of a pipeline; the devices of one stage split its heads. Stages are taken as
            equal, without the second copy of a tied embedding.
        step_tokens: of one sequence, computed in one step at most.
        cache_bytes: the cache's size where it is set; None: all that the weights leave.

    Raises:
        EngineError: it doesn't fit, with what would make it fit.
    """
    smallest = min(device.memory_bytes for device in devices)
    usable = int(smallest * share) - _RESERVE_BYTES
    if n_stages > len(devices):
        raise EngineError(
            f"a pipeline of {n_stages} stages needs as many devices, and there are {len(devices)}",
            where="--set engine.pipeline_parallel_size",
        )
    per_stage = _divisors(config, len(devices) // n_stages)
    counts = [n_together] if n_together else [count * n_stages for count in per_stage]
    plans = [
        MemoryPlan(
            weights_bytes=weights_bytes,
            cache=cache_of(
                config, cache_dtype, step_tokens=step_tokens, n_tensor=count // n_stages
            ),
            context_tokens=context_tokens,
            devices=tuple(devices),
            usable_bytes=usable,
            n_together=count,
            cache_bytes=cache_bytes,
        )
        for count in counts
    ]
    roomy = (plan for plan in plans if plan.n_sequences >= _WANTED_SEQUENCES)
    plan = next(roomy, None) or max(plans, key=lambda plan: (plan.n_sequences, plan.n_together))
    if plan.n_sequences >= 1:
        return plan
    one = plan.cache.bytes_at(context_tokens)
    if cache_bytes is not None and cache_bytes < one:
        raise EngineError(
            f"the cache is set to {cache_bytes / GIB:.1f} GiB, and one sequence of"
            f" {context_tokens:,} tokens needs {one / GIB:.1f} GiB",
            hint="set a larger cache, or a shorter engine.context_tokens",
        )
    needed = weights_bytes + one
    have = max(0, usable) * plan.n_together
    raise EngineError(
        f"the model needs {needed / GIB:.1f} GiB for weights and one sequence of"
        f" {context_tokens:,} tokens; {plan.n_together} x {devices[0].name} have"
        f" {have / GIB:.1f} GiB usable",
        hint="use more or larger GPUs, a shorter engine.context_tokens, or a quantized model",
    )


def weights_on_disk(model_files: Path) -> int:
    """Return the size of the weight files, in bytes."""
    if model_files.is_file():
        return model_files.stat().st_size
    sizes: dict[str, list[int]] = {}
    for path in model_files.iterdir():
        if path.suffix in _WEIGHT_SUFFIXES:
            sizes.setdefault(path.suffix, []).append(path.stat().st_size)
    return sum(sizes.get(".safetensors") or max(sizes.values(), default=[0], key=sum))


def loaded_bytes(on_disk: int, config: Mapping[str, Any], dtype: str) -> int:
    """Return what the weights take once loaded as `dtype`; a quantized model stays as it is."""
    stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    if "quantization_config" in config or dtype not in _DTYPE_BYTES or stored not in _DTYPE_BYTES:
        return on_disk
    return on_disk * _DTYPE_BYTES[dtype] // _DTYPE_BYTES[stored]


def cache_of(
    config: Mapping[str, Any],
    cache_dtype: str = "auto",
    *,
    step_tokens: int = 1,
    n_tensor: int = 1,
) -> Cache:
    """Return the size of a model's key/value cache, on all devices together.

    Source of the rules for Gemma 4: configuration_gemma4.py, transformers 5.23; of vLLM's pages:
    kv_cache_utils.py and kv_cache_interface.py, vLLM 0.25.

    Args:
        config: the model's config.json.
        cache_dtype: of keys and values; auto: of two bytes, as vLLM takes float32 models too.
        step_tokens: of one sequence, computed in one step at most: a window holds them as well.
        n_tensor: devices that split the heads; where heads are fewer, each has one of its own.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    n_layers = int(text.get("num_hidden_layers") or 0)
    size = _DTYPE_BYTES.get(cache_dtype) or 2
    owners = _layer_types(text)[: n_layers - int(text.get("num_kv_shared_layers") or 0)]
    n_full = sum(layer_type == "full_attention" for layer_type in owners)
    counts = _padded(n_full, len(owners) - n_full)
    pages = [
        2 * max(_kv_heads(text, is_full), n_tensor) * _head_size(text, is_full) * size
        for is_full in (True, False)
    ]
    blocks = [_BLOCK_TOKENS] * 2
    if all(counts):  # one page size for both kinds: the smaller layer's page holds more tokens
        blocks = [_BLOCK_TOKENS * max(1, max(pages) // page) for page in pages]
    return Cache(
        full_bytes_per_token=counts[0] * pages[0],
        sliding_bytes_per_token=counts[1] * pages[1],
        window_tokens=int(text.get("sliding_window") or 0) - 1 + step_tokens,
        full_block=blocks[0],
        sliding_block=blocks[1],
    )


def _padded(n_full: int, n_sliding: int) -> tuple[int, int]:
    """Return how many layers of each kind vLLM makes room for: groups of one size."""
    if not n_full or not n_sliding:
        return n_full, n_sliding
    smaller, larger = sorted((n_full, n_sliding))
    group = larger if larger < 1.5 * smaller else smaller
    return math.ceil(n_full / group) * group, math.ceil(n_sliding / group) * group


def _layer_types(text: Mapping[str, Any]) -> list[str]:
    n_layers = int(text.get("num_hidden_layers") or 0)
    if types := text.get("layer_types"):
        return list(types)
    if text.get("sliding_window") and str(text.get("model_type", "")).startswith("gemma"):
        period = int(text.get("sliding_window_pattern") or 6)
        return [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
            for layer in range(n_layers)
        ]
    return ["full_attention"] * n_layers


def _kv_heads(text: Mapping[str, Any], is_full: bool) -> int:  # noqa: FBT001  one of two kinds
    if is_full and text.get("attention_k_eq_v") and text.get("num_global_key_value_heads"):
        return int(text["num_global_key_value_heads"])
    return int(text.get("num_key_value_heads") or text.get("num_attention_heads") or 0)


def _head_size(text: Mapping[str, Any], is_full: bool) -> int:  # noqa: FBT001  one of two kinds
    if is_full and text.get("global_head_dim"):
        return int(text["global_head_dim"])
    heads = int(text.get("num_attention_heads") or 1)
    return int(text.get("head_dim") or int(text.get("hidden_size") or 0) // heads)


def _divisors(config: Mapping[str, Any], n_devices: int) -> list[int]:
    """Return counts of a stage's devices that divide the query heads evenly: 1, 2, 4, 8."""
    text: Mapping[str, Any] = config.get("text_config") or config
    heads = int(text.get("num_attention_heads") or 1)
    powers = [2**k for k in range(int(math.log2(n_devices)) + 1)]
    return [count for count in powers if heads % count == 0]
