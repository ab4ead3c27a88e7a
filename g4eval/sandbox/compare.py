"""Compare what a program printed or returned with what was expected; on our side of the sandbox.

`*_official` follow LiveCodeBench 28fef95, lcb_runner/evaluation/testing_util.py: `grade_stdio` and
`grade_call_based`. `*_fair` are a lenient judge's rules and never score.
"""

import math
from decimal import Decimal, InvalidOperation
from typing import Any

_TOLERANCE = 1e-6
_SHOWN = 100


class ComparisonError(Exception):
    """Comparing itself failed, which the official checker counts against the submission."""


def output_difference_official(output: str, expected: str) -> str | None:
    """Return how a test's output differs, or None; ComparisonError for a signalling NaN.

    Both are stripped, split at newlines, and each line is stripped. Lines are alike if they are
    equal, or if both are numbers only, equal one by one as decimals: no tolerance.
    """
    output, expected = output.strip(), expected.strip()
    count, wanted_count = output.count("\n") + 1, expected.count("\n") + 1
    if count != wanted_count:  # counted first: a flood is not taken to pieces
        return f"{count} lines where {wanted_count} are expected"
    lines = [line.strip() for line in output.split("\n")]
    expected_lines = [line.strip() for line in expected.split("\n")]
    for number, (line, wanted) in enumerate(zip(lines, expected_lines, strict=True), start=1):
        if line != wanted and not _same_numbers(line, wanted):
            return f"line {number}: {line[:_SHOWN]!r} where {wanted[:_SHOWN]!r} is expected"
    return None


def _same_numbers(line: str, wanted: str) -> bool:
    wanted_tokens = wanted.split()
    tokens = line.split(maxsplit=len(wanted_tokens))  # a flood of them is not taken to pieces
    if len(tokens) != len(wanted_tokens):
        return False
    try:
        numbers = [Decimal(token) for token in tokens]
        wanted_numbers = [Decimal(token) for token in wanted_tokens]
    except (ArithmeticError, ValueError):
        return False
    try:
        return numbers == wanted_numbers
    except InvalidOperation as error:
        raise ComparisonError("a signalling NaN can't be compared") from error


def values_equal_official(value: Any, expected: Any) -> Any:
    """Return `value == expected` as Python has it, perhaps an array; or ComparisonError."""
    try:
        return value == expected
    except Exception as error:
        raise ComparisonError(f"{type(error).__name__}: {error}") from error


def output_difference_fair(output: str, expected: str) -> str | None:
    """Return how two texts differ, token by token, numbers within 1e-6; or None."""
    wanted_tokens = expected.split()
    tokens = output.split(maxsplit=len(wanted_tokens))
    if len(tokens) != len(wanted_tokens):
        count = f"{len(tokens)}" if len(tokens) < len(wanted_tokens) else "more"
        return f"{count} tokens where {len(wanted_tokens)} are expected"
    for number, (token, wanted) in enumerate(zip(tokens, wanted_tokens, strict=True), start=1):
        if token != wanted and not _close_texts(token, wanted):
            return f"token {number}: {token[:_SHOWN]!r} where {wanted[:_SHOWN]!r} is expected"
    return None


def _close_texts(token: str, wanted: str) -> bool:
    try:
        number, wanted_number = Decimal(token), Decimal(wanted)
    except (ArithmeticError, ValueError):
        return False
    if not (number.is_finite() and wanted_number.is_finite()):
        return str(number) == str(wanted_number)
    whole = not any(mark in token + wanted for mark in ".eE")
    if whole or math.isinf(float(number)) or math.isinf(float(wanted_number)):
        return number == wanted_number
    return _close(float(number), float(wanted_number))


def values_equal_fair(value: Any, expected: Any) -> bool:
    """Return whether two values are alike: tuples as lists, numbers within 1e-6."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(expected, list):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(map(values_equal_fair, value, expected))
        )
    if isinstance(expected, float) and isinstance(value, (int, float)):
        return _close(float(value), expected)
    return bool(values_equal_official(value, expected))


def _close(number: float, wanted: float) -> bool:
    return math.isclose(number, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
