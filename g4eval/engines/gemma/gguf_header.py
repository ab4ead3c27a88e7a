"""The header of a GGUF file: metadata and where each tensor lies.

The `gguf` package reads headers too, one numpy view a value; a Gemma vocabulary of 262,144 tokens
takes it ten seconds, this module a few tenths. Its block formats and dequantizers are used as they
are.

Source: docs/gguf.md, ggml-org/ggml; version 3, little-endian.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from g4eval.errors import EngineError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Bounds on what a header may say; a Gemma vocabulary has 262,144 tokens and 514,906 merges.
MAX_FIELDS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_DIMENSIONS = 4  # ggml's own
MAX_STRING_BYTES = 1 << 24
MAX_ITEMS = 1 << 22  # of one list
MAX_DEPTH = 2  # lists in lists
MAX_VALUES = 1 << 44  # of one tensor
MAX_ALIGNMENT = 1 << 16
# Metadata value types, by their number in the file.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_HINT = "download it again and compare its SHA-256"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of the file, unread."""

    name: str
    shape: tuple[int, ...]  # rows first, as PyTorch counts
    kind: GGMLQuantizationType
    offset: int  # from the start of the file, bytes
    nbytes: int


class GgufHeader:
    """A memory-mapped GGUF file.

    Raises:
        EngineError: it is no GGUF file, or ends before its last tensor does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise EngineError(f"can't be read: {error}", where=path, hint=_HINT) from error
        try:
            self.fields, self.tensors = self._parse()
        except (struct.error, IndexError, KeyError, ValueError, RecursionError) as error:
            raise EngineError(
                f"is not a whole GGUF file: {error}", where=path, hint=_HINT
            ) from error

    def data(self, tensor: StoredTensor) -> NDArray[np.uint8]:
        """Return a tensor's bytes as stored: [rows..., bytes a row]."""
        raw = np.frombuffer(self._map, np.uint8, count=tensor.nbytes, offset=tensor.offset)
        return raw.reshape(*tensor.shape[:-1], -1)

    def _parse(self) -> tuple[Mapping[str, Any], Mapping[str, StoredTensor]]:
        cursor = _Cursor(self._map)
        if cursor.take(4) != MAGIC:
            raise ValueError("it doesn't begin with the letters GGUF")
        version = cursor.number("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, known are {VERSIONS}")
        tensor_count = cursor.count("tensors", MAX_TENSORS)
        field_count = cursor.count("fields", MAX_FIELDS)
        fields: dict[str, Any] = {}
        for _ in range(field_count):
            key = cursor.string()
            if key in fields:
                raise ValueError(f"field {key[:100]!r} is there twice")
            fields[key] = cursor.value(cursor.number("I"))
        infos = [self._tensor_info(cursor) for _ in range(tensor_count)]
        alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT:
            raise ValueError(f"its alignment is {alignment!r:.100}")
        base = -(-cursor.at // alignment) * alignment
        tensors = {info[0]: self._stored(base, *info) for info in infos}
        if len(tensors) < len(infos):
            raise ValueError("a tensor is there twice")
        return fields, tensors

    @staticmethod
    def _tensor_info(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
        name = cursor.string()
        dimensions = cursor.number("I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"tensor {name[:100]!r} has {dimensions:,} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(dimensions))
        return name, shape[::-1], cursor.number("I"), cursor.number("Q")

    def _stored(
        self, base: int, name: str, shape: tuple[int, ...], kind_number: int, offset: int
    ) -> StoredTensor:
        kind = GGMLQuantizationType(kind_number)
        block_values, block_bytes = GGML_QUANT_SIZES[kind]
        values = math.prod(shape)
        if not 0 < values <= MAX_VALUES or (shape[-1] if shape else 1) % block_values:
            raise ValueError(f"tensor {name[:100]!r} of {kind.name} has shape {list(shape)}")
        nbytes = values // block_values * block_bytes
        if base + offset + nbytes > len(self._map):
            raise ValueError(f"tensor {name[:100]!r} ends past the end of the file")
        return StoredTensor(name=name, shape=shape, kind=kind, offset=base + offset, nbytes=nbytes)


class _Cursor:
    """Reads values one after another."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self._buffer):
            raise ValueError("it ends inside its header")
        self.at += count
        return self._buffer[self.at - count : self.at]

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._buffer, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def count(self, what: str, most: int) -> int:
        """Read a number of things; raises ValueError past `most`, or what the file could hold."""
        count = int(self.number("Q"))
        if count > min(most, len(self._buffer)):
            raise ValueError(f"it says that it holds {count:,} {what}")
        return count

    def string(self) -> str:
        return self.take(self.count("bytes of text", MAX_STRING_BYTES)).decode(
            "utf-8", "surrogateescape"
        )

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            if kind not in _SCALARS:
                raise ValueError(f"a field is of type {kind}, which is not known")
            return self.number(_SCALARS[kind])
        if depth == MAX_DEPTH:
            raise ValueError("a list is nested too deeply")
        item_kind, count = self.number("I"), self.count("values in a list", MAX_ITEMS)
        if item_kind in _SCALARS:
            dtype = np.dtype("<" + _SCALARS[item_kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        return [self.value(item_kind, depth + 1) for _ in range(count)]
