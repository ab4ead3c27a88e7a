"""`--set engine.KEY=VALUE` of engine `vllm`, and the arguments that vLLM gets from it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from g4eval.errors import ConfigError, nearest

# What an option is called in vLLM, where the two differ.
_VLLM_NAMES = {"context_tokens": "max_model_len"}
_NOT_VLLMS = ("prompt", "thinking", "concurrency", "stop_token_ids", "text_only", "more")


class VllmOptions(BaseModel):
    """Every option that is left None is vLLM's own choice; what it chose is in the facts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Literal["chat", "plain"] = "chat"  # plain: no template, for base models
    thinking: bool | None = None  # asked of the chat template; None: its default
    stop_token_ids: tuple[int, ...] = ()  # beside the model's own
    concurrency: int = Field(default=1024, ge=1)  # requests given to vLLM at once; it batches them

    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    attention_backend: str | None = None
    tensor_parallel_size: int | None = Field(default=None, ge=1)  # None: as few GPUs as it needs
    pipeline_parallel_size: int = Field(default=1, ge=1)
    data_parallel_size: int = Field(default=1, ge=1)
    context_tokens: int | None = Field(default=None, ge=1)  # None: the model's, 98,304 at most
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_num_seqs: int | None = Field(default=None, ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    speculative_config: Mapping[str, Any] | None = None
    max_logprobs: int = Field(default=128, ge=0)  # the largest top_k of `score`
    revision: str | None = None
    tokenizer: str | None = None
    load_format: str = "auto"
    text_only: bool = True  # leave vision and audio towers out
    more: Mapping[str, Any] = Field(default_factory=dict)  # any other argument of vLLM's

    @property
    def n_together(self) -> int | None:
        """How many GPUs share one copy of the weights; None: not settled."""
        if self.tensor_parallel_size is None:
            return None
        return self.tensor_parallel_size * self.pipeline_parallel_size


def engine_arguments(options: VllmOptions, model: str, known: set[str]) -> dict[str, Any]:
    """Return the keyword arguments of vLLM's AsyncEngineArgs.

    Args:
        options: what the user asked for.
        model: a hub id or a path.
        known: the names that this vLLM's AsyncEngineArgs has.

    Raises:
        ConfigError: `more` holds an unknown name, one that is an option of its own, or
            `trust_remote_code`, which would run code that came with the model.
    """
    for name in options.more:
        if name == "trust_remote_code":
            raise ConfigError(
                "trust_remote_code is refused: it runs code that comes with a model",
                where="--set engine.more",
            )
        if name in VllmOptions.model_fields or name in _VLLM_NAMES.values():
            raise ConfigError(f"{name!r} has an option of its own", where="--set engine.more")
        if name not in known:
            raise ConfigError(
                f"{name!r} is not an argument of this vLLM",
                where="--set engine.more",
                hint=nearest(name, known),
            )
    asked = options.model_dump(exclude=set(_NOT_VLLMS), exclude_none=True)
    arguments = {_VLLM_NAMES.get(name, name): value for name, value in asked.items()}
    if options.text_only and "language_model_only" in known:
        arguments["language_model_only"] = True
    return {
        "model": model,
        "disable_log_stats": True,
        "worker_extension_cls": "g4eval.engines.vllm_worker.FactsExtension",
        **arguments,
        **options.more,
    }
