"""Safetensors checkpoints: one file, or shards with an index, memory-mapped."""

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from g4eval.errors import EngineError

INDEX_FILE = "model.safetensors.index.json"
# The text decoder's prefix, as multimodal files, early Gemma 3 files and text-only ones write it.
TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.", "")
_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1, "I32": 4}
SKIPPED_PREFIXES = (
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "multi_modal_projector.",
    "vision_embedder.",
    "vision_tower.",
)


class SafetensorsSource:
    """The text decoder's tensors in a folder of safetensors files."""

    norms_include_one = False

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.where = str(folder)
        self._device = device
        self._files: dict[str, tuple[Path, str]] = {}  # canonical name -> file, name in it
        shapes: dict[str, tuple[int, ...]] = {}
        nbytes: dict[str, int] = {}
        for path in shard_paths(folder):
            for name, shape, itemsize in _read_header(path):
                canonical = canonical_name(name)
                if canonical is None:
                    continue
                if canonical in shapes:
                    raise EngineError(f"tensor {name!r} is stored twice", where=path)
                shapes[canonical] = shape
                nbytes[canonical] = math.prod(shape) * itemsize
                self._files[canonical] = (path, name)
        self.shapes = shapes
        self.nbytes = nbytes

    def load(self, name: str) -> Tensor:
        """Read one tensor from its memory-mapped file straight onto the device."""
        path, stored_name = self._files[name]
        with safe_open(path, framework="pt", device=str(self._device)) as file:
            tensor: Tensor = file.get_tensor(stored_name)
        return tensor


def canonical_name(name: str) -> str | None:
    """Return a tensor's name without the text decoder's prefix; None for vision and audio."""
    bare = name.removeprefix("model.")
    if bare.startswith(SKIPPED_PREFIXES):
        return None
    prefix = next(p for p in TEXT_PREFIXES if name.startswith(p))
    return name.removeprefix(prefix)


def shard_paths(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder, as its index lists them where it has one."""
    index = folder / INDEX_FILE
    if not index.exists():
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise EngineError("holds no safetensors and no GGUF weights", where=folder)
        return paths
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise EngineError("is not an index of safetensors files", where=index) from error
    paths = [folder / name for name in sorted(names)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise EngineError(
            f"shards are missing: {', '.join(missing)}", where=folder, hint="download them"
        )
    return paths


def _read_header(path: Path) -> list[tuple[str, tuple[int, ...], int]]:
    """Return name, shape and bytes a value of every tensor in a file."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return [
                (name, tuple(part.get_shape()), _ITEM_BYTES.get(part.get_dtype(), 8))
                for name, part in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise EngineError(
            f"is not a whole safetensors file: {error}",
            where=path,
            hint="download it again and compare its SHA-256",
        ) from error
