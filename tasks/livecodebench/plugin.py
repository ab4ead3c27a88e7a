"""LiveCodeBench: rows to samples, a safe decoder of the hub's tests, and which problems to take.

The hub stores private tests as base64 of zlib of a pickle of one JSON string. A pickle can run any
program when it is loaded, so none is ever loaded here.

The decoder covers: any pickle opcode but those of one plain string, more than one object, base64
and zlib that are cut short or followed by something, texts that unpack to more than MAX_TEXT_BYTES,
JSON that isn't a list of tests. It does not cover: tests that are wrong.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from g4eval.errors import ConfigError, DataError
from g4eval.records import Sample
from g4eval.tasking.code_tests import keep_tests

MAX_ENCODED_BYTES = 256 << 20  # the largest on the hub is under a quarter of it
MAX_TEXT_BYTES = 256 << 20
MAX_OPCODES = 16  # a pickled string has six at most
_FRAMING = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}
_TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_RELEASE_5 = Path(__file__).parent / "release_v5_ids.txt"
# Question id and fault of each problem in ERRATA.md of LiveCodeBench 28fef95.
_ERRATA = frozenset(
    line.partition(" ")[0]
    for line in (Path(__file__).parent / "errata.txt").read_text(encoding="utf-8").splitlines()
)


def to_sample(row: dict[str, Any], source: str) -> Sample:  # noqa: ARG001  both look alike
    """Return the sample of one row, in the hub's encoding or with plain lists of tests.

    Raises DataError, naming the question, for tests that can't be decoded safely.
    """
    question_id = str(row["question_id"])
    public, private = row["public_test_cases"], row["private_test_cases"]
    try:
        tests = keep_tests([public, private], lambda: decode_tests(public) + decode_tests(private))
        metadata = row["metadata"]
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata or {}
    except (DataError, ValueError) as error:
        what = error.what if isinstance(error, DataError) else "its metadata is not JSON"
        raise DataError(f"question {question_id!r}: {what}") from error
    return Sample(
        sample_id=question_id,
        target={"starter_code": row["starter_code"], "fn_name": metadata.get("func_name")},
        fields={
            "question": row["question_content"],
            "starter_code": row["starter_code"],
            "tests": tests,
        },
        groups={
            "difficulty": row["difficulty"],
            "platform": row["platform"],
            "contest_date": _day(row["contest_date"]),
            "month": _day(row["contest_date"])[:7],
            "errata": "listed" if question_id in _ERRATA else "unlisted",
        },
    )


def select(samples: list[Sample], settings: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of a release, of a date window (both ends included) and so on."""
    release = str(settings.get("release") or "v6").removeprefix("release_")
    if release not in ("v5", "v6"):
        raise ConfigError(
            f"{release!r} is not a release whose question ids are known: v5 or v6",
            where="livecodebench.release",
            hint="cut by date with livecodebench.start_date and livecodebench.end_date",
        )
    if release == "v5":
        old = set(_RELEASE_5.read_text(encoding="utf-8").split())
        samples = [s for s in samples if s.sample_id in old]
    start, end = (_bound(settings, key) for key in ("start_date", "end_date"))
    wanted = {
        group: {w.strip() for w in str(settings[group]).split(",")}
        for group in ("difficulty", "platform")
        if settings.get(group)
    }
    return [
        sample
        for sample in samples
        if (start or "") <= sample.groups["contest_date"] <= (end or "9999")
        and all(sample.groups[group] in values for group, values in wanted.items())
    ]


def decode_tests(encoded: Any) -> list[dict[str, str]]:
    """Return the tests in a plain list, in JSON, or in the hub's packed form.

    Raises DataError for anything that isn't one of the three.
    """
    tests = encoded
    if isinstance(encoded, str):
        try:
            tests = json.loads(encoded)
        except (ValueError, RecursionError):
            tests = _json(_pickled_text(_unpacked(encoded)))
    if not isinstance(tests, list):
        raise DataError(f"its tests are {type(tests).__name__}, not a list")
    return tests


def _unpacked(encoded: str) -> bytes:
    if len(encoded) > MAX_ENCODED_BYTES:
        raise DataError(f"its tests take more than {MAX_ENCODED_BYTES >> 20} MiB packed")
    try:
        packed = base64.b64decode(encoded, validate=True)
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, MAX_TEXT_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise DataError("its tests are neither JSON nor base64 of zlib") from error
    if inflater.unconsumed_tail or (len(data) >= MAX_TEXT_BYTES and not inflater.eof):
        raise DataError(f"its tests unpack to more than {MAX_TEXT_BYTES >> 20} MiB")
    if not inflater.eof or inflater.unused_data:
        raise DataError("its tests are cut short, or something follows them")
    return data


def _pickled_text(data: bytes) -> str:
    """Return the one string in a pickle, by reading its opcodes; nothing is executed."""
    text: str | None = None
    end = 0
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if opcode.name in _TEXT and text is None:
                text = argument
            elif opcode.name not in _FRAMING or number >= MAX_OPCODES:
                raise DataError(
                    f"the pickle of its tests holds {opcode.name}: it is more than one string "
                    "and may be an attack"
                )
            end = (position or 0) + 1
    except ValueError as error:
        raise DataError("the pickle of its tests is cut short or damaged") from error
    if text is None or end != len(data):
        raise DataError("the pickle of its tests is not one string alone")
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("its tests are not JSON") from error


def _day(date: Any) -> str:
    """Return the ISO form of a contest's date, given as text or by `datasets` as a datetime."""
    return date.isoformat() if isinstance(date, datetime) else str(date).replace(" ", "T")


def _bound(settings: Mapping[str, Any], key: str) -> str | None:
    value = settings.get(key)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value)).isoformat()
    except ValueError as error:
        raise ConfigError(
            f"{value!r} is not a date, such as 2024-08-01", where=f"livecodebench.{key}"
        ) from error
