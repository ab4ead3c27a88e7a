"""What the server is and has between two runs: nothing in a run may change any of it.

A second line behind identity.py: the container is thrown away if a run did. Standard library only.
"""

import os
import resource

_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
_MAX_GROWTH_BYTES = 512 << 20
_IPC_FILES = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
_getrlimit, _listdir, _statvfs = resource.getrlimit, os.listdir, os.statvfs


class ServerState:
    """The server's own state, remembered and compared."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._ipc = [os.open(name, os.O_RDONLY | os.O_CLOEXEC) for name in _IPC_FILES if _is(name)]
        self._before = self._read()
        self.remember_memory()

    def remember_memory(self) -> None:
        """Take the memory as it is now for the right one: the server itself has loaded something.

        Nothing else of its state, or what an earlier run changed would be forgotten.
        """
        self._memory_before = self._memory_bytes()

    def difference(self) -> str:
        """Return what is no longer as it was; "" if nothing."""
        now = self._read()
        changed = [name for name, value in now.items() if value != self._before[name]]
        if self._memory_bytes() > self._memory_before + _MAX_GROWTH_BYTES:
            changed.append("memory")
        return ", ".join(changed)

    def _read(self) -> dict[str, object]:
        room = _statvfs(self._scratch)
        return {
            "scheduling": (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)),
            "affinity": os.sched_getaffinity(0),
            "limits": [_getrlimit(limit) for limit in _LIMITS],
            "descriptors": _listdir("/proc/self/fd"),
            "scratch": (room.f_bfree, room.f_ffree),
            "shared memory": _listdir("/dev/shm") if _is("/dev/shm") else (),
            "System V objects": [os.pread(file, 4096, 0).count(b"\n") for file in self._ipc],
        }

    def _memory_bytes(self) -> int:
        return int(os.pread(self._memory, 256, 0).split()[1]) * self._page


def _is(name: str) -> bool:
    return os.path.exists(name)
