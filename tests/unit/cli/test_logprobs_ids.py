"""Token ids that engine fake's vocabulary of bytes hasn't."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli


@pytest.mark.parametrize("ids", [[1, 256], [300, 1, 2], [1, 2, 2**40], [0, 2**63]])
def test_an_id_outside_the_vocabulary_is_the_users_error(
    quick_cli: Cli, tmp_path: Path, ids: list[int]
) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "token_ids": ids}) + "\n")
    done = quick_cli("logprobs", "in.jsonl", "--model", "m", "--engine", "fake")
    assert done.returncode == 2, done.stderr
    assert f"token id {max(ids)} is outside the vocabulary of 256" in done.stderr


def test_ids_of_bytes_are_scored(quick_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "token_ids": [0, 255, 7]}) + "\n")
    done = quick_cli("logprobs", "in.jsonl", "--model", "m", "--engine", "fake")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["logprobs"]) == 2
