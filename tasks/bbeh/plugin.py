"""BBEH: rows to samples, from the data folder or from the hub, whose rows have no ids."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from g4eval.errors import DataError
from g4eval.records import Sample

_IDS = Path(__file__).parent / "ids.txt"


def to_samples(rows: Iterable[dict[str, Any]], source: str) -> list[Sample]:
    """Return the samples of the data folder's rows, which have ids, or of the hub's, which don't.

    Raises DataError for a hub row whose input and target are not BBEH's.
    """
    if source == "directory":
        return [_sample(row.get("full_id", row["id"]), row) for row in rows]
    waiting = {key: list(reversed(ids)) for key, ids in _ids_by_text().items()}
    samples = []
    for number, row in enumerate(rows, 1):
        ids = waiting.get(text_key(row["input"], row["target"]))
        if not ids:
            raise DataError(
                f"row {number} is not a BBEH row, or is there twice",
                hint="take the data from its source again, unchanged",
            )
        samples.append(_sample(ids.pop(), row))
    return samples


def text_key(text: str, target: str) -> str:
    """Return the key under which ids.txt names a row: a hash of its input and target."""
    return hashlib.sha256(json.dumps([text, target]).encode()).hexdigest()[:16]


def _sample(sample_id: str, row: dict[str, Any]) -> Sample:
    return Sample(
        sample_id=sample_id,
        target=row["target"],
        fields={"input": row["input"]},
        groups={"task": sample_id.partition("/")[0]},
    )


@lru_cache(maxsize=1)
def _ids_by_text() -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for line in _IDS.read_text(encoding="utf-8").split("\n"):
        if line:
            sample_id, _, key = line.partition(" ")
            ids[key].append(sample_id)
    return dict(ids)
