"""Rows of AIME to samples: the data folder's ids, or the hub's running numbers."""

from typing import Any

from g4eval.records import Sample


def to_sample(row: dict[str, Any], source: str) -> Sample:
    """Return the sample of one row; its id is `aime2026-II-7` whatever the source."""
    if source == "directory":
        return _sample(row["id"], row["problem"], row["answer"])
    if "ID" in row:  # Maxwell-Jia/AIME_2024: "2024-I-1"
        return _sample(f"aime{row['ID']}", row["Problem"], row["Answer"])
    exam, number = divmod(int(row["problem_idx"]) - 1, 15)  # MathArena: 1-15 is I, 16-30 is II
    year = row["_dataset"].removeprefix("MathArena/aime_")
    return _sample(f"aime{year}-{'I' * (exam + 1)}-{number + 1}", row["problem"], row["answer"])


def _sample(sample_id: str, problem: str, answer: object) -> Sample:
    exam = sample_id.split("-")[1]
    return Sample(
        sample_id=sample_id,
        target=int(str(answer)),
        fields={"problem": problem},
        groups={"exam": exam},
    )
