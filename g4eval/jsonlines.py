r"""Read and write JSON lines, split on `\n` alone: texts may hold U+2028 and other line ends."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from g4eval.errors import G4EvalError, UsageError
from g4eval.output import SafeStream, safe_json


def read_json_lines(
    path: Path,
    *,
    error: type[G4EvalError] = UsageError,
    unique_keys: bool = False,
    most_bytes: int | None = None,
    name: str | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line that isn't blank; `.gz` is unpacked.

    Args:
        path: the file.
        error: what to raise.
        unique_keys: refuse an object with one key twice, of which json would take the last.
        most_bytes: refuse a longer line, before it is read whole; None: any length.
        name: what errors call the file, where it is a copy; None: its path.

    Raises `error`, with file and line, for what can't be read, isn't JSON or isn't an object.
    """
    parse = json.JSONDecoder(object_pairs_hook=_unique).decode if unique_keys else json.loads
    number = 0
    name = name or str(path)
    try:
        with _open(path) as lines:
            while line := lines.readline(-1 if most_bytes is None else most_bytes + 1):
                number += 1
                where = f"{name}:{number}"
                if most_bytes is not None and len(line) > most_bytes:
                    raise error(f"is longer than {most_bytes:,} bytes", where=where)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield number, _parsed(line, parse, error, where)
    except (OSError, EOFError, zlib.error) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise error(f"can't be read: {reason}", where=name) from cause


def _parsed(
    line: bytes, parse: Callable[[str], Any], error: type[G4EvalError], where: str
) -> dict[str, Any]:
    try:
        row = parse(line.decode())
    except UnicodeDecodeError as cause:
        raise error("is not UTF-8", where=where) from cause
    except json.JSONDecodeError as cause:
        raise error(f"is not JSON: {cause.msg}", where=where) from cause
    except _TwiceError as cause:
        raise error("has one key twice", where=where, hint="which of the two counts?") from cause
    except (ValueError, RecursionError) as cause:  # numbers too long, brackets too deep
        raise error("is no JSON that can be read", where=where) from cause
    if not isinstance(row, dict):
        raise error(f"holds {type(row).__name__}, not a JSON object", where=where)
    return row


class _TwiceError(Exception):
    """An object has one key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError
    return found


def write_json_lines(stream: IO[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write one object a line; what a terminal would obey or UTF-8 can't hold is escaped."""
    write = stream.write_safe if isinstance(stream, SafeStream) else stream.write
    for row in rows:
        write(safe_json(json.dumps(row, ensure_ascii=False)) + "\n")


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")
