"""What a sample may hold, checked once as rows become samples, whoever made them.

Past this point code trusts that ids and prompt fields are JSON that UTF-8 can hold, and that the
target is one that the task's grader can compare with.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from g4eval.records import Sample
from g4eval.tasking.choices import LETTERS
from g4eval.tasking.spec import TaskSpec

MAX_ID_CHARACTERS = 500
MAX_DEPTH = 32
MAX_VALUES = 1_000_000  # of one sample's fields
MAX_DIGITS = 1000  # of a target that is a number


def fault_of(sample: Any, spec: TaskSpec) -> str | None:
    """Return what is wrong with a sample, in words that quote no text of it; None: nothing is."""
    if not isinstance(sample, Sample):
        return f"{type(sample).__name__} is no Sample"
    fault = _id_fault(sample.sample_id) or _groups_fault(sample.groups)
    if fault is not None:
        return fault
    fields: Any = sample.fields
    if not isinstance(fields, Mapping):
        return "the fields are not values by name"
    fault = json_fault(dict(fields))
    if fault is not None:
        return f"a field holds {fault}"
    if sample.target is None or sample.target == "":
        return None  # told as an empty row
    return _options_fault(sample) or _target_fault(sample, spec)


def _id_fault(sample_id: Any) -> str | None:
    if not isinstance(sample_id, str) or len(sample_id) > MAX_ID_CHARACTERS:
        return f"the id is no text of at most {MAX_ID_CHARACTERS} characters"
    return None if _is_text(sample_id) else "the id holds what UTF-8 can't"


def _groups_fault(groups: Any) -> str | None:
    if isinstance(groups, Mapping) and all(
        isinstance(text, str) and _is_text(text) for pair in groups.items() for text in pair
    ):
        return None
    return "the groups are not texts by name"


def json_fault(value: Any) -> str | None:
    """Return why a value can't be kept as JSON, in words; None: it can."""
    if type(value) is int or (type(value) is str and value.isascii()):
        return None  # most are, and 100,000 rows are checked before anything is generated
    if type(value) is dict and all(
        type(text) is str and text.isascii() for pair in value.items() for text in pair
    ):
        return None
    waiting, seen = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            return "values nested too deeply, or too many of them"
        if isinstance(one, list | tuple):
            waiting += [(part, depth + 1) for part in one]
        elif isinstance(one, dict):
            if not all(isinstance(key, str) for key in one):
                return "a name that is no text"
            waiting += [(part, depth + 1) for pair in one.items() for part in pair]
        elif (fault := _scalar_fault(one)) is not None:
            return fault
    return None


def _scalar_fault(value: Any) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else "half a surrogate pair, which UTF-8 can't hold"
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number that is not finite"
    if value is None or isinstance(value, int):
        return None
    return f"{type(value).__name__}, which JSON can't"


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _options_fault(sample: Sample) -> str | None:
    if "options" not in sample.fields:
        return None
    options = sample.fields["options"]
    if not isinstance(options, list | tuple) or not 2 <= len(options) <= len(LETTERS):
        count = len(options) if isinstance(options, list | tuple) else type(options).__name__
        return f"options: {count}, where 2 to {len(LETTERS)} can be shown"
    right = list(options).count(sample.target)  # two wrong ones may be the same: GPQA has a row
    if right != 1:
        return "the target is not among the options" if right == 0 else "two options are right"
    return None


def _target_fault(sample: Sample, spec: TaskSpec) -> str | None:
    target = sample.target
    fault = json_fault(target)
    if fault is not None:
        return f"the target holds {fault}"
    if spec.grader == "integer" and not _is_number(target):
        return f"the target is no number, which grader 'integer' compares with ({_kind(target)})"
    if spec.grader == "choice" and "options" not in sample.fields and target not in tuple(LETTERS):
        return f"the target is none of {', '.join(LETTERS)}, and there are no options"
    if spec.grader == "stated_answer" and not isinstance(target, str):
        return f"the target is {_kind(target)}, where grader 'stated_answer' compares texts"
    if spec.grader == "code" and not isinstance(target, Mapping):
        return f"the target is {_kind(target)}, where grader 'code' needs fn_name"
    return None


def _is_number(target: Any) -> bool:
    """Whether a target is a number: an int, or what reads as one."""
    if type(target) is int:
        return True
    if isinstance(target, bool) or not isinstance(target, int | float | str):
        return False
    if isinstance(target, str) and len(target) > MAX_DIGITS:
        return False
    try:
        Fraction(target)
    except (ValueError, OverflowError, ZeroDivisionError):
        return False
    return True


def _kind(value: Any) -> str:
    return type(value).__name__
