"""The entry point: a wrapper, set before any other import, that settles the exit code.

0 done; 2 to 5 as errors.py says; 70 for a bug of ours, a broken import included; 130 interrupted.
"""

import errno
import os
import sys
from typing import TYPE_CHECKING

from g4eval import interrupts

if TYPE_CHECKING:
    import click

INTERRUPTED = interrupts.EXIT_CODE
OUR_BUG = 70


def main() -> None:
    """Run the command line; never returns."""
    interrupts.install()
    streams = sys.stdout, sys.stderr
    try:
        code = _run()
    finally:
        sys.stdout, sys.stderr = streams
    interrupts.settle(code)
    sys.exit(code)


def _run() -> int:
    """Run the command line behind the border of what is shown; return the exit code."""
    stdout = None
    try:
        interrupts.prepare_last_words(_last_words())
        from g4eval.output import SafeStream

        stdout = sys.stdout = SafeStream(sys.stdout, "standard output")
        sys.stderr = SafeStream(sys.stderr, "standard error", must_arrive=False)
        from g4eval.cli.main import cli

        code = cli(prog_name="g4eval", standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = _interrupted()
    except SystemExit as leave:
        # click leaves where the reader of a pipe has gone: that is no error of ours. Whoever else
        # leaves, a plugin or a library, has ended the command with its work undone.
        gone = stdout is not None and stdout.reader_has_gone
        code = 0 if gone else _explain(RuntimeError(f"sys.exit({leave.code!r}) was called"))
    except BaseException as error:  # noqa: BLE001  whatever it is, the exit code is ours to settle
        code = _explain(error)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone: that is no error of ours
        _drop_stdout()
    except Exception as error:  # noqa: BLE001  a full device, found as the last bytes go out
        code = _explain(error)
        _drop_stdout()
    return code if isinstance(code, int) else OUR_BUG


def _drop_stdout() -> None:
    """Send what is left for stdout nowhere, so that the interpreter's own flush can't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _last_words() -> str:
    from g4eval.cli.resume import resume_hint

    return f"interrupted; what was finished is stored{resume_hint()}"


def _interrupted() -> int:
    exec("")  # noqa: S102  else Python ends by SIGINT where it came in an exec of a text
    print(f"\n{interrupts.last_words()}", file=sys.stderr, flush=True)  # noqa: T201
    interrupts.settle(INTERRUPTED)
    return INTERRUPTED


def _explain(error: BaseException) -> int:
    """Print an error as style.md's three lines and return its code."""
    try:
        code, text = _known(error)
    except BaseException:  # noqa: BLE001  our own error classes can't be imported
        code, text = None, ""
    if code == INTERRUPTED or interrupts.was_interrupted():
        return _interrupted()
    if code is None or "--debug" in sys.argv:
        import traceback

        traceback.print_exception(error)
    if code is not None:
        print(f"error: {text}", file=sys.stderr)  # noqa: T201
        return code
    print(  # noqa: T201
        f"error: a bug in g4eval: {type(error).__name__}: {error}\n"
        "  try: report it with the lines above",
        file=sys.stderr,
    )
    return OUR_BUG


def _known(error: BaseException) -> tuple[int | None, str]:
    import click

    from g4eval.errors import G4EvalError

    if isinstance(error, G4EvalError):
        return error.exit_code, str(error)
    if (said := _of_the_machine(error)) is not None:
        return 5, said
    if isinstance(error, click.Abort):
        return INTERRUPTED, ""
    if isinstance(error, click.UsageError):
        return 2, _usage(error)
    if isinstance(error, click.ClickException):
        return 2, error.format_message()
    return None, ""


def _usage(error: "click.UsageError") -> str:
    """Return click's complaint with its place; in words of ours where click's change."""
    import click

    where = f"\n  at: {error.ctx.command_path}" if error.ctx else ""
    if not isinstance(error, click.NoSuchOption):
        return f"{error.format_message()}{where}"
    near = " or ".join(sorted(error.possibilities or ()))
    hint = f"\n  try: did you mean {near}?" if near else ""
    return f"{error.option_name!r} is not an option{where}{hint}"


def _of_the_machine(error: BaseException) -> str | None:
    """Return what is wrong with the machine around us, if anything is; None: it isn't that."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: {error.filename or 'nothing more can be written'}"
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return "the memory is used up\n  try: end other programs, or raise ulimit -v"
    if isinstance(error, FileNotFoundError) and _folder_is_gone():
        return "the working directory is gone\n  try: cd to one that is there"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"a name is too long\n  at: {str(error.filename)[:200]}"
    return None


def _folder_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  Path.cwd() is the same, and slower to import
    except FileNotFoundError:
        return True
    return False


if __name__ == "__main__":
    main()
