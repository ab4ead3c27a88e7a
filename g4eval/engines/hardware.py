"""What this machine can hold: its GPUs, by `nvidia-smi`, and its memory. Loads no torch."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from g4eval.records import Json

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something that holds weights: one GPU, or the machine's memory."""

    name: str
    memory_bytes: int
    driver: str = ""  # its version; empty for the machine's memory


def find_gpus(environment: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """Return the NVIDIA GPUs this process may use; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible in ("", "-1"):
        return ()
    command = [
        program,
        "--query-gpu=name,memory.total,driver_version",
        "--format=csv,noheader,nounits",
    ]
    if visible is not None:
        command += ["-i", visible]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603  a fixed program, found on the path
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpu_list(answer.stdout)


def read_gpu_list(csv: str) -> tuple[Device, ...]:
    """Return the GPUs in nvidia-smi's lines of `name, MiB, driver`."""
    rows = [[part.strip() for part in line.rsplit(",", 2)] for line in csv.splitlines()]
    return tuple(
        Device(name=row[0], memory_bytes=int(row[1]) * 2**20, driver=row[2])
        for row in rows
        if len(row) == 3 and row[1].isdigit()
    )


def gpu_facts(gpus: Sequence[Device]) -> dict[str, Json]:
    """Return what an engine says of the GPUs it sees: names, and the driver's version."""
    return {
        "gpus": [gpu.name for gpu in gpus],
        "gpu_driver": gpus[0].driver if gpus else "none",
    }


def find_memory() -> Device:
    """Return the memory this process may use, the container's limit counted."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = int(_CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such control group
        limit = total
    return Device(name="memory", memory_bytes=min(total, limit))
