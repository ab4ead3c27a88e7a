"""`g4eval run` against a server: what ends up in the run's files, and what the table warns of."""

import asyncio
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.http_server import Handler, HttpRequest, HttpServer, Reply
from tests.serving import self_signed

KEY = "sk-invented-0123456789"


@contextmanager
def served(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """A server in a thread of its own, since the command under test is a process."""
    ready, done = threading.Event(), threading.Event()
    found: list[HttpServer] = []

    async def main() -> None:
        async with HttpServer(handler, tls=tls) as server:
            found.append(server)
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        done.set()
        thread.join(10)


def run_demo(cli: Cli, server: HttpServer, *arguments: str, exit_code: int = 0) -> str:
    result = cli(
        *("run", "demo_math", "--engine", "openai", "--model", "tiny", "--run-id", "served"),
        *("--base-url", f"http://ann:hunter2@127.0.0.1:{server.port}/v1?key=querysecret"),
        *arguments,
        G4EVAL_API_KEY=KEY,
    )
    assert result.returncode == exit_code, result.stderr
    return result.stdout + result.stderr


def test_no_key_or_password_ends_up_in_any_file_or_message(cli: Cli, tmp_path: Path) -> None:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        secrets = f"{KEY} hunter2 {request.query} {request.headers['authorization']}"
        if "seed" in request.body and request.body["seed"] % 3 == 0:
            await reply.error(400, f"refused: {secrets}")
        else:
            await reply.answer("The answer is \\boxed{4}.")

    with served(handler) as server:
        said = run_demo(
            cli, server, "-v", "--log-file", str(tmp_path / "log.txt"), exit_code=5
        )  # 5: a third of the requests is refused
    assert any(request.query == "key=querysecret" for request in server.requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"manifest.json", "run.sqlite", "log.txt"}
    for secret in (KEY, "hunter2", "querysecret", "ann:"):
        assert secret not in said
        assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


def test_a_server_that_ignores_the_seed_is_warned_of(cli: Cli) -> None:
    async def deaf(request: HttpRequest, reply: Reply) -> None:
        await reply.answer(f"To {request.prompt[-20:]!r} I always say \\boxed{{4}}.")

    with served(deaf) as server:
        said = run_demo(cli, server, "--repeats", "4")
    assert "the engine seems to ignore the seed" in said


def test_a_server_that_heeds_the_seed_is_not(cli: Cli) -> None:
    async def good(request: HttpRequest, reply: Reply) -> None:
        await reply.answer(f"After thinking {request.body['seed']} times, \\boxed{{4}}.")

    with served(good) as server:
        said = run_demo(cli, server, "--repeats", "4")
    assert "ignore the seed" not in said


def serve_and_run(
    cli: Cli, handler: Handler, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], HttpServer]:
    with served(handler) as server:
        result = cli(
            *("run", "demo_math", "--base-url", f"http://127.0.0.1:{server.port}/v1"),
            *("--run-id", "served", "--set", "engine.first_wait_seconds=0.01", *arguments),
            **environment,
        )
        return result, server


async def right(request: HttpRequest, reply: Reply) -> None:
    await reply.answer(f"After {request.body['seed']} thoughts: \\boxed{{4}}.")


def test_the_only_model_of_a_server_is_the_default(cli: Cli, tmp_path: Path) -> None:
    result, server = serve_and_run(cli, right)
    assert result.returncode == 0, result.stderr
    assert "model tiny: the only one the server has" in result.stderr
    assert {request.body["model"] for request in server.requests} == {"tiny"}
    manifest = json.loads((tmp_path / "runs" / "served" / "manifest.json").read_text())
    assert (manifest["engine"]["model"], manifest["config"]["model"]) == ("tiny", "tiny")


def test_headers_reach_the_server_and_their_names_alone_the_manifest(
    cli: Cli, tmp_path: Path
) -> None:
    async def echo(request: HttpRequest, reply: Reply) -> None:
        assert request.headers["x-team"] == "evals-7"
        await reply.answer(f"I saw {request.headers['api-key']}: \\boxed{{4}}.")

    headers = ("--header", "api-key: s3cret/key+x", "--header", "X-Team: evals-7")
    result, _ = serve_and_run(cli, echo, *headers)
    assert result.returncode == 0, result.stderr
    path = tmp_path / "runs" / "served" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["config"]["header"] == ["api-key", "X-Team"]
    assert manifest["engine_operation"]["headers"] == ["X-Team", "api-key"]
    said = cli("export", "served", "--to", "jsonl").stdout
    assert "I saw ***" in said
    assert "s3cret" not in said + result.stdout + result.stderr + path.read_text()
    again = cli("run", "--from", str(path), "--run-id", "again")
    assert again.returncode == 2
    assert "--header 'api-key: …'" in again.stderr


def test_passwords_of_a_body_stand_in_no_file_and_the_run_continues(
    cli: Cli, tmp_path: Path
) -> None:
    async def echo(request: HttpRequest, reply: Reply) -> None:
        await reply.answer(f"{request.body['auth']['password']} \\boxed{{4}}")

    body = "engine.extra_body={auth: {user: ann-1234, password: hunter2-x}, best_of: 1}"
    arguments = ("--model", "tiny", "--set", body)
    first, server = serve_and_run(cli, echo, *arguments)
    assert first.returncode == 0, first.stderr
    assert server.requests[0].body["auth"]["password"] == "hunter2-x"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [p for p in files if b"hunter2-x" in p.read_bytes()] == []
    manifest = json.loads((tmp_path / "runs" / "served" / "manifest.json").read_text())
    assert manifest["engine"]["other"]["extra_body"] == {"auth": "***", "best_of": 1}
    again = cli("run", "--from", str(tmp_path / "runs" / "served"), "--run-id", "again")
    assert again.returncode == 2
    assert "engine.extra_body" in again.stderr


