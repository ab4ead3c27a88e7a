"""manifest.json: what people need to make a run again; written whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g4eval.errors import StoreError
from g4eval.store.stored import Manifest, read_json_object

MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace a run's manifest in one step; raises StoreError where the disk refuses."""
    write_json(folder / MANIFEST, manifest)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step; raises StoreError where the disk refuses.

    The draft's name is this process's own, so that several may write one file: the last one stays.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            json.dump(values, stream, indent=2, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"can't be written: {error.strerror}", where=path) from error


def read_manifest(path: Path) -> Manifest:
    """Return a manifest, given its file or its run's folder; raises StoreError."""
    path = path / MANIFEST if path.is_dir() else path
    return Manifest.parse(read_json_object(path), where=path)
