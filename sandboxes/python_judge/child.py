"""One submission, from source text to the frames it earns; runs in a child forked by server.py.

The child does what the official checker's worker does (LiveCodeBench 28fef95,
lcb_runner/evaluation/testing_util.py), quirk for quirk, except for one thing: it never compares. It
reports what the program printed or returned, and the host decides. No expected output is in this
process, this container or any file it can open.

A frame is one kind byte, a 4-byte big-endian length and the payload:

    C  the module is ready          F  no module, or the whole job failed: JSON {stage, error}
    O  output of a test, UTF-8      V  value of a test, JSON (values.py)
    X  exception in a test: JSON {error, timeout}
    A  the alarm went off           B  ended by a BaseException: JSON {error}
    S  output over its limit        D  all tests ran

Everything a submission could patch and this module needs later is bound to a name here, at import.
Standard library only. Never add a `from __future__` import: `exec` would pass it on to submissions.
"""

import ast
import atexit
import builtins
import functools
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

from sandboxes.python_judge.values import encode_value

_STAR_IMPORTED = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools "
    "operator io sys json builtins typing"
).split()
_IMPORTED = _STAR_IMPORTED[:16]
_RECURSION_LIMIT = 50_000
PREAMBLE = (
    "".join(f"from {name} import *\n" for name in _STAR_IMPORTED)
    + "".join(f"import {name}\n" for name in _IMPORTED)
    + f"sys.setrecursionlimit({_RECURSION_LIMIT})\n"
)
MAX_INT_DIGITS = 50_000

# What the official guard takes away. It protects nothing, but it decides verdicts.
_OS_NAMES = (
    "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames "
    "truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir"
).split()
_SHUTIL_NAMES = ("rmtree", "move", "chown")
_MODULE_NAMES = ("ipdb", "joblib", "resource", "psutil", "tkinter")

_write, _exit, _fork, _waitpid = os.write, os._exit, os.fork, os.waitpid
_setitimer, _dumps = signal.setitimer, json.dumps

Send = Callable[[bytes, bytes], None]


class TimeoutException(Exception):  # noqa: N818  its name is part of the official rule
    """Raised in the submission's frame when the alarm goes off."""


class Job:
    """What the server hands to the child: a program and the inputs of its problem."""

    def __init__(self, header: dict[str, Any], problem: "Problem", code: bytes) -> None:
        self.code = code.decode("utf-8", "surrogatepass")
        self.limit: float = header["limit_seconds"]
        self.timer = signal.ITIMER_PROF if header["clock"] == "cpu" else signal.ITIMER_REAL
        self.fair: bool = header["reading"] == "fair"
        self.output_limit: int = header["output_bytes"]
        self.problem = problem

    def arm(self) -> None:
        """Start the time limit anew."""
        _setitimer(self.timer, self.limit)

    def disarm(self) -> None:
        """Stop the time limit."""
        _setitimer(self.timer, 0)


class Problem:
    """The inputs of one problem, parsed once for all its submissions."""

    def __init__(self, fn_name: str | None, inputs: list[str]) -> None:
        self.fn_name = fn_name
        self.inputs = inputs
        self.arguments: list[list[Any]] = []
        self.error: str | None = None  # reported only once a submission has compiled
        if fn_name is not None:
            try:
                self.arguments = [
                    [json.loads(line) for line in text.split("\n")] for text in inputs
                ]
            except (ValueError, RecursionError) as error:
                self.error = str(error)


def run(job: Job, channel: int) -> None:
    """Run the job and send its frames to the descriptor `channel`; never returns."""

    def send(kind: bytes, payload: bytes = b"") -> None:
        data = memoryview(struct.pack(">cI", kind, len(payload)) + payload)
        while data:
            data = data[_write(channel, data) :]

    try:
        sys.set_int_max_str_digits(MAX_INT_DIGITS)
        _catch_alarm(send)
        if job.fair:
            _run_fair(job, send)
        else:
            _guard()
            _run_official(job, send)
        send(b"D")
    except BaseException as error:  # noqa: BLE001  SystemExit and its like end the official child too
        job.disarm()
        send(b"B", _json(error=_shown(error)))
    finally:
        _exit(0)


def _guard() -> None:
    builtins.quit = None  # type: ignore[assignment]
    builtins.help = None  # type: ignore[assignment]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _OS_NAMES:
        setattr(os, name, None)
    for name in _SHUTIL_NAMES:
        setattr(shutil, name, None)
    subprocess.Popen = None  # type: ignore[assignment,misc]
    for name in _MODULE_NAMES:
        sys.modules[name] = None  # type: ignore[assignment]


