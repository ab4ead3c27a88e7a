"""Rebuild what a submission's function returned, as plain Python and numpy values of our own.

The container sends a tree of JSON (sandboxes/python_judge/values.py). Nothing in it names a class
or runs code: each tag makes one value of a built-in type, so that `==` here is `==` there.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

_DTYPE_KINDS = "biufcU"


class ValueTreeError(Exception):
    """The payload is no value: malformed, too deep, or more than it may hold."""


class Unequal:
    """A value that equals nothing JSON can say: a generator, a function, a deque."""

    def __init__(self, name: str, *, opaque: bool) -> None:
        self.name = name
        self.opaque = opaque  # its type decides about equality itself, so this is a guess of ours

    def __repr__(self) -> str:
        return f"<{self.name}>"


def read_expected(text: str) -> Any:
    """Read an expected value, with integers of any length; ValueError if it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # more digits than Python reads unasked; Decimal has no such limit
        return json.loads(text, parse_int=lambda digits: int(Decimal(digits)))


def rebuild_value(payload: bytes) -> Any:
    """Return the value; ValueTreeError if the payload isn't one."""
    try:
        body = json.loads(payload)
        if "j" in body:
            return body["j"]
        return _rebuild(body["t"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, ArithmeticError) as error:
        raise ValueTreeError(f"{type(error).__name__}: {error}") from error


def is_opaque(value: Any) -> bool:
    """Return whether `value` holds one whose equality we had to guess."""
    if isinstance(value, Unequal):
        return value.opaque
    if isinstance(value, dict):
        return any(map(is_opaque, value)) or any(map(is_opaque, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(is_opaque, value))
    return False


def _rebuild(tree: Any) -> Any:
    return _MAKERS[tree[0]](*tree[1:])


def _items(trees: list[Any]) -> list[Any]:
    return [_rebuild(tree) for tree in trees]


def _array(dtype: str, shape: list[int], data: str) -> Any:
    kind = np.dtype(dtype)
    if kind.kind not in _DTYPE_KINDS:
        raise ValueTreeError(f"numpy dtype {dtype!r}")
    return np.frombuffer(bytes.fromhex(data), dtype=kind).reshape(shape)


_MAKERS: dict[str, Callable[..., Any]] = {
    "n": lambda: None,
    "b": bool,
    "i": lambda text: int(text, 16),
    "f": float,
    "c": lambda real, imag: complex(float(real), float(imag)),
    "s": str,
    "y": bytes.fromhex,
    "l": _items,
    "p": lambda trees: tuple(_items(trees)),
    "e": lambda trees: set(_items(trees)),
    "z": lambda trees: frozenset(_items(trees)),
    "d": lambda pairs: {_rebuild(key): _rebuild(value) for key, value in pairs},
    "q": lambda top, bottom: Fraction(int(top, 16), int(bottom, 16)),
    "m": Decimal,
    "a": _array,
    "g": lambda dtype, shape, data: _array(dtype, shape, data)[()],
    "u": lambda name: Unequal(name, opaque=False),
    "x": lambda name: Unequal(name, opaque=True),
}
