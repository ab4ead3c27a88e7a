"""Where a model's files are: a folder, a GGUF file, or a snapshot in the Hugging Face cache.

`find_model_files` looks at the disk only and needs no huggingface_hub; `fetch_model_files` asks the
hub for what isn't there.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g4eval.errors import EngineError, MissingExtraError

_PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})(\.gguf)", re.DOTALL)
MAX_PARTS = 1000
# Files that decide what a model says; the rest of a repository doesn't.
_FETCHED = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.model")


def find_model_files(
    model: str, revision: str | None = None, *, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """Return the folder or file that holds a model; None where it isn't on this machine.

    Args:
        model: a path, or a hub id such as google/gemma-4-31b-it.
        revision: of a hub id: a branch or a commit; None: main.
        environment: HF_HUB_CACHE and HF_HOME say where the hub's cache is.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path.resolve()
    if model.count("/") != 1:
        return None
    repository = _hub_cache(environment) / f"models--{model.replace('/', '--')}"
    name = revision or "main"
    reference = repository / "refs" / name
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else name
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def gguf_parts(path: Path) -> list[Path]:
    """Return every part of the model that a GGUF file belongs to, by their names; itself alone."""
    match = _PART.fullmatch(path.name)
    if match is None or not 1 <= int(match[3]) <= MAX_PARTS:
        return [path]
    begin, _, count, end = match.groups()
    return [path.with_name(f"{begin}{n:05}-of-{count}{end}") for n in range(1, int(count) + 1)]


def fetch_model_files(model: str) -> Path:
    """Return the folder or file that holds a model, downloading a hub id that isn't here yet.

    Raises:
        EngineError: nothing of that name can be had; says what was tried.
    """
    if (found := find_model_files(model)) is not None:
        return found
    is_path = model.startswith((".", "/", "~")) or model.endswith((".gguf", ".safetensors"))
    if is_path or model.count("/") != 1:
        raise EngineError(
            f"model {model!r} is neither a folder, a GGUF file nor a hub id",
            hint="give --model a path, or a hub id such as google/gemma-4-E2B-it",
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError(
            f"model {model!r} is not a path here, and reading it from the hub needs "
            "huggingface_hub",
            hint="pip install 'g4eval[gemma]', or give --model a path",
        ) from error
    try:
        return Path(snapshot_download(model, allow_patterns=list(_FETCHED)))
    except Exception as error:
        # The hub's client raises errors of its own, of requests and of httpx.
        raise EngineError(
            f"model {model!r} is not in the local cache and can't be read from the hub: "
            f"{type(error).__name__}",
            hint="accept the licence on its page and set HF_TOKEN, or give --model a path",
        ) from error


def read_model_config(path: Path) -> dict[str, Any]:
    """Return a folder's config.json; an empty one for a file or a folder without it."""
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineError("is not JSON", where=file, hint="fetch the model again") from error
    return config if isinstance(config, dict) else {}


def _hub_cache(environment: Mapping[str, str]) -> Path:
    # Order: huggingface_hub/constants.py.
    if cache := environment.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"