def test_a_run_with_passwords_of_a_body_is_continued_by_its_own_command(
    cli: Cli, tmp_path: Path
) -> None:
    with served(right) as server:
        command = (
            *("run", "demo_math", "--base-url", f"http://127.0.0.1:{server.port}/v1"),
            *("--set", "engine.extra_body={password: hunter2-x}", "--run-id", "served"),
        )
        assert cli(*command, "--limit", "2").returncode == 0
        assert cli(*command, "--limit", "4").returncode == 0


def test_another_models_answers_are_said_and_a_change_ends_the_run(
    cli: Cli, tmp_path: Path
) -> None:
    names = ["gpt-2"]

    async def named(request: HttpRequest, reply: Reply) -> None:
        await reply.start_stream()
        await reply.event({"model": names[0], "choices": [{"delta": {"content": "\\boxed{4}"}}]})
        await reply.delta(finish_reason="stop")
        await reply.end_stream()

    with served(named) as server:
        command = (
            *("run", "demo_math", "--base-url", f"http://127.0.0.1:{server.port}/v1"),
            *("--run-id", "served", "--repeats", "1"),
        )
        first = cli(*command, "--limit", "3")
        names[0] = "gpt-3"
        second = cli(*command)
    assert first.returncode == 0, first.stderr
    assert "asked for 'tiny', and the server answers as 'gpt-2'" in first.stdout
    assert second.returncode == 5
    assert "answers as 'gpt-3' now" in second.stderr
    assert len(cli("export", "served", "--to", "jsonl").stdout.splitlines()) == 3


def test_one_moderated_prompt_is_refused_and_the_rest_is_a_run(cli: Cli) -> None:
    async def moderates(request: HttpRequest, reply: Reply) -> None:
        if request.body["seed"] == first_seed:
            await reply.error(403, "flagged by moderation")
        else:
            await right(request, reply)

    first_seed = 0

    async def note(request: HttpRequest, reply: Reply) -> None:
        nonlocal first_seed
        first_seed = first_seed or request.body["seed"]
        await moderates(request, reply)

    result, _ = serve_and_run(cli, note, "--model", "tiny", "--repeats", "1")
    assert result.returncode == 0, result.stderr
    assert "demo_math: refused for good: 1" in result.stderr
    assert "1 of 16 requests were refused for good" in result.stdout


def test_a_word_nobody_knows_is_counted_in_the_table(cli: Cli) -> None:
    async def odd(request: HttpRequest, reply: Reply) -> None:
        usage = {"prompt_tokens": 30, "completion_tokens": 8}
        await reply.answer("\\boxed{4}", finish_reason="tired", usage=usage)

    result, _ = serve_and_run(cli, odd, "--limit", "4", "--repeats", "1")
    assert result.returncode == 0, result.stderr
    assert "taken as stopped: 'tired' 4" in result.stdout


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SSL_CERT_FILE": "/nowhere/c.pem"}, "SSL_CERT_FILE=/nowhere/c.pem"),
        ({"G4EVAL_API_KEY": "“sk-invented”"}, "G4EVAL_API_KEY"),
        ({"OPENAI_API_KEY": "sk-inv\nented"}, "OPENAI_API_KEY"),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused_by_name(
    quick_cli: Cli, environment: dict[str, str], named: str
) -> None:
    result = quick_cli(
        *("run", "demo_math", "--model", "tiny", "--base-url", "http://127.0.0.1:9/v1"),
        **environment,
    )
    assert result.returncode == 2, result.stderr
    assert named in result.stderr
    assert "inv" not in result.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"ALL_PROXY": "socks://proxy:1"},
        {"NO_PROXY": "[::1]", "HTTP_PROXY": "http://127.0.0.1:9"},
        {"HTTP_PROXY": "ftp://nowhere"},
        {"http_proxy": "http://[::1"},
    ],
)
def test_proxies_of_the_environment_do_not_stand_before_this_machine(
    cli: Cli, environment: dict[str, str]
) -> None:
    result, _ = serve_and_run(cli, right, "--limit", "1", **environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("proxy", ["socks://proxy:1", "ftp://nowhere", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_refused_before_anything_is_sent(
    quick_cli: Cli, proxy: str
) -> None:
    result = quick_cli(
        *("run", "demo_math", "--model", "m", "--base-url", "http://gateway.invalid/v1"),
        ALL_PROXY=proxy,
        HTTP_PROXY=proxy,
    )
    assert result.returncode == 2, result.stderr
    assert "ALL_PROXY" in result.stderr


def test_a_certificate_of_its_own_is_trusted_where_it_is_named(cli: Cli, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with served(right, tls) as server:
        command = ("run", "demo_math", "--base-url", server.base_url, "--run-id", "served")
        quick = ("--set", "engine.max_retries=0", "--set", "engine.first_wait_seconds=0")
        unknown = cli(*command, *quick)
        named = cli(*command, *quick, SSL_CERT_FILE=str(certificate))
        other = cli(*command, *quick, SSL_CERT_FILE=str(key))
    assert unknown.returncode == 5, unknown.stderr
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.stderr
    assert "try: set SSL_CERT_FILE to a file with the server's certificate" in unknown.stderr
    assert named.returncode == 0, named.stderr
    assert not server.requests or all(r.method == "POST" for r in server.requests)
    assert (other.returncode, "SSL_CERT_FILE" in other.stderr) == (2, True), other.stderr
