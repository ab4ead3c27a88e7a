"""Texts in compressed `.js` files, loaded by a script tag when a reader opens a sample.

A page opened from a file may load scripts and nothing else, so a shard is a script with one call:
`g4eval.receive(NAME, BASE64)`, the base64 of gzipped JSON `{sample id: texts}`. Base64 has no
quote, tag or line end, whatever the model wrote. JSON escapes all that isn't ASCII, lone
surrogates too, so a text comes out of it as it went in.
"""

import gzip
import json
from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from g4eval.records import Message
from g4eval.report.views import RepeatTexts, SampleTexts

SHARD_BYTES = 3 << 20  # of JSON; prose shrinks to a third, so a shard is about 1 MB
_THREADS = 2  # zlib lets go of the interpreter lock
_IN_FLIGHT = 4  # shards in memory at a time


def write_shards(
    samples: Iterable[SampleTexts], folder: Path, prefix: str, *, shard_bytes: int = SHARD_BYTES
) -> dict[str, int]:
    """Write `PREFIX-0.js`, `PREFIX-1.js` ...; return sample id -> the number of its shard.

    Memory does not grow with the number of samples; a sample is never split.
    """
    shard_of: dict[str, int] = {}
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for index, (ids, parts) in enumerate(_parts(samples, shard_bytes)):
            shard_of.update(dict.fromkeys(ids, index))
            while len(waiting) >= _IN_FLIGHT:
                waiting.popleft().result()
            name = f"{prefix}-{index}"
            waiting.append(pool.submit(_write, folder / f"{name}.js", name, parts))
        for written in waiting:
            written.result()
    return shard_of


def script_call(name: str, value: object) -> str:
    """Return a script that hands a plain JSON value to the page under a name."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"g4eval.receive({json.dumps(name)},{text});\n"


def _parts(
    samples: Iterable[SampleTexts], shard_bytes: int
) -> Iterator[tuple[list[str], list[bytes]]]:
    """Yield sample ids and their JSON members, about `shard_bytes` at a time."""
    ids: list[str] = []
    members: list[bytes] = []
    size = 0
    for sample in samples:
        member = _dumps(sample.sample_id) + b":" + _dumps(_sample_json(sample))
        ids.append(sample.sample_id)
        members.append(member)
        size += len(member)
        if size >= shard_bytes:
            yield ids, members
            ids, members, size = [], [], 0
    if members:
        yield ids, members


def _write(path: Path, name: str, members: list[bytes]) -> None:
    # Level 1 and no time in the header: fast, and the same bytes every time.
    packed = b64encode(gzip.compress(b"{" + b",".join(members) + b"}", 1, mtime=0))
    path.write_bytes(b"g4eval.receive(" + _dumps(name) + b',"' + packed + b'");\n')


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _sample_json(sample: SampleTexts) -> dict[str, Any]:
    """Return a sample as the explorer reads it; equal prompts stand once."""
    prompts: dict[tuple[Message, ...], int] = {}
    repeats = [
        _repeat_json(texts, prompts.setdefault(texts.messages, len(prompts)))
        for texts in sample.repeats
    ]
    return {
        "target": sample.target,
        "prompts": [[[m.role, m.content] for m in messages] for messages in prompts],
        "repeats": repeats,
    }


def _repeat_json(texts: RepeatTexts, prompt: int) -> dict[str, Any]:
    whole: Mapping[str, Any] = {
        "repeat": texts.repeat,
        "prompt": prompt,
        "text": texts.text,
        "reasoning": texts.reasoning,
        "stop": texts.stop_reason,
        "extraction": texts.extraction,
        "lenient": texts.lenient_extraction,
        "verdict": texts.verdict,
        "notes": texts.notes,
        "tests": [[t.verdict, t.input, t.expected, t.got] for t in texts.tests],
        "promptTokens": texts.prompt_tokens,
        "reasoningTokens": texts.reasoning_tokens,
        "seconds": texts.seconds,
    }
    return {key: value for key, value in whole.items() if value not in (None, (), [])}
