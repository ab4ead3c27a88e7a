"""JSON files of a checkpoint, read within bounds: config.json, indexes, tokenizer_config.json."""

import json
from pathlib import Path
from typing import Any

from g4eval.errors import EngineError

MAX_BYTES = 1 << 26  # an index of 100,000 tensors has 10 MB
AGAIN = "download it again"


def read_json_object(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the object in a file; `missing`, where given, stands for a file that isn't there.

    Raises:
        EngineError: it can't be read, is too large, no UTF-8, no JSON, nested too deeply, or
            another kind of value.
    """
    try:
        if missing is not None and not path.exists():
            return missing
        if path.stat().st_size > MAX_BYTES:
            raise EngineError(
                f"has {path.stat().st_size:,} bytes, and {MAX_BYTES:,} are read", where=path
            )
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise EngineError("is not UTF-8", where=path, hint=AGAIN) from error
    except RecursionError as error:
        raise EngineError("is JSON nested too deeply", where=path, hint=AGAIN) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"can't be read as JSON: {error}", where=path, hint=AGAIN) from error
    if not isinstance(value, dict):
        raise EngineError("is not a JSON object", where=path, hint=AGAIN)
    return value
