"""What several tests need: benchmark data where it is, a folder of runs, the command line."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from g4eval.cli.entry import main
from g4eval.errors import NotReadyError
from g4eval.sandbox.docker_pool import connect
from g4eval.sandbox.image import build_image, image_exists

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests ask no hub but their own

if shutil.which("nvidia-smi") is None:
    # Read as Triton is imported: kernels for a card then run on the CPU, slowly.
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data_dir() -> Path:
    """The folder of benchmark data; a test that needs it is skipped without it."""
    folder = os.environ.get("G4EVAL_DATA_DIR")
    if not folder:
        pytest.skip("benchmark data isn't here: set G4EVAL_DATA_DIR")
    return Path(folder)


@pytest.fixture(scope="session")
def docker_client():
    """A client of the daemon, with the judge's image built if need be."""
    try:
        client = connect()
    except NotReadyError as error:
        if os.environ.get("G4EVAL_REQUIRE_DOCKER"):
            raise
        pytest.skip(f"no Docker daemon: {error.what}")
    if not image_exists(client):
        build_image(client, say=print)
    yield client
    client.close()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `g4eval` as a process of its own in an empty folder; its runs go to `runs/` there."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "g4eval", *arguments],
            cwd=tmp_path,
            env=cli_environment() | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def cli_environment() -> dict[str, str]:
    """The environment of a command under test: no data, no keys, a fixed width."""
    dropped = {"G4EVAL_DATA_DIR", "G4EVAL_RUNS_DIR", "G4EVAL_API_KEY", "OPENAI_API_KEY"}
    kept = {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith("COV_")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # this code comes first
    return kept | {"COLUMNS": "100", "PYTHONPATH": os.pathsep.join(paths)}


def pytest_configure() -> None:
    """Take SIGINT as one sent from a terminal, here and in child processes.

    A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Leave the handlers of the test's process as they were: the command line sets its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def quick_cli(tmp_path: Path, monkeypatch, capfd) -> Cli:
    """The same inside this process: quicker, for what needs no process of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name in os.environ.keys() - cli_environment().keys():
                patch.delenv(name)
            for name, value in (cli_environment() | environment).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["g4eval", *arguments])
            capfd.readouterr()
            with pytest.raises(SystemExit) as left:
                main()
            out, err = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return subprocess.CompletedProcess(arguments, left.value.code, out, err)

    return run
