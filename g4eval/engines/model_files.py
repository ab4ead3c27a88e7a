"""A model's files on this machine: where they are, and the fingerprint of what is in them.

No deep-learning package is needed: an engine that only passes the files on can fingerprint them.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from g4eval.errors import EngineError, MissingExtraError
from g4eval.fingerprint import sha256_json

# Files that decide what a model says; the rest of a repository doesn't.
MODEL_FILES = (
    "*.safetensors",
    "*.gguf",
    "*.json",
    "*.jinja",
    "*.model",
)
_BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def model_files(path: Path) -> list[Path]:
    """Return the files of a model that decide what it says, sorted by name."""
    if path.is_file():
        return [path]
    return sorted({file for pattern in MODEL_FILES for file in path.glob(pattern)})


def weights_fingerprint(files: Iterable[Path], *, cache_dir: Path | None = None) -> str:
    """Return the SHA-256, in hex, over the sorted names and contents' SHA-256 of a model's files.

    A file's hash is computed once and remembered by path, size and modification time; a file of a
    hub snapshot carries it in its blob's name.
    """
    memory = _HashMemory(cache_dir or user_cache_dir())
    hashes = sorted((file.name, memory.sha256(file)) for file in files)
    memory.save()
    return sha256_json(hashes)


def user_cache_dir() -> Path:
    """Return the folder for things that can be made again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "g4eval"


class _HashMemory:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "file_hashes.json"
        self._changed = False
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def sha256(self, file: Path) -> str:
        blob = file.resolve()
        if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
            return blob.name
        state = blob.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        entry = self._known.get(str(blob))
        if not isinstance(entry, dict) or entry.get("stamp") != stamp:
            entry = {"stamp": stamp, "sha256": _hash_file(blob)}
            self._known[str(blob)] = entry
            self._changed = True
        return str(entry["sha256"])

    def save(self) -> None:
        """Remember what was computed; a cache that can't be written is no error."""
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(self._known), encoding="utf-8")
            new.replace(self._path)
        except OSError:
            return


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
