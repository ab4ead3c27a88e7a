"""Canonical JSON, and the hashes made from it: request keys, seeds, fingerprints.

Canonical: keys sorted, no spaces, UTF-8, no NaN. Equal values give equal bytes on every Python and
platform, so a hash made today names the same thing next year.
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

from g4eval.records import Message

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical_json(value: Any) -> bytes:
    """Return `value` as canonical JSON; raises ValueError for NaN and infinities."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def sha256_json(value: Any) -> str:
    """Return the SHA-256, in hex, of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def request_seed(
    task_id: str, task_version: int, sample_id: str, repeat: int, run_seed: int
) -> int:
    """Return a seed in [0, 2**31) that depends on this one request alone."""
    digest = hashlib.sha256(
        canonical_json([task_id, task_version, sample_id, repeat, run_seed])
    ).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@lru_cache(maxsize=256)
def prompt_hash(messages: tuple[Message, ...]) -> str:
    """Return the SHA-256, in hex, of a prompt: its roles and contents in order."""
    return sha256_json([[m.role, m.content] for m in messages])


def hash_order(*parts: object) -> bytes:
    """Return a sort key that orders items the same way on every machine and Python."""
    return hashlib.sha256(canonical_json(list(parts))).digest()
