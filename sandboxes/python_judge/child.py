"""One submission, from source text to the frames it earns; runs in a child forked by server.py.

The child does what the official checker's worker does (LiveCodeBench 28fef95,
lcb_runner/evaluation/testing_util.py), quirk for quirk, except for one thing: it never compares. It
reports what the program printed or returned, and the host decides. No expected output is in this
process, this container or any file it can open.

A frame is one kind byte, the number of the test it answers, the length of the payload (4 bytes
each, big-endian) and the payload; turns.py says which may follow which:

    G  all is set up; the submission's own first line is next
    C  the module is ready          F  no module, or the whole job failed: JSON {stage, error}
    O  output of a test, UTF-8      V  value of a test, JSON (values.py)
    X  exception in a test: JSON {error, timeout}
    A  the alarm went off           B  ended by a BaseException: JSON {error}
    S  output over its limit

Everything a submission could patch and this module needs later is bound to a name here, at import.
Standard library only. Never add a `from __future__` import: `exec` would pass it on to submissions.
"""

import _signal  # type: ignore[import-not-found]
import ast
import builtins
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sandboxes.python_judge.streams import captured_stdout, patched_stdin
from sandboxes.python_judge.turns import BEGUN, FRAME, OUTPUT, VALUE
from sandboxes.python_judge.values import encode_value

_STAR_IMPORTED = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools "
    "operator io sys json builtins typing"
).split()
_IMPORTED = _STAR_IMPORTED[:16]
# What officially stands before every submission. It is executed once, in the server, into
# `PRELUDE`, all but its last line: that one is compiled with each submission, so that line one is
# taken and the recursion limit rises when it officially does.
IMPORTS = "".join(f"from {name} import *\n" for name in _STAR_IMPORTED) + "".join(
    f"import {name}\n" for name in _IMPORTED
)
LAST_LINE = "sys.setrecursionlimit(50000)\n"
MAX_INT_DIGITS = 50_000

# What the official guard takes away. It protects nothing, but it decides verdicts.
_OS_NAMES = (
    "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames "
    "truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir"
).split()
_SHUTIL_NAMES = ("rmtree", "move", "chown")
_MODULE_NAMES = ("ipdb", "joblib", "resource", "psutil", "tkinter")

_ABSENT = object()
_taken: list[Any] = []  # by the guard, in the order of `_guarded`

_write, _exit = os.write, os._exit
_setitimer, _dumps, _pack = signal.setitimer, json.dumps, FRAME.pack
set_handler = _signal.signal  # signal.signal makes enums of its arguments: 0.1 ms in a child
_SIGALRM, _SIGPROF = int(signal.SIGALRM), int(signal.SIGPROF)

_ANSWERS = (OUTPUT, VALUE)

PRELUDE = ModuleType("tmp_sol", "")


def execute_prelude() -> None:
    """Execute the imports that officially stand before every submission, once for all of them."""
    exec(IMPORTS, PRELUDE.__dict__)


class TimeoutException(Exception):  # noqa: N818  its name is part of the official rule
    """Raised in the submission's frame when the alarm goes off."""


class Send:
    """Writes frames to the server, each with the number of the test that it is about."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self.test = 0

    def __call__(self, kind: bytes, payload: bytes = b"") -> None:
        """Write one frame; an answer makes the next test's number the next."""
        data = memoryview(_pack(kind, self.test, len(payload)) + payload)
        while data:
            data = data[_write(self._channel, data) :]
        if kind in _ANSWERS:
            self.test += 1


class Job:
    """What the server hands to the child: a program and the inputs of its problem."""

    def __init__(self, header: dict[str, Any], problem: "Problem", code: bytes) -> None:
        self.code = code.decode("utf-8", "surrogatepass")
        self.limit: float = header["limit_seconds"]
        self.timer = signal.ITIMER_PROF if header["clock"] == "cpu" else signal.ITIMER_REAL
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


def run(job: Job, judge: Callable[[Job, Send], None], channel: int) -> None:
    """Have `judge` (run_official or run_fair) send the job's frames; never returns."""
    send = Send(channel)
    try:
        sys.set_int_max_str_digits(MAX_INT_DIGITS)
        _catch_alarm(send)
        send(BEGUN)
        judge(job, send)
    except BaseException as error:  # noqa: BLE001  SystemExit and its like end the official child too
        job.disarm()
        send(b"B", to_json(error=shown(error)))
    finally:
        _exit(0)


def _guarded() -> list[tuple[dict[str, Any], str]]:
    return [
        *((names, name) for names in (vars(builtins), vars(PRELUDE)) for name in ("quit", "help")),
        *((vars(os), name) for name in _OS_NAMES),
        *((vars(shutil), name) for name in _SHUTIL_NAMES),
        (vars(subprocess), "Popen"),
    ]


