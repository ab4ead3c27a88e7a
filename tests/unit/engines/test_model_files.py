"""Where a model's files are taken from, the hub not asked."""

import sys
from pathlib import Path

import pytest

from g4eval.engines.model_files import fetch_model_files
from g4eval.errors import EngineError, MissingExtraError


def test_a_model_in_the_hubs_cache_is_taken_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--org--tiny-1.5b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert fetch_model_files("org/tiny-1.5b") == repository / "snapshots" / "abc"
    with pytest.raises(MissingExtraError, match="reading it from the hub needs"):
        fetch_model_files("org/another-1.5b")


@pytest.mark.parametrize("model", ["nowhere", "./no/where", "/no/where", "a/b/c", "a/model.gguf"])
def test_what_is_neither_here_nor_a_hub_id_is_refused(model: str) -> None:
    with pytest.raises(EngineError, match="neither a folder, a GGUF file nor a hub id"):
        fetch_model_files(model)
