"""What this machine can hold: its GPUs, by `nvidia-smi`, and its memory. Loads no torch."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something that holds weights: one GPU, or the machine's memory."""

    name: str
    memory_bytes: int


def find_gpus(environment: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """Return the NVIDIA GPUs this process may use; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible in ("", "-1"):
        return ()
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    if visible is not None:
        command += ["-i", visible]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603  a fixed program, found on the path
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpu_list(answer.stdout)


def read_gpu_list(csv: str) -> tuple[Device, ...]:
    """Return the GPUs in nvidia-smi's lines of `name, MiB`."""
    rows = [line.rpartition(",") for line in csv.splitlines() if "," in line]
    return tuple(
        Device(name=name.strip(), memory_bytes=int(mebibytes) * 2**20)
        for name, _, mebibytes in rows
        if mebibytes.strip().isdigit()
    )


def find_memory() -> Device:
    """Return the memory this process may use, the container's limit counted."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = int(_CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such control group
        limit = total
    return Device(name="memory", memory_bytes=min(total, limit))
