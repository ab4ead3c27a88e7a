"""What a run's rows are read as, and how a row is checked on its way in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from g4eval.records import Grade, Outcome, StopReason, Thought
from g4eval.store import schema
from g4eval.store.damage import check_row

N_HASHED = len(schema.HASHED_OF_A_COMPLETION.split(", "))
_COMPLETION_KINDS = (
    *(str, str, str, int, str, str, str, str, int, int, int, float, float, str, str, str, str, str),
    *(int, int),
)
_GRADE_KINDS = (str, str, int, str, str, str, str, str, str, float)


def check_completion(row: Sequence[Any]) -> None:
    """Check the hashed columns of a completion; raises ValueError."""
    values = row[:N_HASHED]
    # Asked here first, so that the words cost nothing where nothing is wrong.
    if row[N_HASHED] is None or schema.row_hash(*values) != row[N_HASHED]:
        check_row(values, row[N_HASHED], _COMPLETION_KINDS, f"completion {row[2]!r}/{row[3]!r}")


def checked_grade(row: Sequence[Any]) -> Grade | None:
    """Return the grade of `_hashed_grade`'s columns, checked; None: there is none."""
    if row[0] is None:
        return None
    _check_grade(row)
    return schema.row_grade(row)


def _check_grade(row: Sequence[Any]) -> None:
    values = row[:-1]
    if row[-1] is None or schema.row_hash(*values) != row[-1]:
        check_row(values, row[-1], _GRADE_KINDS, f"a grade of {str(row[0])[:12]!r}")


def parse_groups(text: str) -> dict[str, str]:
    """Return a sample's groups, as JSON has them."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("a sample's groups are no object")
    return {str(name): str(value) for name, value in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """A sample as the store knows it."""

    sample_id: str
    position: int  # the task's order
    target: Any  # None for gated tasks
    groups: Mapping[str, str]


class StoredRow(NamedTuple):
    """One completion without its texts, and its newest grade."""

    key: str
    sample_id: str
    repeat: int
    stop_reason: StopReason
    thought: Thought
    text_hash: str  # of reasoning and text; equal for equal completions
    prompt_hash: str | None
    prompt_tokens: int | None
    reasoning_tokens: int | None
    completion_tokens: int | None
    started_at: float
    finished_at: float
    grade: Grade | None

    @property
    def outcome(self) -> Outcome:
        """The grade's outcome; not yet graded is ungraded."""
        return Outcome.UNGRADED if self.grade is None else self.grade.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTexts:
    """The texts of one completion that a reader looks at, still packed, and its newest grade."""

    sample_id: str
    repeat: int
    text: bytes  # `schema.unpack_text` unpacks it
    reasoning: bytes | None
    stop_reason: StopReason
    prompt_hash: str | None
    prompt_tokens: int | None
    reasoning_tokens: int | None
    started_at: float
    finished_at: float
    grade: Grade | None


def outcome_row(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return what `RunReader.outcome_rows` yields, checked; no record is made of it."""
    check_completion(row)
    grade = row[N_HASHED + 1 : -1]
    if grade[0] is not None:
        _check_grade(grade)
    sample_id, repeat, stop_reason, thought, text_hash, prompt_hash = row[2:8]
    return (
        *(sample_id, repeat, grade[3], stop_reason, thought, row[10], prompt_hash),
        *(grade[1], grade[2], text_hash, row[-1]),
    )
