"""Read rows from the Hugging Face hub through `datasets`; no dataset script is ever run.

HF_TOKEN, HF_HOME, HF_ENDPOINT and the proxies are the hub libraries' own; what they have in their
cache needs no network. A source that names files has them read line by line, without the copy that
`datasets` would make: LiveCodeBench's are 4.5 GB, with megabytes in a row.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from g4eval.errors import DataError, MissingExtraError
from g4eval.jsonlines import read_json_lines
from g4eval.tasking.spec import SourceSpec


def hub_rows(source: SourceSpec) -> Iterator[dict[str, Any]]:
    """Open a hub source and yield its rows one at a time.

    Each row also gets `_dataset`, the hub id, for plugins that read several.

    Raises MissingExtraError without the package datasets, and DataError for what can't be had.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            "the package datasets is not installed", hint="pip install 'g4eval[data]'"
        ) from error
    _silence(datasets)
    try:
        rows = _lines(source) if source.files else _split(datasets, source)
    except Exception as error:
        raise DataError(_failure(error, source)) from error
    return ({**row, "_dataset": source.dataset} for row in rows)


def _split(datasets: ModuleType, source: SourceSpec) -> Any:
    return datasets.load_dataset(
        source.dataset, source.name, split=source.split, revision=source.revision
    )


def _lines(source: SourceSpec) -> Iterator[dict[str, Any]]:
    """Return the rows of JSON-lines files, every one of them here before the first row is."""
    paths = [_file(source, name) for name in source.files]
    return (row for path in paths for _, row in read_json_lines(path, error=DataError))


def _file(source: SourceSpec, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    assert source.dataset is not None
    if Path(source.dataset).is_dir():  # a snapshot on disk
        return Path(source.dataset) / name
    return Path(
        hf_hub_download(source.dataset, name, repo_type="dataset", revision=source.revision)
    )


def _silence(datasets: ModuleType) -> None:
    """Keep progress bars and retries off the terminal: what fails is said once, by us."""
    datasets.disable_progress_bars()
    for name in ("datasets", "huggingface_hub", "fsspec", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _failure(error: BaseException | None, source: SourceSpec) -> str:
    names = []
    while error is not None:
        text = str(error).lower()
        if "gated" in text or "401" in text or "403" in text:
            return (
                f"{source.dataset} is gated or private: accept its terms on the hub, then set "
                "HF_TOKEN to a token that may read it"
            )
        names.append(type(error).__name__)
        error = error.__cause__
    return f"the hub can't be read ({' from '.join(names)})"
