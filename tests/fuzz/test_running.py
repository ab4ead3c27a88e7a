"""The watch itself: what an input may not do is noticed, whatever it does to its process."""

import os
import sys
import time

import pytest

pytest.importorskip("hypothesis")

from hypothesis import strategies as st

from g4eval.errors import DataError
from tests.fuzz import running
from tests.fuzz.border import Border

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for its memory limit")


def watched(read, monkeypatch, seconds=0.3):
    monkeypatch.setattr(running, "SECONDS_PER_INPUT", seconds)
    border = Border(name="own", inputs=st.integers(0, 3), read=lambda value, _: read(value))
    return running.fuzz(border, first_seed=0, examples=20, seconds=0)


def refuse(value):
    raise DataError(f"{value} is off")


def exhaust(value):
    return bytearray(2 << 30)


def sleep(value):
    time.sleep(60)


def work(value):
    while True:
        pass


def leave(value):
    os._exit(0)


def test_an_input_that_is_refused_or_taken_is_counted(monkeypatch):
    done = watched(lambda value: value or refuse(value), monkeypatch, seconds=10)
    assert done.failures == ()
    assert (done.inputs, done.refused) == (4, 1)


@pytest.mark.parametrize(
    ("read", "named"),
    [
        (lambda value: {value: 1}["missing"], "KeyError"),
        (lambda value: sys.exit(0), "SystemExit"),
        (exhaust, "MemoryError"),
        (sleep, "hang"),
        (work, "no answer within 0.3 s"),
        (leave, "the process ended"),
    ],
    ids=["bug", "exit", "memory", "wait", "work", "end"],
)
def test_an_input_that_gets_through_is_told(read, named, monkeypatch):
    (failure, *_) = watched(read, monkeypatch).failures
    assert named in failure
