"""One hash for everything on disk that makes a model answer as it does.

SHA-256 over the sorted (file name, SHA-256 of content) of weight, config, tokenizer and template
files, so a copy in another place has the same one. Large files are hashed once: a hub snapshot
gives the hash by its blob's name, and other files are remembered by path, size and time.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from g4eval.engines.model_files import gguf_parts
from g4eval.fingerprint import sha256_json

_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_OTHERS = re.compile(
    r"config\.json|generation_config\.json|.*tokenizer.*|special_tokens_map\.json"
    r"|added_tokens\.json|vocab\.(json|txt)|merges\.txt|chat_template.*|.*\.jinja"
    r"|.*\.index\.json|(pre)?processor_config\.json|.*quant.*\.json|adapter_config\.json|.*\.model"
)
_SHA256_NAME = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 2**22


def fingerprint_weights(model_files: Path, *, cache_dir: Path | None = None) -> str:
    """Return the fingerprint of a model's folder or file, in hex.

    Args:
        model_files: a folder, a hub snapshot, or one weight file; of a split one, any part.
        cache_dir: where hashes are remembered; None: the user's cache.
    """
    memory = _Memory((cache_dir or user_cache_dir()) / "weights.json")
    hashes = sorted((name, _hash(path, memory)) for name, path in _files_of(model_files))
    memory.save()
    return sha256_json(hashes)


def user_cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return g4eval's folder in the user's cache."""
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "g4eval"


def _files_of(model_files: Path) -> Iterator[tuple[str, Path]]:
    if model_files.is_file():
        for part in gguf_parts(model_files):
            yield part.name, part
        return
    for path in model_files.iterdir():  # sub-folders hold other formats of the same weights
        if path.is_file() and (path.suffix in _WEIGHTS or _OTHERS.fullmatch(path.name)):
            yield path.name, path


def _hash(path: Path, memory: "_Memory") -> str:
    blob = path.resolve()
    if blob.parent.name == "blobs" and _SHA256_NAME.fullmatch(blob.name):
        return blob.name  # the hub names a large file's blob by its SHA-256
    return memory.recall(blob) or memory.remember(blob, _sha256(blob))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class _Memory:
    """Hashes by path, size and modification time; a broken or read-only file is no memory."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._is_changed = False
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._hashes: dict[str, list[object]] = known if isinstance(known, dict) else {}

    def recall(self, path: Path) -> str | None:
        entry = self._hashes.get(str(path))
        if not isinstance(entry, list) or entry[:2] != self._stamp(path):
            return None
        return str(entry[2])

    def remember(self, path: Path, digest: str) -> str:
        self._hashes[str(path)] = [*self._stamp(path), digest]
        self._is_changed = True
        return digest

    def save(self) -> None:
        if not self._is_changed:
            return
        partial = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._hashes), encoding="utf-8")
            partial.replace(self._file)
        except OSError:
            partial.unlink(missing_ok=True)

    @staticmethod
    def _stamp(path: Path) -> list[object]:
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
