"""Leave nothing in the container between two submissions, and count what they used.

The names of `os` used here are bound at import: the official guard (child.py) takes them away from
the server too, so that every child has them taken away already. Standard library only.
"""

import contextlib
import os
import signal
import stat

from sandboxes.python_judge.identity import become_submission

_OOM_COUNTERS = ("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")
_kill, _unlink, _rmdir, _chmod = os.kill, os.unlink, os.rmdir, os.chmod
_fork = os.fork


class Usage:
    """What a run used and how its child ended."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.memory_bytes = 0
        self.status: int | None = None  # as os.waitstatus_to_exitcode
        self.out_of_memory = False
        self.processes = 0
        self.clean = False


def sweep(pid: int) -> Usage:
    """Kill every other process of the container and reap until none is left."""
    usage = Usage()
    with contextlib.suppress(ProcessLookupError):
        _kill(-1, signal.SIGKILL)
    while True:
        try:
            reaped, status, resources = os.wait4(-1, 0)
        except ChildProcessError:
            return usage
        usage.processes += 1
        usage.cpu_seconds += resources.ru_utime + resources.ru_stime
        usage.memory_bytes = max(usage.memory_bytes, resources.ru_maxrss * 1024)
        if reaped == pid:
            usage.status = os.waitstatus_to_exitcode(status)


def is_empty(folder: str) -> bool:
    """Return whether nothing is in a folder."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def empty_as(user: int, folder: str) -> bool:
    """Delete what a user has left in a folder; return whether it is empty now.

    By a process of that user: nobody else may delete there.
    """
    if is_empty(folder):
        return True
    pid = _fork()
    if pid == 0:
        try:
            become_submission(user)
            empty(folder)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return is_empty(folder)


def empty(folder: str) -> bool:
    """Delete what is in a folder, following no link; return whether it is empty now."""
    try:
        pending = [entry.path for entry in os.scandir(folder)]
        while pending:
            path = pending[-1]
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                _unlink(path)
                pending.pop()
                continue
            _chmod(path, 0o700)
            inside = [entry.path for entry in os.scandir(path)]
            if inside:
                pending += inside
            else:
                _rmdir(path)
                pending.pop()
    except OSError:
        return False
    return True


class OutOfMemoryKills:
    """The kernel's count of processes of this container that it killed for memory."""

    def __init__(self) -> None:
        self._file = -1
        for name in _OOM_COUNTERS:
            with contextlib.suppress(OSError):
                self._file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                break
        self._seen = self._count()

    def has_grown(self) -> bool:
        """Return whether there was one since the last call."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        if self._file < 0:
            return 0
        lines = os.pread(self._file, 4096, 0).splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(b"oom_kill "))
