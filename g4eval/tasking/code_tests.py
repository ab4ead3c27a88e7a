"""The tests of code tasks, kept on disk by content: a task's tests together don't fit in memory.

A family's `to_sample` calls `keep_tests` and puts what it returns into the sample's fields as
`tests`; the code grader calls `read_tests` with it. The first load decodes a row's tests and
writes them, checked, to the user's cache; later loads only hash the encoded form.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from g4eval.errors import DataError
from g4eval.fingerprint import canonical_json
from g4eval.records import Json

Test = dict[str, str]  # input, output, testtype
_FIELDS = ("input", "output", "testtype")
_TYPES = ("stdin", "functional")
_MAX_BYTES = 1 << 30  # of one problem's tests, unpacked


def keep_tests(encoded: Json, decode: Callable[[], Sequence[Test]]) -> str:
    """Return the name under which `read_tests` finds the tests of one problem.

    Args:
        encoded: the tests as the data holds them, for the name: a SHA-256.
        decode: returns the tests; called only where the cache has none of this name.

    Raises DataError for no tests at all, for a test that isn't input, output and testtype, all
    text, and where the cache can't be written.
    """
    name = hashlib.sha256(canonical_json(encoded)).hexdigest()
    path = _path(name)
    if not path.is_file():
        packed = zstandard.compress(json.dumps(checked_tests(decode())).encode(), 1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
                stream.write(packed)
            Path(stream.name).replace(path)
        except OSError as error:
            raise DataError(
                f"the tests can't be kept: {error.strerror}",
                where=path.parent,
                hint="make room, or set XDG_CACHE_HOME to a folder that can be written",
            ) from error
    return name


def read_tests(tests: str | Sequence[Test]) -> list[Test]:
    """Return a problem's tests, given what its sample's field `tests` holds: a name, or the tests.

    Raises DataError where the cache has lost them: load the task again.
    """
    if not isinstance(tests, str):
        return checked_tests(tests)
    path = _path(tests)
    try:
        text = zstandard.decompress(path.read_bytes(), max_output_size=_MAX_BYTES)
    except (OSError, zstandard.ZstdError) as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # so that the next load writes it again
        raise DataError(
            f"the tests can't be read from the cache ({type(error).__name__})",
            where=path,
            hint="run the command again: loading the task writes them anew",
        ) from error
    return checked_tests(json.loads(text))


def checked_tests(tests: Any) -> list[Test]:
    """Return the tests with their three fields alone; raises DataError for anything else."""
    if not isinstance(tests, Sequence) or isinstance(tests, str) or not tests:
        raise DataError("a problem has no tests, and would count as solved by any program")
    checked: list[Test] = []
    for number, test in enumerate(tests, 1):
        fields = test if isinstance(test, dict) else {}
        kept = {name: fields[name] for name in _FIELDS if isinstance(fields.get(name), str)}
        if len(kept) < len(_FIELDS) or kept["testtype"] not in _TYPES:
            raise DataError(f"test {number} is not input, output and testtype, each of them text")
        checked.append(kept)
    return checked


def _path(name: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "g4eval" / "tests" / f"{name}.json.zst"
