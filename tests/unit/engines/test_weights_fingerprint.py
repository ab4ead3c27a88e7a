"""One hash for a model's files, the same wherever they lie."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from g4eval.engines import weights_fingerprint
from g4eval.engines.model_files import find_model_files
from g4eval.engines.weights_fingerprint import fingerprint_weights
from g4eval.fingerprint import sha256_json

FILES = {"model.safetensors": b"weights", "config.json": b"{}", "tokenizer.json": b"{1}"}


def make_model(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_it_is_the_hash_of_sorted_names_and_content_hashes(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    expected = sha256_json(
        [[name, hashlib.sha256(FILES[name]).hexdigest()] for name in sorted(FILES)]
    )
    assert fingerprint_weights(folder, cache_dir=tmp_path) == expected


def test_place_readme_and_licence_do_not_matter(tmp_path: Path) -> None:
    one = make_model(tmp_path / "one")
    two = make_model(tmp_path / "two", {**FILES, "README.md": b"hello", "LICENSE": b"free"})
    assert fingerprint_weights(one, cache_dir=tmp_path) == fingerprint_weights(
        two, cache_dir=tmp_path
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "chat_template.jinja"])
def test_weights_config_and_template_matter(tmp_path: Path, name: str) -> None:
    one = make_model(tmp_path / "one")
    two = make_model(tmp_path / "two", {**FILES, name: b"changed"})
    assert fingerprint_weights(one, cache_dir=tmp_path) != fingerprint_weights(
        two, cache_dir=tmp_path
    )


def test_a_hub_snapshot_has_the_fingerprint_of_the_same_files_elsewhere(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--google--tiny"
    snapshot = repository / "snapshots" / "c0ffee"
    blobs = make_model(repository / "blobs", {})
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    for name, content in FILES.items():
        is_large = name.endswith(".safetensors")  # small files are named by a git hash
        digest = hashlib.sha256(content).hexdigest() if is_large else f"{len(name):040x}"
        (blobs / digest).write_bytes(content)
        (snapshot / name).symlink_to(blobs / digest)

    found = find_model_files("google/tiny", environment={"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert found == snapshot
    assert fingerprint_weights(found, cache_dir=tmp_path) == fingerprint_weights(
        make_model(tmp_path / "copy"), cache_dir=tmp_path
    )


def test_a_file_is_read_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = weights_fingerprint._sha256

    def noting(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(weights_fingerprint, "_sha256", noting)
    folder = make_model(tmp_path / "model")
    first = fingerprint_weights(folder, cache_dir=tmp_path)
    assert fingerprint_weights(folder, cache_dir=tmp_path) == first
    assert sorted(read) == sorted(FILES)

    (folder / "model.safetensors").write_bytes(b"w3ights")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert fingerprint_weights(folder, cache_dir=tmp_path) != first
    assert read[3:] == ["model.safetensors"]


@pytest.mark.parametrize("content", ["not json", "[1]", json.dumps({"x": "y"})])
def test_a_broken_memory_is_no_memory(tmp_path: Path, content: str) -> None:
    folder = make_model(tmp_path / "model")
    expected = fingerprint_weights(folder, cache_dir=tmp_path / "other")
    (tmp_path / "weights.json").write_text(content)
    assert fingerprint_weights(folder, cache_dir=tmp_path) == expected


def test_a_model_that_is_nowhere_is_not_found(tmp_path: Path) -> None:
    assert find_model_files("google/absent", environment={"HF_HOME": str(tmp_path)}) is None
    assert find_model_files("no-such-thing", environment={}) is None
