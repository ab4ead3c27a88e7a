"""The process that runs a container: PID 1, one child per submission, nothing left between two.

It talks to the host over its standard input and output, which no child ever holds, in frames: one
kind byte, a 4-byte big-endian length, the payload (JSON unless said).

    host -> server   L load {key, fn_name, inputs}     U unload {key}
                     R run: the length of a JSON header, 4 bytes; the header {run, key,
                       limit_seconds, clock, reading, output_bytes, look: whether to compare
                       the server's own state at the end}; the code, UTF-8
                     K kill: the run's number, 4 bytes; ignored when that run is over
    server -> host   H hello {python, packages, features}
                     T a child's frame: stamps (run.py), then its kind byte and its payload
                     W the run still waits for its core: its number, 4 bytes
                     E end of the run {run, why, ...}, after everything it left is gone; why:
                       done, died, killed, time, bound (as long as may be, without its CPU time),
                       output, protocol, setup (before the submission's first line)

The server never runs or parses a submission. It keeps the clock (run.py), cleans up (cleaning.py)
and looks whether it is as it was (state.py). Submissions are another user (identity.py). Code and
outputs pass through memory that forked children don't get (channel.py), so that a submission can't
copy what an earlier one of the same problem printed. Threat model: README.md. Standard library
only.
"""

import gc
import importlib
import json
import os
import re
import signal
import struct
import sys

from sandboxes.python_judge import child
from sandboxes.python_judge.channel import Channel
from sandboxes.python_judge.cleaning import OutOfMemoryKills, empty_as, sweep
from sandboxes.python_judge.identity import become_server
from sandboxes.python_judge.meter import ContainerClock
from sandboxes.python_judge.run import Ground, Run
from sandboxes.python_judge.state import ServerState

_PACKAGES = "/judge/site-packages"
_SCRATCH = "/tmp"
# A submission that names one of these gets a child that has numpy already.
_NUMPY_USERS = re.compile(rb"numpy|scipy|pandas")


class Server:
    """The problems it has loaded and what it needs to serve them."""

    def __init__(self, ground: Ground, wakeup: int) -> None:
        self._ground = ground
        self._channel = ground.channel
        self._wakeup = wakeup
        self._problems: dict[str, child.Problem] = {}
        self._kills = OutOfMemoryKills()
        self._has_numpy = False
        self._state = ServerState(_SCRATCH)

    def serve(self) -> None:
        """Obey until the host closes the stream."""
        while (frame := self._channel.read()) is not None:
            kind, payload = frame
            if kind == b"R":
                self._run(payload)
            elif kind == b"L":
                message = json.loads(bytes(payload))
                problem = child.Problem(message["fn_name"], message["inputs"])
                self._problems[message["key"]] = problem
                self._channel.buffer.release(len(payload))
                self._state.remember_memory()
            elif kind == b"U":
                self._problems.pop(json.loads(bytes(payload))["key"], None)

    def _run(self, payload: memoryview) -> None:
        (size,) = struct.unpack_from(">I", payload)
        header, code = json.loads(bytes(payload[4 : 4 + size])), payload[4 + size :]
        header["code_bytes"] = len(code)
        if not self._has_numpy and _NUMPY_USERS.search(code):
            self._load_numpy()
        run = Run(header, self._problems[header["key"]], code, self._ground)
        run.watch(self._wakeup)
        summary = run.summary()
        usage = sweep(run.pid)
        run.close()
        taken = self._kills.has_grown()  # read after every run, or a kill is another run's
        usage.out_of_memory = taken and usage.status == -signal.SIGKILL
        usage.clean = empty_as(self._ground.user, _SCRATCH)
        state = self._state.difference() if header["look"] else ""
        end = json.dumps(summary | vars(usage) | {"state": state}).encode()
        self._channel.write(b"E", end, before=run.unsent)
        self._channel.buffer.release(run.peak)

    def _load_numpy(self) -> None:
        """Load numpy for all children to come, each of which would need 60 ms for it."""
        child.lift_guard()
        importlib.import_module("numpy")
        child.set_guard()
        _freeze()
        self._state.remember_memory()
        self._has_numpy = True


def main() -> None:
    """Take over as PID 1 and serve."""
    if os.getpid() != 1:
        sys.exit("this server kills every other process it sees: it runs as PID 1 of a container")
    channel = Channel(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    sys.stdin.close()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  for good
    os.environ.pop("PYTHONPATH", None)
    user = int(sys.argv[1])
    become_server(user)
    child.execute_prelude()
    container = ContainerClock()
    features = {"batch": _yield_to_children(), "container_clock": container.works}
    sys.set_int_max_str_digits(child.MAX_INT_DIGITS)  # officially set before inputs are parsed
    wakeup = _wake_on_children()
    child.set_guard()
    _freeze()
    server = Server(Ground(channel, container, user + 1), wakeup)
    hello = {"python": sys.version.split()[0], "packages": _packages(), "features": features}
    channel.write(b"H", json.dumps(hello).encode())
    server.serve()


def _packages() -> dict[str, str]:
    """Return the version of each package that submissions can import."""
    ending = ".dist-info"
    found = [name.removesuffix(ending) for name in os.listdir(_PACKAGES) if name.endswith(ending)]
    return dict(name.split("-") for name in sorted(found))


def _freeze() -> None:
    """Keep what is there from the collector, in the server and in its children."""
    gc.collect()
    gc.freeze()


def _yield_to_children() -> bool:
    """Let children run on when a frame comes: relaying frames in batches is faster."""
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True


def _wake_on_children() -> int:
    source, sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Without a handler, the kernel drops every signal that children send to PID 1.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    return source


if __name__ == "__main__":
    main()
