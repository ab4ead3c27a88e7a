"""A cache of its own for every test, and tasks whose hub source is a folder on disk."""

import dataclasses
import shutil

import pytest

from g4eval.bundled import bundled_dir
from g4eval.tasking.loader import load_task


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path):
    """Leave no folder behind: some hold questions that must not lie about in plain text."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep decoded tests and hub caches out of the user's folders, and the hub unasked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        import datasets
    except ImportError:
        return
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)


def bundled_task(path):
    """Return a task of the package: `bundled_task("bbeh/bbeh.yaml")`."""
    return load_task(bundled_dir("tasks") / path)


def from_hub(task, folder, *, rows=None, only=None):
    """Return the task with one source: its hub source, read from a folder instead of the hub."""
    source = next(s for s in task.spec.data.sources if s.kind == "hub")
    source = source.model_copy(
        update={"dataset": str(folder), "name": None, "text_sha256": None, "files": only or ()}
    )
    data = task.spec.data.model_copy(
        update={"sources": (source,), "rows": rows or task.spec.data.rows}
    )
    return dataclasses.replace(task, spec=task.spec.model_copy(update={"data": data}))
