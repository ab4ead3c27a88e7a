"""Names to classes, imported on first use, so that listing names costs nothing."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from g4eval.errors import UsageError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of names to `"module:Class"` paths; a seam's only list of implementations.

    Args:
        kind: what the names stand for, as error messages say it: "engine", "grader".
        paths: name to import path.
    """

    def __init__(self, kind: str, paths: Mapping[str, str]) -> None:
        self._kind = kind
        self._paths = dict(paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def load(self, name: str) -> type[T]:
        """Import and return the class called `name`; raises UsageError for an unknown one."""
        path = self._paths.get(name)
        if path is None:
            raise UsageError(
                f"{name!r} is not {_article(self._kind)} {self._kind}",
                hint=nearest(name, self._paths),
            )
        module_name, _, class_name = path.partition(":")
        return cast("type[T]", getattr(importlib.import_module(module_name), class_name))


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
