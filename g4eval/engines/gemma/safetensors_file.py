"""Safetensors checkpoints: one file, or shards with an index, memory-mapped."""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from g4eval.engines.gemma.json_file import AGAIN, read_json_object
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
        self.dtypes: dict[str, str] = {}
        self.skipped = 0  # tensors of vision and audio
        for path in shard_paths(folder):
            for name, shape, dtype in _read_header(path):
                canonical = canonical_name(name)
                if canonical is None:
                    self.skipped += 1
                    continue
                if canonical in shapes:
                    raise EngineError(f"tensor {name!r:.200} is stored twice", where=path)
                shapes[canonical] = shape
                nbytes[canonical] = math.prod(shape) * _ITEM_BYTES.get(dtype, 8)
                self.dtypes[canonical] = dtype
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
    """Return the safetensors files of a folder, as its index lists them where it has one.

    Raises:
        EngineError: there are none, the index is none, or names what isn't a file of this folder.
    """
    index = folder / INDEX_FILE
    if not index.exists():
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise EngineError("holds no safetensors and no GGUF weights", where=folder)
        return paths
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise EngineError(
            "is not an index of safetensors files: weight_map is no object with names",
            where=index,
            hint=AGAIN,
        )
    off = [name for name in places.values() if not _is_file_name(name)]
    if off:
        raise EngineError(
            f"is not an index of safetensors files: {off[0]!r:.100} is no file name",
            where=index,
            hint=AGAIN,
        )
    paths = [folder / name for name in sorted(set(places.values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise EngineError(
            f"shards are missing: {', '.join(missing[:6])}", where=folder, hint="download them"
        )
    return paths


def _is_file_name(name: object) -> bool:
    """Whether this names a file of the folder itself, one that a file system can hold."""
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        return False
    fits = name.isprintable() and len(name.encode("utf-8", "replace")) <= 255
    return fits and Path(name).name == name


def _read_header(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Return name, shape and dtype of every tensor in a file."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return [
                (name, tuple(part.get_shape()), str(part.get_dtype()))
                for name, part in slices.items()
            ]
    except (SafetensorError, OSError, ValueError) as error:
        raise EngineError(
            f"is not a whole safetensors file: {error}",
            where=path,
            hint="download it again and compare its SHA-256",
        ) from error
