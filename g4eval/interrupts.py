"""What SIGINT and SIGTERM do, in every command. docs/interrupts.md has the policy for users.

The first signal ends what is under way in order: requests are cancelled, what was finished is
stored, workers and containers are stopped, and the command says how to continue. What isn't over
GRACE_SECONDS later is ended at once. A second signal ends at once. Both exit with 130. Children
end either way: grading workers watch for the end of this process, containers for the end of their
connection.

A coroutine is run with `run`, never with asyncio.run: its cancellation is how the first signal
reaches it, at an await, instead of an exception in the middle of anything.
"""

import os
import signal

TYPE_CHECKING = False  # as type checkers read it; typing itself would come before the handlers
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine
    from types import FrameType
    from typing import Any, TypeVar

    T = TypeVar("T")

GRACE_SECONDS = 4.5
EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    """Of this process: signals come to a process, not to an object."""

    received = 0
    task: "asyncio.Task[Any] | None" = None  # what `run` has under way
    last_words = "interrupted"
    exit_code: int | None = None  # settled: nothing is left to be interrupted


def install() -> None:
    """Set the handlers.

    A signal that this process was started with ignored, as nohup and shells do, stays ignored.
    """
    _State.received, _State.exit_code, _State.task = 0, None, None
    for number in SIGNALS:
        try:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _receive)
        except ValueError:  # not in the main thread, whose caller has handlers of its own
            return


def prepare_last_words(text: str) -> None:
    """Say what to print at the end: in a signal handler there is no time to find it out."""
    _State.last_words = text


def last_words() -> str:
    """Return what an interrupted command says."""
    return _State.last_words


def was_interrupted() -> bool:
    """Whether a signal has come: what is raised from then on may be what became of it."""
    return _State.received > 0


def settle(exit_code: int) -> None:
    """Say that the command is over: a signal from here on changes nothing but the haste.

    After an interrupt not even that: a second one would end the interpreter's own end, and the
    exit code with it.
    """
    _State.exit_code = exit_code
    if _State.received:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def run(coroutine: "Coroutine[Any, Any, T]") -> "T":
    """Run a coroutine to its end; raises KeyboardInterrupt where a signal ended it."""
    import asyncio  # noqa: PLC0415  the handlers are set before it is there

    async def watched() -> "T":
        _State.task = asyncio.current_task()
        if _State.received:  # it came before there was anything to cancel
            raise asyncio.CancelledError
        try:
            return await coroutine
        finally:
            _State.task = None

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if not _State.received:
            raise
        raise KeyboardInterrupt from None
    finally:
        coroutine.close()  # where it was never begun


def _receive(_number: int, _frame: "FrameType | None") -> None:
    if _State.exit_code is not None:
        os._exit(_State.exit_code)
    _State.received += 1
    if _State.received > 1:
        _end_at_once()
    import threading  # noqa: PLC0415  the handlers are set before it is there

    timer = threading.Timer(GRACE_SECONDS, _end_at_once)
    timer.daemon = True
    timer.start()
    task = _State.task
    if task is None:
        raise KeyboardInterrupt
    task.get_loop().call_soon_threadsafe(task.cancel)


def _end_at_once() -> None:
    """End this process now, with its last words; no cleaning up can hold it."""
    if _State.exit_code is not None:  # they have been said
        os._exit(_State.exit_code)
    try:
        os.write(2, f"\n{_State.last_words}\n".encode("utf-8", "replace"))
        _kill_children()
    finally:
        os._exit(EXIT_CODE)


def _kill_children() -> None:
    """Kill the workers that multiprocessing started here, and clean up behind them."""
    import contextlib  # noqa: PLC0415
    import sys  # noqa: PLC0415  only what has been imported anyway
    import threading  # noqa: PLC0415

    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        for child in list(getattr(processes, "_children", ())):
            with contextlib.suppress(Exception):
                child.kill()
    utilities = sys.modules.get("multiprocessing.util")
    if utilities is not None:  # its semaphores have names, which outlive us
        threading.Thread(target=utilities._run_finalizers, daemon=True).start()  # noqa: SLF001
        threading.Event().wait(0.2)
