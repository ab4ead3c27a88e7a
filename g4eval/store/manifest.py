"""manifest.json: what people need to make a run again; written whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g4eval.errors import StoreError

MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace a run's manifest in one step; raises StoreError where the disk refuses."""
    path = folder / MANIFEST
    draft = path.with_suffix(".json.part")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            json.dump(manifest, stream, indent=2, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"can't be written: {error.strerror}", where=path) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest, given its file or its run's folder; raises StoreError."""
    path = path / MANIFEST if path.is_dir() else path
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"can't be read: {error.strerror}", where=path) from error
    except ValueError as error:
        raise StoreError("is not JSON", where=path) from error
    if not isinstance(manifest, dict):
        raise StoreError("is not a manifest", where=path)
    return manifest
