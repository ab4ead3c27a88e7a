"""What several tests need: benchmark data where it is, a folder of runs, the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data_dir() -> Path:
    """The folder of benchmark data; a test that needs it is skipped without it."""
    folder = os.environ.get("G4EVAL_DATA_DIR")
    if not folder:
        pytest.skip("benchmark data isn't here: set G4EVAL_DATA_DIR")
    return Path(folder)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `g4eval` as a process of its own in an empty folder; its runs go to `runs/` there."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "g4eval", *arguments],
            cwd=tmp_path,
            env=cli_environment() | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def cli_environment() -> dict[str, str]:
    """The environment of a command under test: no data, no keys, a fixed width."""
    dropped = {"G4EVAL_DATA_DIR", "G4EVAL_RUNS_DIR", "G4EVAL_API_KEY", "OPENAI_API_KEY"}
    kept = {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith("COV_")}
    return kept | {"COLUMNS": "100", "PYTHONPATH": str(ROOT)}
