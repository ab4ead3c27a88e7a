"""Stored JSON is parsed within limits, and refused with its file and the field that is off."""

import json
import os
from pathlib import Path

import pytest

from g4eval.errors import StoreError
from g4eval.store.manifest import read_manifest, write_manifest
from g4eval.store.stored import Manifest, StoredPlan

SAMPLING = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "max_new_tokens": 8, "new_key": 3}
PLAN = {"version": 1, "grader": "integer", "repeats": 2, "sampling": SAMPLING}
ENGINE = {"engine": "fake", "model": "m", "later": 1}
MANIFEST = {"run_id": "r", "engine": ENGINE, "config": {}}


def test_a_plan_keeps_what_a_later_version_wrote_and_adds_nothing() -> None:
    written = {**PLAN, "of_a_later_version": [1, {"a": None}]}
    assert StoredPlan.parse(written, where="w").as_json() == written
    assert StoredPlan.parse(written, where="w").splits == ()


def test_an_engines_facts_are_the_ones_that_were_stored() -> None:
    manifest = Manifest.parse({**MANIFEST, "engine": {**ENGINE, "fingerprint": "f"}},
                              where="w")  # fmt: skip
    assert manifest.engine.facts == ENGINE
    assert manifest.engine.fact("later") == 1
    assert manifest.engine.fact("never") is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"engine": None}, "engine"),
        ({"engine": {"engine": ["fake"]}}, "engine.engine"),
        ({"identity": {"seed": "x"}}, "identity.seed"),
        ({"tasks": {"t": {**PLAN, "repeats": -1}}}, "tasks.t.repeats"),
        ({"tasks": {"t": {**PLAN, "sampling": {}}}}, "tasks.t.sampling.temperature"),
        ({"tasks": {"t": {**PLAN, "metrics": "accuracy"}}}, "tasks.t.metrics"),
        ({"config": 3}, "config"),
    ],
)
def test_a_manifest_that_is_off_names_its_field(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    write_manifest(tmp_path, {**MANIFEST, **change})
    with pytest.raises(StoreError) as refused:
        read_manifest(tmp_path)
    assert refused.value.what.startswith(f"{named}: ")
    assert "manifest.json" in (refused.value.where or "")
    assert "g4eval check" in (refused.value.hint or "")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', "[" * 100_000, '{"a": NaN}', '{"a": 1' + "0" * 5000 + "}", "\udcff"],
    ids=["empty", "half", "list", "text", "deep", "nan", "long number", "not utf-8"],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError) as refused:
        read_manifest(tmp_path)
    assert "manifest.json" in (refused.value.where or "")


def test_a_pipe_in_a_manifests_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(StoreError, match="not a file"):
        read_manifest(tmp_path)


def test_two_writers_of_one_file_have_drafts_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "manifest.json.part").mkdir()  # the one name that both once had
    write_manifest(tmp_path, MANIFEST)
    assert json.loads((tmp_path / "manifest.json").read_text()) == MANIFEST
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "manifest.json.part"]
