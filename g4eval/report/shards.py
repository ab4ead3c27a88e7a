"""Texts in compressed `.js` files, loaded by a script tag when a reader opens a sample.

A page opened from a file may load scripts and nothing else, so a shard is a script with one call:
`g4eval.receive(NAME, JSON)`. Long texts stand in it as base64 of the zstd frames that the store
holds: nothing is unpacked to write a report, and base64 has no quote, tag or line end, whatever the
model wrote. Short texts (extractions, tests) are JSON strings in ASCII.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from g4eval.report.views import RepeatTexts, SampleTexts

SHARD_BYTES = 1 << 20  # a sample is never split, so a shard may be larger


def write_shards(
    samples: Iterable[SampleTexts], folder: Path, prefix: str, *, shard_bytes: int = SHARD_BYTES
) -> dict[str, int]:
    """Write `PREFIX-0.js`, `PREFIX-1.js` ...; return sample id -> the number of its shard.

    Memory does not grow with the number of samples.
    """
    shard_of: dict[str, int] = {}
    for number, members in enumerate(_shards(samples, shard_bytes)):
        shard_of.update(dict.fromkeys(members, number))
        name = f"{prefix}-{number}"
        parts = (f"{json.dumps(sample_id)}:{text}" for sample_id, text in members.items())
        with (folder / f"{name}.js").open("w", encoding="ascii", newline="\n") as file:
            file.write(f"g4eval.receive({json.dumps(name)},{{")
            file.write(",\n".join(parts))
            file.write("});\n")
    return shard_of


def script_call(name: str, value: object) -> str:
    """Return a script that hands a plain JSON value to the page under a name."""
    return f"g4eval.receive({json.dumps(name)},{_dumps(value)});\n"


def _shards(samples: Iterable[SampleTexts], shard_bytes: int) -> Iterator[dict[str, str]]:
    """Yield sample id -> JSON of the samples of one shard."""
    members: dict[str, str] = {}
    size = 0
    for sample in samples:
        text = _dumps(_sample_json(sample))
        members[sample.sample_id] = text
        size += len(text)
        if size >= shard_bytes:
            yield members
            members, size = {}, 0
    if members:
        yield members


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _sample_json(sample: SampleTexts) -> dict[str, Any]:
    """Return a sample as the explorer reads it; equal prompts stand once."""
    prompts: dict[bytes | None, int] = {}
    repeats = [
        _repeat_json(texts, prompts.setdefault(texts.prompt, len(prompts)))
        for texts in sample.repeats
    ]
    return {
        "target": sample.target,
        "prompts": [_base64(frame) for frame in prompts],
        "repeats": repeats,
    }


def _repeat_json(texts: RepeatTexts, prompt: int) -> dict[str, Any]:
    whole = {
        "repeat": texts.repeat,
        "prompt": prompt,
        "text": _base64(texts.text),
        "reasoning": _base64(texts.reasoning),
        "stop": texts.stop_reason,
        "extraction": texts.extraction,
        "lenient": texts.lenient_extraction,
        "verdict": texts.verdict,
        "notes": texts.notes or None,
        "tests": [[t.verdict, t.input, t.expected, t.got] for t in texts.tests] or None,
        "promptTokens": texts.prompt_tokens,
        "reasoningTokens": texts.reasoning_tokens,
        "seconds": texts.seconds,
    }
    return {key: value for key, value in whole.items() if value is not None}


def _base64(frame: bytes | None) -> str | None:
    return None if frame is None else b64encode(frame).decode("ascii")
