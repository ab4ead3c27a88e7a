"""The streams a submission meets during one test, as the official checker's mocks behave.

Patched by plain assignment, which costs microseconds where the mocks cost a millisecond a test.
Standard library only.
"""

import builtins
import functools
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def captured_stdout() -> Iterator[io.StringIO]:
    """Replace `sys.stdout` by a StringIO whose close() is a TypeError, as officially."""
    before = sys.stdout
    captured = io.StringIO()
    captured.close = lambda x: 1  # type: ignore[method-assign,assignment,misc]  # noqa: ARG005  official: close() is a TypeError
    sys.stdout = captured
    try:
        yield captured
    finally:
        sys.stdout = before


@contextmanager
def patched_stdin(text: str) -> Iterator[None]:
    """Give a test its input the official way: two streams that know nothing of each other.

    The real `sys.stdin` object gets its own read, readline and readlines, which a submission meets
    through `from sys import stdin`; then `sys.stdin` becomes another object with another position.
    """
    lines = iter(text.split("\n"))
    stdin: Any = sys.stdin
    opened = builtins.open
    stdin.read = lambda *_: text
    stdin.readlines = lambda *_: text.split("\n")
    stdin.readline = lambda *_: next(lines)
    sys.stdin = _Stdin(text)
    builtins.open = _Open(text)
    try:
        yield
    finally:
        builtins.open = opened
        sys.stdin = stdin
        del stdin.readline, stdin.readlines, stdin.read


class _Stdin:
    """`sys.stdin` during a test: read() starts over each time, iteration doesn't work."""

    def __init__(self, text: str) -> None:
        self.inputs = text
        self._stringio = io.StringIO(text)
        self.buffer = _StdinBuffer(text)

    def read(self, *_: object) -> str:
        return self.inputs

    def readline(self, *args: Any) -> str:
        return self._stringio.readline(*args)

    def readlines(self, *_: object) -> list[str]:
        return self.inputs.split("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stringio, name)


class _StdinBuffer:
    """`sys.stdin.buffer` during a test: readline() is the first line every time."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cached_property
    def inputs(self) -> bytes:
        return self._text.encode("utf-8")

    def read(self, *_: object) -> bytes:
        return self.inputs

    def readline(self, *_: object) -> bytes:
        return self.inputs.split(b"\n")[0] + b"\n"


class _Open:
    """`builtins.open` during a test: every file holds the input. Built when first used."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cached_property
    def _mock(self) -> Any:
        from unittest import mock  # noqa: PLC0415  30 ms and much memory, needed by few

        return mock.mock_open(read_data=self._text)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._mock(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mock, name)