def _catch_alarm(send: Send) -> None:
    def on_alarm(_signal: int, _frame: object) -> None:
        send(b"A", b"")
        print("timeout occured: alarm went off")
        raise TimeoutException

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGPROF, on_alarm)


def _run_official(job: Job, send: Send) -> None:
    try:
        if job.problem.fn_name is None:
            method = _prepare(job, wrap_program(job, job.code), "wrapped_function", send)
            if method is not None:
                _test_program(job, method, send)
        else:
            method = _prepare(job, PREAMBLE + "\n\n" + job.code, job.problem.fn_name, send)
            if method is not None and _has_arguments(job, send):
                _test_function(job, method, send)
    except Exception as error:  # noqa: BLE001  the official catch-all: the whole job is [-4]
        job.disarm()
        send(b"F", _json(stage="judge", error=_shown(error)))


def _has_arguments(job: Job, send: Send) -> bool:
    if job.problem.error is not None:
        send(b"F", _json(stage="inputs", error=job.problem.error))
    return job.problem.error is None


def wrap_program(job: Job, code: str) -> str:
    """Return a stdin program as the official checker rewrites it: imports, then one function.

    Source that can't be parsed comes back as it is, and fails to compile later.
    """
    job.arm()
    try:
        tree = ast.parse(code)
        last = tree.body[-1]
        if isinstance(last, ast.If) and ast.unparse(last.test).strip() == "__name__ == '__main__'":
            code = ast.unparse(tree.body[:-1]) + "\n" + ast.unparse(last.body)  # type: ignore[arg-type]
    except:  # noqa: E722, S110  as official: whatever happens, the code stays
        pass
    try:
        statements = ast.parse(code).body
        imports = [node for node in statements if isinstance(node, (ast.Import, ast.ImportFrom))]
        others = [node for node in statements if not isinstance(node, (ast.Import, ast.ImportFrom))]
        function = ast.FunctionDef(
            name="wrapped_function",
            args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]),
            body=others,
            decorator_list=[],
            lineno=-1,
        )
        return f"{PREAMBLE}\n{ast.unparse(imports)}\n{ast.unparse(function)}"  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001
        return code


def _prepare(job: Job, code: str, name: str, send: Send) -> Callable[..., Any] | None:
    """Execute the module and look the entry point up; None if that failed and was reported."""
    stage = "compile"
    job.arm()
    try:
        module = ModuleType("tmp_sol", "")
        compiled = compile(code, "<string>", "exec", dont_inherit=True)
        stage = "import"
        exec(compiled, module.__dict__)
        stage = "lookup"
        owner: Any = module.Solution() if "class Solution" in code else module
    except Exception as error:  # noqa: BLE001
        job.disarm()
        send(b"F", _json(stage=stage, error=_shown(error)))
        return None
    finally:
        job.disarm()
    try:
        method: Callable[..., Any] | None = getattr(owner, name)
    except Exception:  # noqa: BLE001
        method = None
    if method is None:
        send(b"F", _json(stage="lookup", error=f"there is no {name!r}"))
    else:
        send(b"C", b"")
    return method


def _test_program(job: Job, program: Callable[[], object], send: Send) -> None:
    for text in job.problem.inputs:
        with _captured_stdout() as captured:
            job.arm()
            try:
                try:
                    with _patched_stdin(text):
                        program()
                except SystemExit:
                    pass
                job.disarm()
            except Exception as error:  # noqa: BLE001
                job.disarm()
                return _send_exception(error, send)
            finally:
                job.disarm()
            output = captured.getvalue()
        encoded = output.encode("utf-8", "surrogatepass")
        if len(encoded) > job.output_limit:
            return send(b"S", b"")
        send(b"O", encoded)
    return None


def _test_function(job: Job, method: Callable[..., Any], send: Send) -> None:
    for arguments in job.problem.arguments:
        job.arm()
        try:
            value = method(*arguments)
            job.disarm()
            if isinstance(value, tuple):
                value = list(value)
        except Exception as error:  # noqa: BLE001
            job.disarm()
            return _send_exception(error, send)
        finally:
            job.disarm()
        payload = encode_value(value, job.output_limit)
        send(b"S" if payload is None else b"V", payload or b"")
        if payload is None:
            return None
    return None


