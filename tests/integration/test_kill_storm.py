"""The storm of kill_storm.py: small in each run of the tests, whole under `nox -s slow`."""

from pathlib import Path

import pytest

from tests.integration.kill_storm import all_kinds, storm


def test_fifty_kills_lose_nothing_and_need_no_other_command(tmp_path: Path) -> None:
    found = storm(tmp_path, 50, seed=3)
    assert not found.faults
    assert found.kills.keys() == {kind.name for kind in all_kinds()}
    assert found.early >= 5


@pytest.mark.slow
def test_a_thousand_kills_lose_nothing_and_need_no_other_command(tmp_path: Path) -> None:
    found = storm(tmp_path, 1000, seed=7)
    assert not found.faults
