"""What a child has used, as the kernel counts it, and what others took from it.

`waited` is time that the child was ready to run and processes outside this container had the core.
It is a lower bound: of each thread's waiting, all that this container ran meanwhile is taken off,
so that no submission can make its own threads and processes look like others' load.
Standard library only.
"""

import contextlib
import os
import time

_SHORT_SECONDS = 0.01
# Control groups of version 1 and 2.
_USAGE_FILES = (
    "/sys/fs/cgroup/cpuacct/cpuacct.usage",
    "/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage",
    "/sys/fs/cgroup/cpu.stat",
)


class ContainerClock:
    """CPU seconds of everything that ran in this container."""

    def __init__(self) -> None:
        self._file = -1
        for name in _USAGE_FILES:
            with contextlib.suppress(OSError):
                self._file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                break

    @property
    def works(self) -> bool:
        """Whether the kernel tells; if not, nothing counts as taken by others."""
        return self._file >= 0

    def seconds(self) -> float:
        """Return the seconds so far."""
        words = os.pread(self._file, 4096, 0).split()
        return int(words[1]) / 1e6 if words[0] == b"usage_usec" else int(words[0]) / 1e9


class Lap:
    """Seconds since the last lap."""

    __slots__ = ("cpu", "slept", "waited", "wall")

    def __init__(self, wall: float = 0.0, cpu: float = 0.0, waited: float = 0.0) -> None:
        self.wall = wall
        self.cpu = cpu
        self.waited = waited
        self.slept = max(0.0, wall - cpu - waited)

    @property
    def own(self) -> float:
        """The seconds that nobody else had: what a fair clock would show."""
        return self.wall - self.waited


class Meter:
    """Wall, CPU and waiting time of one child and its threads."""

    def __init__(self, pid: int, container: ContainerClock) -> None:
        self._clock = (~pid << 3) | 2  # the CPU clock of another process: clock_getcpuclockid(3)
        self._tasks = f"/proc/{pid}/task"
        self._container = container
        self._threads: dict[str, tuple[float, float]] = {}  # ran and waited, when last read
        self._read_at = self._at = time.monotonic()
        self._cpu = 0.0
        self._ran = container.seconds() if container.works else 0.0
        self._waited = 0.0  # since the last lap, reading by reading
        self._main = str(pid)
        self._main_waited = 0.0  # since the last lap, of the first thread, as one
        self._base = (0.0, 0.0, self._ran)  # its own and waited seconds then, and the container's

    def lap(self) -> Lap:
        """Return what was used since the last lap, and start the next."""
        lap = self.peek()
        self._at += lap.wall
        self._cpu += lap.cpu
        self._waited = self._main_waited = 0.0
        self._base = (*self._threads.get(self._main, (0.0, 0.0)), self._ran)
        return lap

    def peek(self) -> Lap:
        """Return what was used since the last lap.

        The wait is read from /proc only where it can matter; until then it adds up.
        """
        now = time.monotonic()
        if self._container.works and now - self._read_at >= _SHORT_SECONDS:
            self._read_waits(now)
        wall = now - self._at
        waited = max(self._waited, self._main_waited)
        return Lap(wall, max(0.0, self._cpu_seconds() - self._cpu), min(wall, waited))

    def _cpu_seconds(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return self._cpu

    def _read_waits(self, now: float) -> None:
        """Add what others took since the last reading: of the thread that lost most.

        The kernel books a wait when it is over, often a reading later and longer than the time
        between the two; so what the first thread lost since the last lap is also taken as one.
        """
        ran = self._container.seconds()
        inside, span = ran - self._ran, now - self._read_at
        before, self._threads = self._threads, self._read_threads()
        taken = [
            (waited - before.get(name, (0.0, 0.0))[1])
            - max(0.0, inside - (own - before.get(name, (0.0, 0.0))[0]))
            for name, (own, waited) in self._threads.items()
        ]
        self._waited += min(span, max(0.0, *taken, 0.0))
        self._ran, self._read_at = ran, now
        if self._main in self._threads:
            own, waited = self._threads[self._main]
            own_then, waited_then, ran_then = self._base
            of_others = waited - waited_then - max(0.0, ran - ran_then - (own - own_then))
            self._main_waited = max(0.0, of_others)

    def _read_threads(self) -> dict[str, tuple[float, float]]:
        threads = {}
        with contextlib.suppress(OSError, IndexError, ValueError):
            for name in os.listdir(self._tasks):
                with open(f"{self._tasks}/{name}/schedstat", "rb") as file:
                    own, waited = file.read().split()[:2]
                threads[name] = (int(own) / 1e9, int(waited) / 1e9)
        return threads
