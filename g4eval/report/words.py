"""Numbers and times as the pages print them: a real minus, an en dash, no false digits."""

import math
from datetime import UTC, datetime

from g4eval.records import Interval

NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.8917 -> 89.2; None and nan -> a dash."""
    if fraction is None or math.isnan(fraction):
        return NOTHING
    return f"{100 * fraction:.{digits}f}".replace("-", MINUS)


def points(fraction: float | None, digits: int = 1) -> str:
    """A difference in points with its sign: -0.034 -> -3.4 (a real minus)."""
    if fraction is None or math.isnan(fraction):
        return NOTHING
    return f"{100 * fraction:+.{digits}f}".replace("-", MINUS)


def interval(value: Interval | None) -> str:
    """An interval of fractions as percentages: 84.0-93.1."""
    if value is None:
        return NOTHING
    return f"{percent(value.low)}\N{EN DASH}{percent(value.high)}"


def points_interval(value: Interval | None) -> str:
    """An interval of a difference: -6.2 to +1.1."""
    return NOTHING if value is None else f"{points(value.low)} to {points(value.high)}"


def count(value: float | None) -> str:
    """12345.6 -> 12,346."""
    return NOTHING if value is None or math.isnan(value) else f"{value:,.0f}"


def share(part: int, whole: int) -> str:
    """A share in percent; a trace is "<0.1" and never 0.0, so that zero means none."""
    if whole == 0:
        return NOTHING
    if part == 0:
        return "0"
    fraction = part / whole
    return "<0.1" if fraction < 0.0005 else f"{100 * fraction:.1f}"


def hours(value: float | None) -> str:
    """0.004 -> <0.1; 2.345 -> 2.3."""
    if value is None:
        return NOTHING
    return "<0.1" if 0 < value < 0.05 else f"{value:.1f}"


def moment(seconds: float) -> str:
    """Seconds since the epoch as a UTC date and time; a dash for 0, which is unknown."""
    if not seconds:
        return NOTHING
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # a clock that was years out of any range
        return f"{NOTHING} (a time out of range)"


def slug(name: str) -> str:
    """A run id as a file name: all but letters, digits, dots, dashes, underscores become dashes."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return kept.strip(".-") or "run"
