"""Plan memory before anything is loaded; refuse what doesn't fit, with the numbers."""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from g4eval.engines.gemma.batch import span_of
from g4eval.engines.gemma.cache import bytes_per_slot, bytes_per_token
from g4eval.engines.gemma.config import GemmaConfig
from g4eval.engines.gemma.scheduler import PROMPT_ROWS_A_STEP, Capacity
from g4eval.errors import EngineError

GIB = 2**30
USABLE_SHARE = 0.9  # of free memory; the rest is the framework's and other programs'
SMALLEST_CONTEXT = 2048  # tokens that must fit for one request, or the whole context if shorter
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
PREFIX_SHARE = 0.1  # of what weights leave, for prompt beginnings kept


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What a loaded model takes, and what that leaves for requests."""

    weight_bytes: int
    work_bytes: int  # logits and activations of a step
    free_bytes: int
    capacity: Capacity


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be had on a device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of freed memory for the next step, where this runs on glibc.

    By default it returns a step's activations to the system and gets new pages for the next ones:
    hundreds of thousands of page faults for the prompts of a batch. mallopt(3) and malloc.h say
    what the two parameters mean; 32 MiB is the largest that the first may be. What is kept stays
    with the process after the model is gone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, GIB)


def plan_memory(
    config: GemmaConfig,
    weight_bytes: int,
    dtype: torch.dtype,
    *,
    max_batch: int,
    free_bytes: int,
    where: object,
) -> MemoryPlan:
    """Return how many requests of which length fit beside the weights.

    Args:
        config: the decoder.
        weight_bytes: of the loaded parameters.
        dtype: of activations, keys and values.
        max_batch: requests in flight, at most.
        free_bytes: what the device has.
        where: the checkpoint, for the message.

    Raises:
        EngineError: not even one request of a few pages fits; says what is needed and there.
    """
    usable = int(free_bytes * USABLE_SHARE)
    work = _work_bytes(config, dtype, max_batch)
    token, ring = bytes_per_token(config, dtype.itemsize), bytes_per_slot(config, dtype.itemsize)
    smallest = span_of(min(config.context_tokens, SMALLEST_CONTEXT))
    needed = weight_bytes + work + ring + smallest * token
    if needed > usable:
        raise EngineError(
            f"the model needs {needed / GIB:.1f} GiB ({weight_bytes / GIB:.1f} weights, "
            f"{work / GIB:.1f} work space, {(ring + smallest * token) / GIB:.1f} for one request "
            f"of {smallest:,} tokens); {usable / GIB:.1f} GiB of {free_bytes / GIB:.1f} free may "
            "be used",
            where=where,
            hint="use a smaller or quantized model, --set engine.dtype=bfloat16, or another device",
        )
    left = usable - weight_bytes - work
    prefix_bytes = int((left - ring - smallest * token) * PREFIX_SHARE)
    left -= prefix_bytes
    slots = max(1, min(max_batch, left // (ring + smallest * token)))
    cached_tokens = (left - slots * ring) // max(token, 1)
    return MemoryPlan(
        weight_bytes=weight_bytes,
        work_bytes=work,
        free_bytes=free_bytes,
        capacity=Capacity(slots=slots, cached_tokens=cached_tokens, prefix_bytes=prefix_bytes),
    )


def _work_bytes(config: GemmaConfig, dtype: torch.dtype, max_batch: int) -> int:
    logits = 3 * max_batch * config.vocab_size * 4
    widest = max(layer.mlp_size for layer in config.layers)
    heads = max(
        layer.head_dim * (config.query_heads + 2 * layer.kv_heads) for layer in config.layers
    )
    rows = (
        (PROMPT_ROWS_A_STEP + max_batch)
        * (4 * config.hidden_size + 3 * widest + 3 * heads)
        * dtype.itemsize
    )
    return logits + rows
