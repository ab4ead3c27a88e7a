"""GPUs as `nvidia-smi` lists them, and the memory of this machine."""

from pathlib import Path

import pytest

from g4eval.engines.hardware import Device, find_gpus, find_memory, gpu_facts


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on the path, that writes down how it was called."""
    program = tmp_path / "nvidia-smi"
    listed = "NVIDIA H200, 143771, 580.1"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "{listed}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_a_gpu_has_its_name_its_memory_in_bytes_and_its_driver(nvidia_smi: Path) -> None:
    h200 = Device(name="NVIDIA H200", memory_bytes=143_771 * 2**20, driver="580.1")
    assert find_gpus({}) == (h200,)


def test_only_visible_gpus_count(nvidia_smi: Path) -> None:
    assert find_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert not (nvidia_smi / "arguments").exists()
    find_gpus({"CUDA_VISIBLE_DEVICES": "1,3"})
    assert (nvidia_smi / "arguments").read_text().endswith("-i 1,3\n")


def test_a_driver_that_fails_is_no_gpu(nvidia_smi: Path) -> None:
    (nvidia_smi / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert find_gpus({}) == ()


def test_no_driver_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus({}) == ()


def test_memory_is_what_this_process_may_use() -> None:
    memory = find_memory()
    assert 2**28 < memory.memory_bytes < 2**50


def test_an_engine_tells_its_gpus_and_their_driver() -> None:
    gpu = Device(name="NVIDIA H200", memory_bytes=1, driver="580.1")
    assert gpu_facts([gpu, gpu]) == {"gpus": ["NVIDIA H200"] * 2, "gpu_driver": "580.1"}
    assert gpu_facts([]) == {"gpus": [], "gpu_driver": "none"}