def set_guard() -> None:
    """Take away what the official guard does: in the server, so that children are born with it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for names, name in _guarded():
        _taken.append(names.get(name, _ABSENT))
        names[name] = None


def lift_guard() -> None:
    """Give it back: to the fair reading, and to the server while it imports."""
    for (names, name), value in zip(_guarded(), _taken, strict=True):
        if value is _ABSENT:
            del names[name]
        else:
            names[name] = value
    _taken.clear()


def _catch_alarm(send: Send) -> None:
    def on_alarm(_signal: int, _frame: object) -> None:
        send(b"A", b"")
        print("timeout occured: alarm went off")
        raise TimeoutException

    set_handler(_SIGALRM, on_alarm)
    set_handler(_SIGPROF, on_alarm)


def run_official(job: Job, send: Send) -> None:
    """Run all tests in this process, as officially; the server has set the rest of the guard."""
    for name in _MODULE_NAMES:
        sys.modules[name] = None  # type: ignore[assignment]  # not the server's: wait4 needs one
    try:
        if job.problem.fn_name is None:
            wrapped = wrap_program(job, job.code)
            module = ModuleType("tmp_sol", "") if wrapped is None else PRELUDE
            method = prepare(job, wrapped or job.code, module, "wrapped_function", send)
            if method is not None:
                _test_program(job, method, send)
        else:
            method = prepare(job, LAST_LINE + job.code, PRELUDE, job.problem.fn_name, send)
            if method is not None and has_arguments(job, send):
                test_function(job, method, send)
    except Exception as error:  # noqa: BLE001  the official catch-all: the whole job is [-4]
        job.disarm()
        send(b"F", to_json(stage="judge", error=shown(error)))


def has_arguments(job: Job, send: Send) -> bool:
    """Return whether the problem's inputs could be parsed; report it if not."""
    if job.problem.error is not None:
        send(b"F", to_json(stage="inputs", error=job.problem.error))
    return job.problem.error is None


def wrap_program(job: Job, code: str) -> str | None:
    """Return a stdin program as the official checker rewrites it: imports, then one function.

    None for what can't be parsed or printed: it officially stays as it is, and fails to compile or
    to be found.
    """
    job.arm()
    body: list[ast.stmt] | None = None
    try:
        body = ast.parse(code).body
        last = body[-1]
        if isinstance(last, ast.If) and ast.unparse(last.test).strip() == "__name__ == '__main__'":
            code = ast.unparse(body[:-1]) + "\n" + ast.unparse(last.body)  # type: ignore[arg-type]
            body = None
    except:  # noqa: E722  as official: whatever happens, the code stays
        pass
    try:
        if body is None:
            body = ast.parse(code).body
        imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
        function = ast.FunctionDef(
            name="wrapped_function",
            args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]),
            body=[node for node in body if not isinstance(node, (ast.Import, ast.ImportFrom))],
            decorator_list=[],
            lineno=-1,
        )
        return f"{LAST_LINE}{ast.unparse(imports)}\n{ast.unparse(function)}"  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001
        return None


def prepare(
    job: Job, code: str, module: ModuleType, name: str, send: Send
) -> Callable[..., Any] | None:
    """Execute the module and look the entry point up; None if that failed and was reported."""
    stage = "compile"
    job.arm()
    try:
        compiled = compile(code, "<string>", "exec", dont_inherit=True)
        stage = "import"
        exec(compiled, module.__dict__)
        stage = "lookup"
        owner: Any = module.Solution() if "class Solution" in code else module
    except Exception as error:  # noqa: BLE001
        job.disarm()
        send(b"F", to_json(stage=stage, error=shown(error)))
        return None
    finally:
        job.disarm()
    try:
        method: Callable[..., Any] | None = getattr(owner, name)
    except Exception:  # noqa: BLE001
        method = None
    if method is None:
        send(b"F", to_json(stage="lookup", error=f"there is no {name!r}"))
    else:
        send(b"C", b"")
    return method


def _test_program(job: Job, program: Callable[[], object], send: Send) -> None:
    for text in job.problem.inputs:
        with captured_stdout() as captured:
            job.arm()
            try:
                try:
                    with patched_stdin(text):
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


def test_function(job: Job, method: Callable[..., Any], send: Send) -> None:
    """Call the method for each test and send what it returns."""
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
    send(b"X", to_json(error=text[:2000], timeout="timeoutexception" in text.lower()))


def shown(error: BaseException) -> str:
    """Return an exception's type and text; its text may itself raise."""
    try:
        return f"{type(error).__name__}: {error}"[:2000]
    except BaseException:  # noqa: BLE001  its __str__ is the submission's
        return type(error).__name__


def to_json(**fields: object) -> bytes:
    """Write a frame's payload."""
    return _dumps(fields).encode()
