"""The options of engine `gemma`, and what `auto` means on this machine."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from g4eval.errors import ConfigError, EngineError


class GemmaOptions(BaseModel):
    """`--set engine.KEY=VALUE` of engine `gemma`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"  # cpu, cuda, cuda:1; auto: cuda where there is one
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: float32 on cpu, else bfloat16
    thinking: bool | None = None  # None: as the profile says, else off
    context_tokens: int | None = Field(default=None, ge=16)  # None: the model's own
    max_batch: int = Field(default=32, ge=1, le=1024)  # requests in flight
    memory_gib: float | None = Field(default=None, gt=0)  # None: what is free
    threads: int | None = Field(default=None, ge=1)  # on cpu; None: PyTorch's choice
    prompt: Literal["template", "plain"] = "template"  # plain: the chat template isn't used
    weights_fingerprint: str | None = None  # declared; None: hash the files


def find_device(name: str) -> torch.device:
    """Return the device of an option; raises ConfigError for none, EngineError without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"engine.device: {name!r} is not a device", where="--set") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"engine.device: {name!r} is neither cpu nor cuda", where="--set")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "engine.device is cuda, but PyTorch sees no GPU", hint="--set engine.device=cpu"
        )
    return device


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of an option; auto is float32 on the CPU, else bfloat16."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.float32 if name == "float32" else torch.bfloat16
