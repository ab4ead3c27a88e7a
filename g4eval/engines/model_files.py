"""A model's files on this machine: where they are, fetched from the hub where they aren't."""

import os
from pathlib import Path

from g4eval.errors import EngineError, MissingExtraError

# Files that decide what a model says; the rest of a repository doesn't.
MODEL_FILES = (
    "*.safetensors",
    "*.gguf",
    "*.json",
    "*.jinja",
    "*.model",
)


def find_model(model: str) -> Path:
    """Return the folder or GGUF file of a model, downloading a hub id that isn't there yet.

    Raises:
        EngineError: nothing of that name can be had; says what was tried.
    """
    path = Path(model).expanduser()
    if path.is_dir() or path.is_file():
        return path.resolve()
    if path.suffix or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise EngineError(
            f"model {model!r} is neither a folder, a GGUF file nor a hub id",
            hint="give --model a path, or a hub id such as google/gemma-4-E2B-it",
        )
    return _from_hub(model)


def _from_hub(hub_id: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError(
            f"model {hub_id!r} is not a path here, and reading it from the hub needs "
            "huggingface_hub",
            hint="pip install 'g4eval[gemma]', or give --model a path",
        ) from error
    patterns = list(MODEL_FILES)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=True))
    except OSError:
        pass  # not in the local cache, or not whole: ask the hub
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:
        # The hub's client raises errors of its own, of requests and of httpx.
        raise EngineError(
            f"model {hub_id!r} is not in the local cache and can't be read from the hub: "
            f"{type(error).__name__}",
            hint="accept the licence on its page and set HF_TOKEN, or give --model a path",
        ) from error
