"""What a fair judge would see: each test in a process of its own, with real streams.

For information, never for the score: it tells how often the official checker's quirks decide. A
program runs as `__main__` with the official imports before it and no guard; a function gets a fresh
module and instance for each test. Tolerance and comparison are the host's. Standard library only.
"""

import atexit
import contextlib
import os
import sys
import threading

from sandboxes.python_judge.child import (
    LAST_LINE,
    PRELUDE,
    Job,
    Send,
    TimeoutException,
    has_arguments,
    lift_guard,
    prepare,
    shown,
    test_function,
    to_json,
)

_REPORTED = 7  # exit status of a test's process that has sent its frame


def run_fair(job: Job, send: Send) -> None:
    """Run each test in a process of its own, with real streams; what a fair judge would see."""
    lift_guard()
    send(b"C")
    for index in range(len(job.problem.inputs)):
        send.test = index
        pid = os.fork()
        if pid == 0:
            _fair_test(job, index, send)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != _REPORTED:  # it took its frame with it
            send(b"X", to_json(error="the process ended", timeout=False))


def _fair_test(job: Job, index: int, send: Send) -> None:
    """Run one test in this process, which has its input alone, report it and exit."""
    try:
        problem = job.problem  # changed in place, so that the server's own lists are too
        problem.inputs[:] = problem.inputs[index : index + 1]
        problem.arguments[:] = problem.arguments[index : index + 1]
        if job.problem.fn_name is None:
            _fair_program(job, send)
        elif has_arguments(job, send):
            name, source = job.problem.fn_name, LAST_LINE + job.code
            method = prepare(job, source, PRELUDE, name, _Silent(-1))
            if method is None:
                send(b"X", to_json(error="the module does not load", timeout=False))
            else:
                test_function(job, method, send)
    except BaseException as error:  # noqa: BLE001
        job.disarm()
        send(b"X", to_json(error=shown(error), timeout=isinstance(error, TimeoutException)))
    finally:
        os._exit(_REPORTED)


class _Silent(Send):
    """Drops what would be said while the module loads."""

    def __call__(self, kind: bytes, payload: bytes = b"") -> None:
        """Write nothing."""


def _fair_program(job: Job, send: Send) -> None:
    output = os.memfd_create("stdout")
    os.dup2(_readable(job.problem.inputs[0].encode("utf-8", "surrogatepass")), 0)
    os.dup2(output, 1)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  the program's to the end
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    module = sys.modules["__main__"] = PRELUDE
    module.__name__ = "__main__"
    module.__dict__.update(stdin=sys.stdin, stdout=sys.stdout)
    exec(LAST_LINE, module.__dict__)
    job.arm()
    with contextlib.suppress(SystemExit):
        exec(compile(job.code, "<string>", "exec", dont_inherit=True), module.__dict__)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()  # noqa: SLF001  a program that flushes its output there
    job.disarm()
    sys.stdout.flush()
    size = os.fstat(output).st_size
    if size > job.output_limit:
        send(b"S", b"")
    else:
        send(b"O", os.pread(output, size, 0))


def _readable(data: bytes) -> int:
    """Return a descriptor that `data` can be read from: a pipe, with a writer if it is long."""
    source, sink = os.pipe()
    if len(data) <= 4096 or os.fork() == 0:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(sink, rest) :]
        except OSError:
            pass
        if len(data) > 4096:
            os._exit(0)
    os.close(sink)
    return source
