"""What runs in the container and can be tried outside one: its stream, its cleaning, its guard."""

import os
import resource
import shutil
import sys
import threading
from types import SimpleNamespace

import pytest

from sandboxes.python_judge import child, meter
from sandboxes.python_judge.channel import HEADER, Channel
from sandboxes.python_judge.cleaning import empty
from sandboxes.python_judge.meter import ContainerClock, Meter
from sandboxes.python_judge.state import ServerState

ABSENT = ((child.PRELUDE, "quit"), (os, "lchflags"))  # before the guard, or on Linux


def test_more_parts_than_the_kernel_takes_at_once_arrive_whole_and_in_order() -> None:
    source, sink = os.pipe()
    channel = Channel(source, sink)
    parts = [bytes([n % 251]) * (n % 7) for n in range(3000)]

    def send() -> None:
        channel.write(b"E", b"end", before=parts)
        os.close(sink)

    sender = threading.Thread(target=send)
    sender.start()
    with os.fdopen(source, "rb") as stream:
        got = stream.read()
    sender.join()
    assert got == b"".join(parts) + HEADER.pack(b"E", 3) + b"end"


def test_a_folder_is_emptied_without_following_links(tmp_path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    scratch = tmp_path / "scratch"
    deep = scratch / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (scratch / "link").symlink_to(kept)
    deep.chmod(0o000)
    assert empty(str(scratch))
    assert list(scratch.iterdir()) == []
    assert (kept / "file").exists()


def test_the_guard_takes_the_official_names_and_gives_them_back(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    child.execute_prelude()
    before = (os.kill, os.getcwd, shutil.rmtree, sys.modules.get("resource"))
    child.set_guard()
    guarded = [os.kill, os.getcwd, shutil.rmtree, *(vars(m)[n] for m, n in ABSENT)]
    child.lift_guard()
    assert guarded == [None] * 5
    assert (os.kill, os.getcwd, shutil.rmtree, sys.modules.get("resource")) == before
    assert not hasattr(os, "lchflags")


def test_what_a_run_changed_of_the_server_is_noticed() -> None:
    state = ServerState("/proc")
    assert state.difference() == ""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    assert state.difference() == "descriptors"
    os.close(descriptor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert state.difference() == "limits"
        state.remember_memory()  # what the server itself has loaded is no excuse for the rest
        assert state.difference() == "limits"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert state.difference() == ""


class Readings:
    """A child as the kernel shows it: (now, container's seconds, own seconds, waited seconds)."""

    def __init__(self, monkeypatch, *readings: tuple[float, float, float, float]) -> None:
        self.left = list(readings)
        clock = ContainerClock()
        monkeypatch.setattr(ContainerClock, "works", property(lambda _: True))
        monkeypatch.setattr(clock, "seconds", lambda: self.left[0][1])
        monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: self.left[0][0]))
        self.meter = Meter(7, clock)
        monkeypatch.setattr(self.meter, "_read_threads", lambda: {"7": self.left[0][2:]})
        monkeypatch.setattr(self.meter, "_cpu_seconds", lambda: self.left[0][2])

    def last(self) -> meter.Lap:
        while len(self.left) > 1:
            self.left.pop(0)
            lap = self.meter.peek()
        return lap


def test_a_wait_that_is_booked_a_reading_later_counts_whole(monkeypatch) -> None:
    # Twice it waits 0.9 s, of which the kernel tells only in the short time after.
    child = Readings(
        monkeypatch, (0, 0, 0, 0), (1, 0.1, 0.1, 0), (1.1, 0.2, 0.2, 0.9), (2, 0.2, 0.2, 0.9),
        (2.1, 0.3, 0.3, 1.8),
    )  # fmt: skip
    lap = child.last()
    assert lap.waited == pytest.approx(1.8)
    assert lap.own == pytest.approx(0.3)


def test_a_wait_for_what_the_container_itself_ran_counts_little_however_it_is_booked(
    monkeypatch,
) -> None:
    # Its own processes have the core for 5 s; then the kernel books 5 s of waiting at once.
    child = Readings(monkeypatch, (0, 0, 0, 0), (5, 5, 0, 0), (5.1, 5.1, 0.1, 5))
    assert child.last().waited <= 0.1 + 1e-9


def test_a_lap_starts_anew(monkeypatch) -> None:
    child = Readings(monkeypatch, (0, 0, 0, 0), (1, 0.1, 0.1, 0.9), (2, 1.1, 1.1, 0.9))
    child.left.pop(0)
    assert child.meter.lap().waited == pytest.approx(0.9)
    assert child.last().waited == 0.0
