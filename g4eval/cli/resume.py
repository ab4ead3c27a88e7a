"""What to say when a run stops early: the command that continues it."""

import shlex
import sys


def resume_hint() -> str:
    """Return `; to continue: COMMAND` for commands that write a run, else nothing."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in ("run", "import", "gate"):
        return ""
    return f"\n  to continue: g4eval {shlex.join(arguments)}"
