"""Every scripted server of the folder of cases: its exit code and its table.

The folder stands beside the one that G4EVAL_DATA_DIR names, or where G4EVAL_CASES_DIR says; without
it these tests are skipped. Its servers answer AIME's and GPQA's questions from the data.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.serving import free_port, self_signed

ALL_RIGHT = ("100.0", "30 x 1")
QUICK = ("engine.first_wait_seconds=0.05", "engine.longest_wait_seconds=0.1")
SECONDS_TO_START = 20


@pytest.fixture
def servers(data_dir: Path) -> Path:
    """The folder of scripted servers."""
    folder = Path(os.environ.get("G4EVAL_CASES_DIR") or data_dir.parent / "cases") / "servers"
    if not folder.is_dir():
        pytest.skip(f"the cases aren't here: {folder} is no folder")
    return folder


@dataclass(frozen=True, kw_only=True)
class Case:
    """One server, and what a run against it comes to."""

    server: str
    exit_code: int = 0
    row: tuple[str, ...] = ALL_RIGHT  # texts in the task's row; none: there is no table
    said: tuple[str, ...] = ()  # on either stream
    model: str = "m"
    task: str = "aime26"
    arguments: tuple[str, ...] = ()
    of_server: Mapping[str, str] = field(default_factory=dict)  # its environment
    of_run: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    scheme: str = "http"


def error_case(kind: str) -> Case:
    return Case(server="error_without_error_key", of_server={"KIND": kind})


CASES = {
    "baseline": Case(server="baseline"),
    "all_in_reasoning": Case(
        server="all_in_reasoning", model="qwen", arguments=("--set", "engine.thinking=false")
    ),
    "compare_missing, detector": Case(
        server="compare_missing",
        of_server={"LOOP": "1"},
        row=("66.7", "30 x 1", "10 (33.3 %)  10 (33.3 %)"),
    ),
    "compare_missing, none": Case(
        server="compare_missing",
        of_server={"LOOP": "0"},
        row=("66.7", "30 x 1", "10 (33.3 %)  10 (33.3 %)"),
    ),
    "content_list": Case(server="content_list"),
    "data_null": Case(server="data_null"),
    "declared_context": Case(
        server="declared_context", arguments=("--set", "engine.context_tokens=32768")
    ),
    "declared_context, undeclared": Case(server="declared_context"),
    "done_without_finish": Case(server="done_without_finish"),
    "error_codes_in_200, 402": Case(
        server="error_codes_in_200",
        of_server={"CODE": "402"},
        exit_code=5,
        row=(),
        said=("Insufficient balance", "give the account credit"),
    ),
    "error_codes_in_200, 401": Case(
        server="error_codes_in_200",
        of_server={"CODE": "401"},
        exit_code=5,
        row=(),
        said=("G4EVAL_API_KEY",),
    ),
    "error_codes_in_200, 429 as text": Case(
        server="error_codes_in_200", of_server={"CODE": '"429"', "RATE": "1"}
    ),
    **{
        f"error_without_error_key, {kind}": error_case(kind)
        for kind in (
            "vllm-old",
            "done-only",
            "choices-empty",
            "choices-null",
            "message",
            "detail",
        )
    },
    "finish_repetition": Case(
        server="finish_repetition", row=("66.7", "30 x 1", "10 (33.3 %)  10 (33.3 %)")
    ),
    # It mistakes an option that begins like the right one, and a question that begins like another.
    "gpqa_options": Case(server="gpqa_options", task="gpqa_diamond", row=("99.0", "198 x 1")),
    "lora_null_context": Case(server="lora_null_context", model="my-lora"),
    "max_completion_tokens": Case(
        server="max_completion_tokens",
        model="o-model",
        exit_code=5,
        row=(),
        said=("--set engine.omit=[top_k]",),
    ),
    "max_completion_tokens, top_k left out": Case(
        server="max_completion_tokens",
        model="o-model",
        arguments=("--set", "engine.omit=[top_k]"),
    ),
    "models_404": Case(server="models_404"),
    "models_404, 500": Case(server="models_404", of_server={"STATUS": "500"}),
    "models_array": Case(server="models_array"),
    "ollama_names": Case(server="ollama_names", model="gemma3"),
    "ollama_truncates_prompt": Case(  # AIME's prompts fit; a long one is test_openai_edges.py's
        server="ollama_truncates_prompt",
        model="gemma3:27b",
        row=("0.0", "30 x 1"),
        said=("the budget of 65,536 tokens is more than the context of 4,096",),
    ),
    "one_slot_queue": Case(
        server="one_slot_queue",
        model="g",
        of_server={"SECONDS_EACH": "0.2"},
        arguments=("--set", "engine.idle_timeout_seconds=2"),
    ),
    "proxy_for_localhost": Case(
        server="proxy_for_localhost", of_run={"HTTP_PROXY": "http://127.0.0.1:18164"}, port=18163
    ),
    "redirect": Case(server="redirect"),
    "retry_after_day": Case(
        server="retry_after_day",
        exit_code=5,
        row=(),
        said=("it asks to wait 86,400 s", "run the same command then"),
    ),
    "secret_echo": Case(
        server="secret_echo",
        of_run={"G4EVAL_API_KEY": "sk-in/vented+1"},
        exit_code=5,
        row=("0 x 0", "30 (100.0 %)"),
        said=("bad request for /v1/chat/completions auth Bearer ***",),
    ),
    "self_signed": Case(server="self_signed", scheme="https", of_run={"SSL_CERT_FILE": "c.pem"}),
    "self_signed, unknown": Case(
        server="self_signed",
        scheme="https",
        exit_code=5,
        row=(),
        said=("CERTIFICATE_VERIFY_FAILED", "try: set SSL_CERT_FILE to a file with the server's"),
    ),
    "sglang_context": Case(server="sglang_context"),
    "sigterm": Case(server="sigterm", arguments=("--limit", "3"), row=("100.0", "3 x 1")),
    "surrogate_halves": Case(server="surrogate_halves", row=("30 x 1",)),
    "tokenize_404": Case(server="tokenize_404"),
}


@contextmanager
def serving(servers: Path, case: Case, port: int, folder: Path) -> Iterator[None]:
    """One scripted server, for the length of a block."""
    paths = os.pathsep.join([str(servers), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        **case.of_server,
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, str(servers / f"{case.server}.py"), str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(SECONDS_TO_START * 10):
            with socket.socket() as probe:
                probe.settimeout(0.1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "server.log").read_text()
        yield
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


@pytest.mark.parametrize("name", CASES)
def test_a_scripted_server_gets_its_exit_code_and_its_table(
    name: str, servers: Path, data_dir: Path, cli: Cli, tmp_path: Path
) -> None:
    case = CASES[name]
    port = case.port or free_port()
    if case.scheme == "https":
        self_signed(tmp_path)  # c.pem and k.pem, which the server reads where it runs
    settings = [part for value in QUICK for part in ("--set", value)]
    with serving(servers, case, port, tmp_path):
        result = cli(
            *("run", case.task, "--model", case.model, "--engine", "openai", "--repeats", "1"),
            *(
                "--base-url",
                f"{case.scheme}://127.0.0.1:{port}/v1",
                "--set",
                "engine.max_retries=3",
            ),
            *settings,
            *case.arguments,
            G4EVAL_DATA_DIR=str(data_dir),
            **case.of_run,
        )
    said = result.stdout + result.stderr
    assert result.returncode == case.exit_code, said
    rows = [line for line in result.stdout.splitlines() if line.startswith(f"{case.task} ")]
    assert bool(rows) == bool(case.row), said
    for text in case.row:
        assert text in rows[0], rows[0]
    for text in case.said:
        assert text in said, said
    assert "vented" not in said


def test_every_server_of_the_folder_has_a_case(servers: Path) -> None:
    there = {path.stem for path in servers.glob("*.py")}
    assert there - {"fake"} == {case.server for case in CASES.values()}
