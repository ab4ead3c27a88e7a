"""`--set engine.KEY=VALUE` of engine `openai`: parsed once, unknown keys refused."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Facts that a server rarely tells, which the user may declare with `--set engine.NAME=VALUE`.
DECLARABLE = (
    "engine_version",
    "weights_fingerprint",
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "attention_backend",
    "parallelism",
    "speculative_decoding",
    "chat_template_hash",
    "reasoning_parser",
    "context_tokens",
)


class OpenAIOptions(BaseModel):
    """`--set engine.KEY=VALUE` of engine `openai`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    api: Literal["chat", "completions"] = "chat"
    stream: bool = True
    thinking: bool | None = None  # asked of the chat template; None: its default
    concurrency: int = Field(default=64, ge=1)  # at most; what is worth it is found out
    queue_timeout_seconds: float = Field(default=21600.0, gt=0)  # before the first byte
    idle_timeout_seconds: float = Field(default=1800.0, gt=0)  # between two bytes of data
    connect_timeout_seconds: float = Field(default=30.0, gt=0)
    max_retries: int = Field(default=8, ge=0)
    first_wait_seconds: float = Field(default=1.0, ge=0)
    longest_wait_seconds: float = Field(default=60.0, ge=0)
    rate_limit_patience_seconds: float = Field(default=3600.0, ge=0)
    give_up_after: int = Field(default=32, ge=1)  # requests failed in a row, none done between
    omit: tuple[str, ...] = ()  # body fields this server refuses: ("top_k", "min_p")
    extra_body: Mapping[str, Any] = Field(default_factory=dict)  # more body fields, sent as given

    engine_version: str | None = None
    weights_fingerprint: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    attention_backend: str | None = None
    parallelism: str | None = None
    speculative_decoding: str | None = None
    chat_template_hash: str | None = None
    reasoning_parser: str | None = None
    context_tokens: int | None = Field(default=None, ge=1)

    def declared(self) -> dict[str, Any]:
        """Return the facts that the user declares."""
        values = {name: getattr(self, name) for name in DECLARABLE}
        return {name: value for name, value in values.items() if value is not None}
