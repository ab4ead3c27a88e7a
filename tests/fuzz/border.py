"""What a border is, and the inputs that are made for it out of a corpus of small files."""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

CORPUS = Path(__file__).resolve().parent / "corpus"

# Counts, sizes and ids that readers trip over.
NUMBERS = [0, 1, 2, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1]
# What stands where another type belongs.
HOSTILE: list[Any] = [
    None,
    True,
    False,
    *(n for n in NUMBERS),
    -1,
    -(2**63),
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    0.5,
    "",
    "x" * 300,
    "a/../b",
    "../" * 8 + "etc/passwd",
    "\x00",
    "\ud800",
    "\u202e\u2028\x1b[31m",
    "1" * 5000,
    [],
    [[]],
    ["a", 1, None],
    {},
    {"a": {}},
    {"": None},
]
DEEP = 10_000  # brackets


@dataclass(frozen=True, kw_only=True)
class Border:
    """One border.

    Args:
        name: as the table of the session prints it.
        inputs: makes inputs: bytes, or whatever `read` takes.
        read: lets one input in, in an empty folder of its own; returns, or raises a G4EvalError.
        few: how many inputs the ordinary tests make; a slow border takes fewer.
        needs: a package without which the border isn't there.
    """

    name: str
    inputs: SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    few: int = 60
    needs: str | None = None


def corpus(name: str) -> list[bytes]:
    """Return the small files of a border, in order of name."""
    files = [path for path in sorted((CORPUS / name).iterdir()) if path.is_file()]
    assert files, f"tests/fuzz/corpus/{name} is empty"
    return [path.read_bytes() for path in files]


@st.composite
def mutated_bytes(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in up to eight places: bits, counts, cuts, doubled parts."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 8))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["bit", "byte", "u32", "u64", "cut", "drop", "double", "mix"]))
        if kind == "bit":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            data[at] = draw(st.integers(0, 255))
        elif kind in ("u32", "u64"):
            size, code = (4, "<I") if kind == "u32" else (8, "<Q")
            number = draw(st.sampled_from(NUMBERS)) % (1 << (8 * size))
            data[at : at + size] = struct.pack(code, number)
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        else:
            other = draw(st.sampled_from(list(seeds)))
            data[at:] = other[draw(st.integers(0, max(0, len(other) - 1))) :]
    return bytes(data)


@st.composite
def mutated_value(draw: Any, seeds: Sequence[Any]) -> Any:
    """One of the seeds, JSON values, with up to three places replaced, dropped or nested."""
    value = json.loads(json.dumps(draw(st.sampled_from(list(seeds)))))
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return value


def mutated_json(seeds: Sequence[Any]) -> SearchStrategy[bytes]:
    """`mutated_value` as text, sometimes cut, damaged or in another encoding."""
    texts = mutated_value(seeds).map(lambda value: json.dumps(value).encode())
    return st.one_of(
        texts,
        texts,
        texts,
        texts.flatmap(lambda text: mutated_bytes([text])),
        texts.map(lambda text: text.decode().encode("utf-16")),
        st.sampled_from([b"", b"null", b"[]", b'"', b"[" * DEEP, b'{"a":' * DEEP, b"\xff\xfe"]),
    )


def _changed(draw: Any, value: Any) -> Any:
    """Change one place of a JSON value, at any depth."""
    if isinstance(value, dict) and value and draw(st.integers(0, 7)):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 6)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                name = draw(st.sampled_from(["", "x" * 300, "\ud800", key + " ", key.upper()]))
                return {**value, name: value[key]}
            case _:
                return {**value, key: _changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        if not draw(st.integers(0, 4)):
            return value[:at] + value[at + 1 :]
        return [*value[:at], _changed(draw, value[at]), *value[at + 1 :]]
    return draw(st.sampled_from([*HOSTILE, [value], {"a": value}, [value] * 50]))
