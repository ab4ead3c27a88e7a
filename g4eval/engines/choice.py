"""`--engine auto`: which engine this machine should use for a model, and why."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from g4eval.engines.hardware import Device, find_gpus
from g4eval.engines.model_files import find_model_files, read_model_config
from g4eval.errors import ConfigError
from g4eval.profile import Profile

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine's name, and the reason in words; the reason is empty where the user chose."""

    name: str
    reason: str = ""


def choose_engine(
    asked_for: str,
    *,
    model: str | None,
    profile: Profile | None = None,
    base_url: str | None = None,
    gpus: Callable[[], Sequence[Device]] = find_gpus,
    is_installed: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
) -> EngineChoice:
    """Return the engine asked for; for `auto`, vllm on CUDA where installed, else gemma for Gemma.

    Args:
        asked_for: a name, or auto.
        model: hub id, path or a server's name.
        profile: what is known of the model.
        base_url: a server's address; then the server it is.
        gpus: finds the GPUs.
        is_installed: whether a package is there.

    Raises:
        ConfigError: `auto` finds no engine for this model on this machine.
    """
    if asked_for != AUTO:
        return EngineChoice(name=asked_for)
    if base_url:
        return EngineChoice(name="openai", reason="a server's address is given")
    if model is None:
        raise ConfigError("no model is named", where="--model", hint="or give --profile NAME")
    has_vllm = is_installed("vllm")
    if has_vllm and (found := gpus()):
        return EngineChoice(name="vllm", reason=f"vLLM is installed and there is {found[0].name}")
    why_not = "vLLM sees no GPU" if has_vllm else "vLLM isn't installed"
    if is_gemma(model, profile):
        return EngineChoice(name="gemma", reason=f"{why_not}, and the model is a Gemma")
    if has_vllm:
        return EngineChoice(name="vllm", reason="vLLM is installed, on the CPU for want of a GPU")
    raise ConfigError(
        f"no engine here runs {model!r}: {why_not}, and engine gemma runs Gemma alone",
        where="--engine auto",
        hint="pip install 'g4eval[vllm]', or serve the model and give --base-url",
    )


def is_gemma(model: str, profile: Profile | None) -> bool:
    """Whether a checkpoint is Gemma 3 or 4: by its profile, its config.json, or its name."""
    if profile is not None:
        return profile.chat_format in ("gemma3", "gemma4")
    files = find_model_files(model)
    if files is not None and files.is_dir():
        kind = str(read_model_config(files).get("model_type", ""))
        return kind.startswith(("gemma3", "gemma4"))
    return Path(model).name.lower().startswith(("gemma-3", "gemma-4", "gemma3", "gemma4"))
