"""`g4eval run` against a server: what ends up in the run's files, and what the table warns of."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Cli
from tests.http_server import Handler, HttpRequest, HttpServer, Reply

KEY = "sk-invented-0123456789"


@contextmanager
def served(handler: Handler) -> Iterator[HttpServer]:
    """A server in a thread of its own, since the command under test is a process."""
    ready, done = threading.Event(), threading.Event()
    found: list[HttpServer] = []

    async def main() -> None:
        async with HttpServer(handler) as server:
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
