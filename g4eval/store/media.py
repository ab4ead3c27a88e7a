"""Pictures and sounds of prompts: RUN/media/SHA256, stored once, under the hash of their bytes."""

import hashlib
import os
from pathlib import Path

from g4eval.errors import StoreError
from g4eval.records import Media

MEDIA = "media"


def save_media(folder: Path, data: bytes, media_type: str) -> Media:
    """Store bytes, whole or not at all; return how a message names them."""
    media = Media(sha256=hashlib.sha256(data).hexdigest(), media_type=media_type)
    path = folder / MEDIA / media.sha256
    if path.is_file():
        return media
    draft = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(exist_ok=True)
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"can't be written: {error.strerror}", where=path) from error
    return media


def read_media(folder: Path, media: Media) -> bytes:
    """Return stored bytes; raises StoreError where they are missing or not what was stored."""
    path = folder / MEDIA / media.sha256
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"can't be read: {error.strerror}", where=path) from error
    if hashlib.sha256(data).hexdigest() != media.sha256:
        raise StoreError("is not what was stored: its hash is another", where=path)
    return data
