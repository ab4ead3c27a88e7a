"""Compare with a golden file byte for byte; `nox -s golden` writes them again."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def check_golden(name: str, text: str) -> None:
    """Assert that `text` is what the file holds, or write it where that was asked for."""
    path = HERE / name
    if os.environ.get("G4EVAL_WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text
