"""Write down what a function returned, so that the host can rebuild it and compare it itself.

Called by child.py after each functional test. Equality in Python depends on types that JSON doesn't
have (`[(1, 2)] != [[1, 2]]`, `{1: 2} != {"1": 2}`, `np.array([10]) == 10`), so a value is sent as a
tree of JSON arrays whose first item says the type:

    {"j": VALUE}   nothing but None, bool, int, float, str, list and dict with str keys: plain JSON
    {"t": TREE}    anything else; g4eval/sandbox/values.py lists the tags
    ["x", NAME]    in a tree: opaque, a value we can't rebuild; it fails its test and is counted
    ["u", NAME]    in a tree: a value that equals nothing JSON can say

A list is equal to itself, NaN in it or not, so NaN is written "NaN" where it is the object that
json made of an input, and "nan" where it is another.

Subclasses count as their base where they keep its `__eq__`, since then Python compares them alike.
Standard library only: numpy's types are recognised if the submission has loaded numpy.
"""

import collections
import decimal
import fractions
import json
import sys
from collections.abc import Callable
from typing import Any

_MAX_DEPTH = 500
_MAX_WORK = 1_000_000  # containers visited, and sixteenths of their items
_LEAVES = {int, str, float, bool, type(None)}
_NAN = json.decoder.NaN  # type: ignore[attr-defined]  # the one that parsed inputs hold
_HEX_BITS = 14_000  # longer ints have more digits than Python parses unasked: sent in hex
_dumps = json.dumps


class _TooBigError(Exception):
    pass


class _Budget:
    """Counts work, so that a small value that holds itself many times over is given up."""

    def __init__(self) -> None:
        self._work = 0

    def spend(self, items: int) -> None:
        """Note that a container of so many items is visited."""
        self._work += 1 + items // 16
        if self._work > _MAX_WORK:
            raise _TooBigError


def encode_value(value: object, limit: int) -> bytes | None:
    """Return `value` as JSON of at most `limit` bytes; None if it is larger."""
    try:
        plain = _is_plain(value, 0, _Budget())
        body = {"j": value} if plain else {"t": _tree(value, 0, _Budget())}
        encoded = _dumps(body).encode()
    except _TooBigError:
        return None
    except Exception as error:  # noqa: BLE001  the value's own methods may do anything
        encoded = _dumps({"t": ["x", type(error).__name__]}).encode()
    return encoded if len(encoded) <= limit else None


def _is_plain(value: Any, depth: int, budget: _Budget) -> bool:
    kind = type(value)
    if kind in _LEAVES:
        return _is_plain_leaf(value)
    if depth > _MAX_DEPTH:
        return False
    if kind is dict:
        if any(type(key) is not str for key in value):
            return False
        items = list(value.values())
    elif kind is list:
        items = value
    else:
        return False
    budget.spend(len(items))
    kinds = set(map(type, items))
    if kinds <= _LEAVES:
        return kinds.isdisjoint((int, float)) or all(map(_is_plain_leaf, items))
    return all(_is_plain(item, depth + 1, budget) for item in items)


def _is_plain_leaf(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() < _HEX_BITS)
    return kind is not float or value == value or value is _NAN  # noqa: PLR0124  but for NaN


def _tree(value: Any, depth: int, budget: _Budget) -> list[Any]:
    budget.spend(1)
    if depth > _MAX_DEPTH:
        return ["x", "too deep"]
    if (written := _numpy_tree(value)) is not None:  # first: np.float64 is a float
        return written
    for base, write in _WRITERS:
        if isinstance(value, base):
            if _equality(type(value)) is _equality(base):
                return write(value, depth + 1, budget)
            return ["x", type(value).__name__]
    return _other(value)


def _items(value: Any, depth: int, budget: _Budget) -> list[Any]:
    return [_tree(item, depth, budget) for item in value]


def _pairs(value: Any, depth: int, budget: _Budget) -> list[Any]:
    entries = dict.items(value)
    return [[_tree(key, depth, budget), _tree(item, depth, budget)] for key, item in entries]


def _float_text(value: float) -> str:
    return "NaN" if value is _NAN else float.__repr__(value)


_Writer = Callable[[Any, int, _Budget], list[Any]]
# The first base that fits decides: bool before int, and the dict subclasses before dict.
_WRITERS: list[tuple[type, _Writer]] = [
    (type(None), lambda *_: ["n"]),
    (bool, lambda value, *_: ["b", int(value)]),
    (int, lambda value, *_: ["i", format(int.__index__(value), "x")]),
    (float, lambda value, *_: ["f", _float_text(value)]),
    (complex, lambda value, *_: ["c", _float_text(value.real), _float_text(value.imag)]),
    (str, lambda value, *_: ["s", str.__str__(value)]),
    (bytes, lambda value, *_: ["y", bytes(value).hex()]),
    (list, lambda value, depth, budget: ["l", _items(list.__iter__(value), depth, budget)]),
    (tuple, lambda value, depth, budget: ["p", _items(tuple.__iter__(value), depth, budget)]),
    (set, lambda value, depth, budget: ["e", _items(set.__iter__(value), depth, budget)]),
    (frozenset, lambda v, depth, budget: ["z", _items(frozenset.__iter__(v), depth, budget)]),
    (collections.OrderedDict, lambda value, depth, budget: ["d", _pairs(value, depth, budget)]),
    (collections.Counter, lambda value, depth, budget: ["d", _pairs(value, depth, budget)]),
    (dict, lambda value, depth, budget: ["d", _pairs(value, depth, budget)]),
    (fractions.Fraction, lambda v, *_: ["q", format(v.numerator, "x"), format(v.denominator, "x")]),
    (decimal.Decimal, lambda value, *_: ["m", str(value)]),
]  # fmt: skip


def _numpy_tree(value: Any) -> list[Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.generic, numpy.ndarray)):
        return None
    if type(value) is not numpy.ndarray and type(value).__module__ != "numpy":
        return ["x", type(value).__name__]
    array = numpy.asarray(value)
    if array.dtype.kind not in "biufcU" or array.nbytes > 64 << 20:
        return ["x", f"numpy {array.dtype}"]
    shape = list(array.shape)
    tag = "a" if isinstance(value, numpy.ndarray) else "g"
    return [tag, array.dtype.str, shape, array.tobytes().hex()]


def _equality(kind: type) -> object:
    return kind.__eq__


def _other(value: object) -> list[Any]:
    kind = type(value)
    name = kind.__name__
    # object.__eq__ is identity, and no built-in container equals a list, dict, number or string.
    unequal = _equality(kind) is object.__eq__ or kind.__module__ in (
        "builtins",
        "collections",
        "array",
    )
    return ["u" if unequal else "x", name]
