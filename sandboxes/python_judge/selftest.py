"""Run inside a container before it judges anything: try what must not work, one line a try.

Each line is the try's name and `refused`, or what happened instead. The host (selftest.py in
g4eval/sandbox) sends this file as a submission and refuses to grade unless all are refused.
"""

import ctypes
import os
import posix
import signal
import socket
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
_PTRACE_ATTACH = 16
_ADD_KEY = {"x86_64": 248, "aarch64": 217}
_IO_URING_SETUP = 425
_BPF = {"x86_64": 321, "aarch64": 280}
_SHMGET = {"x86_64": 29, "aarch64": 194}


def _call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _syscall(number: int) -> Callable[[], None]:
    return lambda: _call(_libc.syscall(number, 0, 0, 0, 0, 0))


def _connect() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def _vsock() -> None:
    socket.socket(40, socket.SOCK_STREAM)


def _write_file(path: str) -> Callable[[], None]:
    def write() -> None:
        with open(path, "w") as file:
            file.write("x")

    return write


def _read_file(path: str) -> Callable[[], None]:
    def read() -> None:
        with open(path, "rb") as file:
            file.read(1)

    return read


def _list_server() -> None:
    os.listdir("/proc/1/fd")


def _fill_disk() -> None:
    with open("/tmp/full", "wb") as file:
        for _ in range(17):
            file.write(bytes(1 << 20))


def _run_from_scratch() -> None:
    with open("/tmp/run", "w") as file:
        file.write("#!/bin/sh\n")
    _call(_libc.chmod(b"/tmp/run", 0o755))
    posix.execv("/tmp/run", ["run"])


def _kill_server() -> None:
    """Signals to PID 1 are dropped, not refused: the host sees that it lives."""
    posix.kill(1, signal.SIGKILL)
    raise PermissionError


def _be_root() -> None:
    posix.setuid(0)


def _have_a_capability() -> None:
    with open("/proc/self/status") as file:
        held = [line for line in file if line.startswith("Cap") and int(line.split()[1], 16)]
    if not held:
        raise PermissionError


def _limit_server() -> None:
    _call(_libc.prlimit64(1, 9, ctypes.byref((ctypes.c_uint64 * 2)(1 << 26, 1 << 26)), None))


TRIES: dict[str, Callable[[], None]] = {
    "network": _connect,
    "vsock": _vsock,
    "ptrace": lambda: _call(_libc.ptrace(_PTRACE_ATTACH, 1, 0, 0)),
    "server memory": _read_file("/proc/1/mem"),
    "server environment": _read_file("/proc/1/environ"),
    "server descriptors": _list_server,
    "kill server": _kill_server,
    "schedule server": lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    "server's priority": lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    "server's affinity": lambda: os.sched_setaffinity(1, os.sched_getaffinity(0)),
    "server's limits": _limit_server,
    "capability": _have_a_capability,
    "user namespace": lambda: _call(_libc.unshare(_CLONE_NEWUSER)),
    "mount": lambda: _call(_libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "mount namespace": lambda: _call(_libc.unshare(_CLONE_NEWNS)),
    "root": _be_root,
    "device": lambda: _call(_libc.mknod(b"/tmp/device", 0o60644, 0x100)),
    "keyring": _syscall(_ADD_KEY[os.uname().machine]),
    "io_uring": _syscall(_IO_URING_SETUP),
    "bpf": _syscall(_BPF[os.uname().machine]),
    "shared memory": _syscall(_SHMGET[os.uname().machine]),
    "set clock": lambda: _call(_libc.settimeofday(ctypes.byref(ctypes.c_longlong(0)), None)),
    "write to root": _write_file("/judge/x"),
    "write to /proc": _write_file("/proc/sys/kernel/panic"),
    "write to /sys": _write_file("/sys/kernel/profiling"),
    "write to /dev": _write_file("/dev/x"),
    "message queue": _write_file("/dev/mqueue/x"),
    "big file": _fill_disk,
    "program in scratch": _run_from_scratch,
    "docker socket": _read_file("/var/run/docker.sock"),
}


def main() -> None:
    """Print one line a try."""
    for name, attempt in TRIES.items():
        try:
            attempt()
        except (OSError, MemoryError):
            print(f"{name}: refused")
        except Exception as error:  # noqa: BLE001  a broken try is no refusal
            print(f"{name}: {error!r}")
        else:
            print(f"{name}: POSSIBLE")


main()
