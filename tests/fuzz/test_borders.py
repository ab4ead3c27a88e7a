"""The short part of the fuzzing: the same seeded inputs at every border, each run."""

import sys

import pytest

pytest.importorskip("hypothesis")

from tests.fuzz.border import Border
from tests.fuzz.borders import all_borders
from tests.fuzz.running import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for its memory limit")


@pytest.mark.parametrize("border", all_borders(), ids=lambda border: border.name)
def test_nothing_gets_through(border: Border) -> None:
    done = fuzz(border, first_seed=0, examples=border.few, seconds=0)
    assert done.failures == ()
    assert done.inputs >= border.few // 2  # Hypothesis leaves out what it has made already
    assert done.refused
