"""The metadata of a GGUF file, each field of the type that belongs there."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from g4eval.errors import EngineError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GgufFields:
    """Typed access to metadata; `{arch}` in a key stands for the architecture.

    Each method returns None where the field is missing, and raises EngineError, with the field's
    name, where it is of another type.
    """

    values: Mapping[str, Any]
    where: object

    def text(self, key: str) -> str | None:
        """Return a text."""
        return self._read(key, "a text", lambda value: isinstance(value, str))

    def integer(self, key: str) -> int | None:
        """Return a whole number."""
        return self._read(key, "a whole number", _is_integer)

    def number(self, key: str) -> float | None:
        """Return a finite number."""
        return self._read(key, "a finite number", _is_number)

    def texts(self, key: str) -> list[str] | None:
        """Return a list of texts."""
        return self._list(key, "a list of texts", lambda value: isinstance(value, str))

    def integers(self, key: str) -> list[int] | None:
        """Return a list of whole numbers."""
        return self._list(key, "a list of whole numbers", _is_integer)

    def numbers(self, key: str) -> list[float] | None:
        """Return a list of finite numbers."""
        return self._list(key, "a list of finite numbers", _is_number)

    def flags(self, key: str, length: int) -> list[bool] | None:
        """Return a list of so many yes or no."""
        flags = self._list(key, "a list of yes or no", lambda value: value in (0, 1))
        if flags is not None and len(flags) != length:
            raise EngineError(
                f"metadata {key!r} has {len(flags)} values for {length} layers", where=self.where
            )
        return flags

    def layers(self, key: str, count: int) -> list[int] | None:
        """Return a whole number a layer, where one may stand for all."""
        if not isinstance(self._value(key), list):
            value = self.integer(key)
            return None if value is None else [value] * count
        values = self.integers(key)
        if values is not None and len(values) != count:
            raise EngineError(
                f"metadata {key!r} has {len(values)} values for {count} layers", where=self.where
            )
        return values

    def required(self, value: T | None, key: str) -> T:
        """Return a value that is there; raises EngineError, with the field's name, else."""
        if value is None:
            raise EngineError(f"metadata {key!r} is missing", where=self.where)
        return value

    def _value(self, key: str) -> Any:
        if "{arch}" in key:
            key = key.replace("{arch}", str(self.values.get("general.architecture")))
        return self.values.get(key)

    def _read(self, key: str, what: str, fits: Callable[[Any], bool]) -> Any:
        value = self._value(key)
        if value is not None and not fits(value):
            raise EngineError(
                f"metadata {key!r} is {value!r:.100}, which is not {what}", where=self.where
            )
        return value

    def _list(self, key: str, what: str, fits: Callable[[Any], bool]) -> Any:
        return self._read(
            key, what, lambda value: isinstance(value, list) and all(map(fits, value))
        )


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
