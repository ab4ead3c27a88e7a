"""Canonical JSON, and the hashes made from it: request keys, seeds, fingerprints.

Canonical: keys sorted, no spaces, UTF-8, no NaN. Equal values give equal bytes on every Python and
platform, so a hash made today names the same thing next year.
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

from g4eval.records import Chat, Message, Prompt, Text, TokenIds

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
    task_id: str, task_version: int, sample_id: str, repeat: int, run_seed: int, *, step: int = 0
) -> int:
    """Return a seed in [0, 2**31) that depends on this one request alone.

    Step 0 is left out of it: so it is what it was when tries had no steps.
    """
    parts = [task_id, task_version, sample_id, repeat, run_seed]
    digest = hashlib.sha256(canonical_json(parts + [step] * (step > 0))).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def prompt_hash(prompt: Prompt) -> str:
    """Return the SHA-256, in hex, of a prompt.

    Of a chat: its roles and contents in order, and behind them what else a message has.
    """
    return _prompt_hash(prompt)


@lru_cache(maxsize=256)
def _prompt_hash(prompt: Prompt) -> str:
    match prompt:
        case Chat():
            return sha256_json([_turn(message) for message in prompt.messages])
        case Text():
            return sha256_json({"text": prompt.text})
        case TokenIds():
            return sha256_json({"token_ids": list(prompt.ids)})


def _turn(message: Message) -> list[Any]:
    more: dict[str, Any] = {}
    if message.media:
        more["media"] = [[m.media_type, m.sha256] for m in message.media]
    if message.tool_calls:
        more["tool_calls"] = [[c.name, c.arguments, c.call_id] for c in message.tool_calls]
    if message.call_id:
        more["call_id"] = message.call_id
    return [message.role, message.content, *([more] if more else [])]


def hash_order(*parts: object) -> bytes:
    """Return a sort key that orders items the same way on every machine and Python."""
    return hashlib.sha256(canonical_json(list(parts))).digest()
