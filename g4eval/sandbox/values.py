"""Rebuild what a submission's function returned, as plain Python and numpy values of our own.

The container sends a tree of JSON (sandboxes/python_judge/values.py). Nothing in it names a class
or runs code: each tag makes one value of a built-in type, so that `==` here is `==` there. A
submission may have written the tree by hand, so what would take this process long to make or to
compare is not made: see the limits below.
"""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|U[0-9]{1,7})")
_MAX_RATIO_DIGITS = 10_000  # hexadecimal: to bring a fraction down takes their square
# Integers can be chosen to collide; no set, and no dict with a key that is no text, equals JSON.
_MAX_HASHED = 1_000
_NAN = json.loads("NaN")  # the same object each time, so that lists of it are equal
_MAX_COMPARED = 1 << 24  # elements that numpy may spread two shapes to


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
    except (ValueError, LookupError, TypeError, RecursionError, ArithmeticError) as error:
        raise ValueTreeError(f"{type(error).__name__}: {error}") from error


def is_opaque(value: Any) -> bool:
    """Return whether `value` holds one whose equality we had to guess."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, Unequal) and one.opaque:
            return True
        if isinstance(one, dict):
            pending += [*one, *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            pending += one
    return False


def too_large_to_compare(value: Any, expected: Any) -> bool:
    """Return whether numpy would make more elements of the two than any right answer has."""
    if not isinstance(value, np.ndarray) or value.size * np.size(expected) <= _MAX_COMPARED:
        return False
    try:
        shape = np.broadcast_shapes(value.shape, np.shape(expected))
    except ValueError:  # no comparison of elements at all
        return False
    return int(np.prod(shape, dtype=float)) > _MAX_COMPARED


def _rebuild(tree: Any) -> Any:
    return _MAKERS[tree[0]](*tree[1:])


def _items(trees: list[Any]) -> list[Any]:
    return [_nested(tree) for tree in trees]


def _array(dtype: str, shape: list[int], data: str) -> Any:
    if not _DTYPE.fullmatch(dtype):
        raise ValueTreeError(f"numpy dtype {dtype!r}")
    return np.frombuffer(bytes.fromhex(data), dtype=np.dtype(dtype)).reshape(shape)


def _nested(tree: Any) -> Any:
    """Return an item of a container; an array there would be spread before anybody could look."""
    value = _rebuild(tree)
    if isinstance(value, np.ndarray) and value.size > _MAX_HASHED:
        return Unequal("ndarray", opaque=False)
    return value


def _hashed(make: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    def build(trees: list[Any]) -> Any:
        if len(trees) > _MAX_HASHED:
            return Unequal(f"a set of {len(trees)}", opaque=False)
        return make(_items(trees))

    return build


def _pairs(pairs: list[Any]) -> Any:
    if len(pairs) > _MAX_HASHED and any(key[0] != "s" for key, _ in pairs):
        return Unequal(f"a dict of {len(pairs)}", opaque=False)
    return {_rebuild(key): _nested(value) for key, value in pairs}


def _fraction(top: str, bottom: str) -> Fraction:
    if max(len(top), len(bottom)) > _MAX_RATIO_DIGITS:
        raise ValueTreeError("a fraction of too many digits")
    return Fraction(int(top, 16), int(bottom, 16))


_MAKERS: dict[str, Callable[..., Any]] = {
    "n": lambda: None,
    "b": bool,
    "i": lambda text: int(text, 16),
    "f": lambda text: _NAN if text == "NaN" else float(text),
    "c": lambda real, imag: complex(float(real), float(imag)),
    "s": str,
    "y": bytes.fromhex,
    "l": _items,
    "p": lambda trees: tuple(_items(trees)),
    "e": _hashed(set),
    "z": _hashed(frozenset),
    "d": _pairs,
    "q": _fraction,
    "m": Decimal,
    "a": _array,
    "g": lambda dtype, shape, data: _array(dtype, shape, data)[()],
    "u": lambda name: Unequal(name, opaque=False),
    "x": lambda name: Unequal(name, opaque=True),
}