def _send_exception(error: Exception, send: Send) -> None:
    text = repr(error)  # raising here fails the whole job, as officially
    send(b"X", _json(error=text[:2000], timeout="timeoutexception" in text.lower()))


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:2000]
    except BaseException:  # noqa: BLE001  its __str__ is the submission's
        return type(error).__name__


def _json(**fields: object) -> bytes:
    return _dumps(fields).encode()


@contextmanager
def _captured_stdout() -> Iterator[io.StringIO]:
    before = sys.stdout
    captured = io.StringIO()
    captured.close = lambda x: 1  # type: ignore[method-assign,assignment,misc]  # noqa: ARG005  official: close() is a TypeError
    sys.stdout = captured
    try:
        yield captured
    finally:
        sys.stdout = before


@contextmanager
def _patched_stdin(text: str) -> Iterator[None]:
    """Give a test its input the official way: two streams that know nothing of each other.

    The real `sys.stdin` object gets its own read, readline and readlines, which a submission meets
    through `from sys import stdin`; then `sys.stdin` becomes another object with another position.
    """
    lines = iter(text.split("\n"))
    stdin: Any = sys.stdin
    opened = builtins.open
    stdin.read = lambda *_: text
    stdin.readlines = lambda *_: text.split("\n")
    stdin.readline = lambda *_: next(lines)
    sys.stdin = _Stdin(text)  # type: ignore[assignment]
    builtins.open = _Open(text)  # type: ignore[assignment]
    try:
        yield
    finally:
        builtins.open = opened
        sys.stdin = stdin
        del stdin.readline, stdin.readlines, stdin.read


class _Stdin:
    """`sys.stdin` during a test: read() starts over each time, iteration doesn't work."""

    def __init__(self, text: str) -> None:
        self.inputs = text
        self._stringio = io.StringIO(text)
        self.buffer = _StdinBuffer(text)

    def read(self, *_: object) -> str:
        return self.inputs

    def readline(self, *args: Any) -> str:
        return self._stringio.readline(*args)

    def readlines(self, *_: object) -> list[str]:
        return self.inputs.split("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stringio, name)


class _StdinBuffer:
    """`sys.stdin.buffer` during a test: readline() is the first line every time."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cached_property
    def inputs(self) -> bytes:
        return self._text.encode("utf-8")

    def read(self, *_: object) -> bytes:
        return self.inputs

    def readline(self, *_: object) -> bytes:
        return self.inputs.split(b"\n")[0] + b"\n"


class _Open:
    """`builtins.open` during a test: every file holds the input. Built when first used."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cached_property
    def _mock(self) -> Any:
        return mock.mock_open(read_data=self._text)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._mock(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mock, name)


def _run_fair(job: Job, send: Send) -> None:
    """Run each test in a process of its own, with real streams; what a fair judge would see."""
    send(b"C", b"")
    for index in range(len(job.problem.inputs)):
        pid = _fork()
        if pid == 0:
            _fair_test(job, index, send)
        _waitpid(pid, 0)


def _fair_test(job: Job, index: int, send: Send) -> None:
    """Run one test in this process, report it and exit."""
    try:
        if job.problem.fn_name is None:
            _fair_program(job, index, send)
        elif _has_arguments(job, send):
            method = _prepare(job, PREAMBLE + "\n\n" + job.code, job.problem.fn_name, lambda *_: None)
            if method is None:
                send(b"X", _json(error="the module does not load", timeout=False))
            else:
                one = Problem(job.problem.fn_name, [])
                one.arguments = [job.problem.arguments[index]]
                job.problem = one
                _test_function(job, method, send)
    except BaseException as error:  # noqa: BLE001
        job.disarm()
        send(b"X", _json(error=_shown(error), timeout=isinstance(error, TimeoutException)))
    finally:
        _exit(0)


def _fair_program(job: Job, index: int, send: Send) -> None:
    output = os.memfd_create("stdout")
    os.dup2(_readable(job.problem.inputs[index].encode("utf-8", "surrogatepass")), 0)
    os.dup2(output, 1)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]
    module = ModuleType("__main__", "")
    sys.modules["__main__"] = module
    exec(PREAMBLE, module.__dict__)
    job.arm()
    try:
        exec(compile(job.code, "<string>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        pass
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
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
    if len(data) <= 4096 or _fork() == 0:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[_write(sink, rest) :]
        except OSError:
            pass
        if len(data) > 4096:
            _exit(0)
    os.close(sink)
    return source
