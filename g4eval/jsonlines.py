r"""Read and write JSON lines, split on `\n` alone: texts may hold U+2028 and other line ends."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from g4eval.errors import G4EvalError, UsageError
from g4eval.output import safe_json


def read_json_lines(
    path: Path, *, error: type[G4EvalError] = UsageError
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line that isn't blank; `.gz` is unpacked.

    Raises `error`, with file and line, for what can't be read, isn't JSON or isn't an object.
    """
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise error(
                        f"holds {type(row).__name__}, not a JSON object", where=f"{path}:{number}"
                    )
                yield number, row
    except UnicodeDecodeError as cause:
        raise error("is not UTF-8", where=f"{path}:{number + 1}") from cause
    except json.JSONDecodeError as cause:
        raise error(f"is not JSON: {cause.msg}", where=f"{path}:{number}") from cause
    except (ValueError, RecursionError) as cause:  # numbers too long, brackets too deep
        raise error("is no JSON that can be read", where=f"{path}:{number}") from cause
    except (OSError, EOFError, zlib.error) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise error(f"can't be read: {reason}", where=path) from cause


def write_json_lines(stream: IO[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write one object a line; what a terminal would obey or UTF-8 can't hold is escaped."""
    for row in rows:
        stream.write(safe_json(json.dumps(row, ensure_ascii=False)) + "\n")


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
    return path.open(encoding="utf-8-sig", newline="\n")
