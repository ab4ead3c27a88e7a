"""What to say when a run stops early: the command that continues it, without its secrets."""

import shlex
import sys

CONTINUED = ("run", "import", "gate", "gate-calibrate")  # the rest is simply given again
HIDDEN = "…"
_OF_A_SECRET = ("key", "token", "secret", "passw", "auth", "header", "extra_body")


def resume_hint() -> str:
    """Return `; to continue: COMMAND` for commands that write a run, else nothing."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in CONTINUED:
        return ""
    return f"\n  to continue: g4eval {shlex.join(shown_arguments(arguments))}"


def shown_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments with what may be a secret left out: addresses' users and keys, headers.

    A value is hidden where its key says that it is one; a hidden one has to be given again.
    """
    shown: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if before == "--header":
            shown.append(_header(argument))
        elif flag == "--header" and equals:
            shown.append(f"{flag}={_header(value)}")
        elif "://" in flag:
            shown.append(_address(argument))
        elif equals and any(word in flag.lower() for word in _OF_A_SECRET):
            shown.append(f"{flag}={HIDDEN}")
        else:
            shown.append(f"{flag}={_address(value)}" if "://" in value else argument)
    return shown


def _header(text: str) -> str:
    name, colon, _ = text.partition(":")
    return f"{name}: {HIDDEN}" if colon else HIDDEN


def _address(text: str) -> str:
    """Return an address without user, password, query and fragment, wherever the parts lie.

    A password may hold what ends the host elsewhere, `/`, `?` or `#`: all up to the last @ goes.
    """
    scheme, _, rest = text.partition("://")
    if "@" in rest:
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    for mark in "?#":
        start, found, _ = rest.partition(mark)
        rest = f"{start}{found}{HIDDEN}" if found else rest
    return f"{scheme}://{rest}"
