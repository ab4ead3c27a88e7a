"""The exceptions g4eval raises on purpose; each says what, where and what to do.

    G4EvalError                exit
    ├── UsageError              2    a flag, a key or a name is off
    │   ├── ConfigError         2    a configuration value breaks its rule
    │   ├── TaskError           2    a task's folder or YAML is off
    │   └── ImportLineError     2    a line of an import file is off
    ├── NotReadyError           5    something isn't installed, running or there
    │   ├── MissingExtraError   5    a Python package of an extra isn't installed
    │   ├── DataError           5    benchmark data is missing or isn't what the task states
    │   ├── EngineError         5    an engine can't start, or stopped
    │   ├── StepFailedError     5    a request of a try failed for good: raised in its dialogue
    │   ├── SandboxError        5    the sandbox can't start, or stopped
    │   ├── StoreError          5    a run folder can't be read, written or locked
    │   └── SeveralError        5    several of these at once
    └── NotComparableError      4    two runs, or a run and a number, don't measure one thing

Anything else that reaches the entry point is our bug and exits with 70.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class G4EvalError(Exception):
    """An error with a place and advice, printed without a traceback.

    Args:
        what: what happened, showing the value seen and the rule it broke.
        where: file, line, key or address, if it has one.
        hint: what the user can do about it.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)


class UsageError(G4EvalError):
    """A flag, a key or a name is off."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value breaks its rule."""


class TaskError(UsageError):
    """A task's folder, YAML, prompt or plugin is off."""


class ImportLineError(UsageError):
    """A line of an import file is off; nothing was written."""


class NotReadyError(G4EvalError):
    """Something isn't installed, running, finished or there."""

    exit_code = 5


class MissingExtraError(NotReadyError):
    """A Python package that belongs to an extra isn't installed."""


class DataError(NotReadyError):
    """Benchmark data is missing, or isn't what the task states."""


class EngineError(NotReadyError):
    """An engine can't start, or stopped."""


class StepFailedError(NotReadyError):
    """A request failed for good; the try whose dialogue asked for it is ungraded."""


class SandboxError(NotReadyError):
    """The sandbox can't start, or stopped."""


class StoreError(NotReadyError):
    """A run folder can't be read, written or locked."""


class SeveralError(NotReadyError):
    """Several things are missing, named at once so that they can be put right at once."""

    def __init__(self, parts: Sequence[NotReadyError]) -> None:
        items = "".join("\n- " + str(part) for part in parts)
        super().__init__(f"{len(parts)} things are missing:{items}")
        self.parts = tuple(parts)


class NotComparableError(G4EvalError):
    """Two runs, or a run and a published number, don't measure one thing."""

    exit_code = 4


def combined(errors: Sequence[NotReadyError]) -> NotReadyError:
    """Return one error that lists all that is missing; a single one comes back as it is."""
    parts = [part for e in errors for part in (e.parts if isinstance(e, SeveralError) else (e,))]
    return parts[0] if len(parts) == 1 else SeveralError(parts)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice for an unknown name: the nearest known ones, else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not names:
        return "none is known"
    return f"known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
