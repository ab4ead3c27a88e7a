"""Sixty scripted servers, streaming and not, chat and completions: none scores a failure of ours.

Each answers most questions rightly and fails some in its own way, and repeats every secret it was
sent in every form. A run against it ends with 0 or 5, never as a bug; whatever it made a completion
of is graded as what the model wrote; and no file, log or screen of it holds a secret in any form.
"""

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from g4eval.records import Outcome
from g4eval.store.reader import RunReader
from tests.conftest import Cli
from tests.http_server import HttpRequest, HttpServer, Reply
from tests.integration.test_openai_runs import served

KEY = "sk-inv/ented+01'23=="
PASSWORD = "hunter2/#?x"
QUERY = "query secret&1"
HEADER = "h3ader/s3cret+="
BODY = "b0dy/passw0rd"
SECRETS = (KEY, PASSWORD, QUERY, HEADER, BODY)
RIGHT = "The answer is \\boxed{4}."
USAGE = {"prompt_tokens": 30, "completion_tokens": 7}


def forms(secret: str) -> list[str]:
    """What no file may hold: a secret as itself, percent-encoded, escaped, in base64 and hex."""
    data = secret.encode()
    plain = [secret, quote(secret, safe=""), quote(secret), repr(data)[2:-1]]
    return [*plain, json.dumps(secret)[1:-1], data.hex(), *map(inside, [data] * 3, range(3))]


def inside(data: bytes, before: int) -> str:
    """The letters of a base64 text that `data` alone decides, with so many bytes before it."""
    whole = base64.b64encode(b"x" * before + data).decode().rstrip("=")
    return whole[(0, 2, 3)[before] : len(whole) - bool((before + len(data)) % 3)]


def echoed(secret: str) -> list[str]:
    """What a server sends back of it."""
    data = secret.encode()
    wrapped = [b"x" * n + data + b"y" * k for n in range(3) for k in range(3)]
    return [*forms(secret)[:6], *(base64.b64encode(w).decode() for w in wrapped)]


ECHO = " ".join(f"<{form}>" for secret in SECRETS for form in echoed(secret))

# What a server fails with, for some questions: (status, body) of a whole answer, or events.
BODIES: dict[str, tuple[int, Any]] = {
    "401": (401, {"error": f"Incorrect key {ECHO}"}),
    "402": (402, {"error": f"Insufficient balance {ECHO}"}),
    "403": (403, {"error": f"blocked {ECHO}"}),
    "moderated": (403, {"error": {"message": f"flagged by moderation {ECHO}"}}),
    "404": (404, {"detail": f"Not Found {ECHO}"}),
    "400": (400, {"error": {"message": f"bad request {ECHO}"}}),
    "400 text": (400, f"plain words {ECHO}"),
    "content filter": (400, {"error": {"code": "content_filter", "message": ECHO}}),
    "context": (400, {"error": {"message": "This model's maximum context length is 9 tokens"}}),
    "413": (413, ECHO),
    "422": (422, {"detail": [{"msg": ECHO, "input": ECHO}]}),
    "429": (429, {"error": f"slow down {ECHO}"}),
    "500": (500, {"error": ECHO}),
    "502": (502, f"<html>{ECHO}</html>"),
    "503 list": (503, [ECHO]),
    "529": (529, None),
    "redirect": (302, {"to": ECHO}),
    "204": (204, None),
    "error": (200, {"error": {"message": ECHO, "code": 500}}),
    "error text": (200, {"error": ECHO}),
    "error 400 as text": (200, {"error": {"message": ECHO, "code": "400"}}),
    "rate limit": (200, {"error": {"message": ECHO, "code": "429"}}),
    "flat error": (200, {"object": "error", "message": ECHO, "code": 500}),
    "detail": (200, {"detail": ECHO}),
    "status": (200, {"status": 503, "message": ECHO}),
    "choices empty": (200, {"choices": []}),
    "choices null": (200, {"choices": None, "usage": None}),
    "choices text": (200, {"choices": ECHO}),
    "choices ints": (200, {"choices": [1, 2]}),
    "no object": (200, [ECHO]),
    "null": (200, None),
    "number": (200, 7),
    "another choice": (200, {"choices": [{"index": 3, "message": {"content": ECHO}}]}),
    "empty message": (200, {"choices": [{"index": 0, "message": {"content": ""}}]}),
    "content int": (200, {"choices": [{"message": {"content": 4}, "text": 4}]}),
    "HTML": (200, f"<html><h1>{ECHO}</h1></html>"),
}
DELTA = {"choices": [{"index": 0, "delta": {"content": "Let x ="}, "text": "Let x ="}]}
STREAMS: dict[str, list[Any]] = {
    "done only": [],
    "keep-alives alone": [None, {}],
    "error later": [DELTA, {"error": {"message": ECHO, "code": 500}}],
    "flat error later": [DELTA, {"object": "error", "message": ECHO, "code": 503}],
    "no end": [DELTA],
    "abort": [DELTA, {"choices": [{"delta": {}, "text": "", "finish_reason": "abort"}]}],
    "timeout": [DELTA, {"choices": [{"delta": {}, "text": "", "finish_reason": "timeout"}]}],
    "nonsense later": [DELTA, [ECHO]],
    "other shape later": [DELTA, {"choices": [{"delta": {"content": 7}, "text": 7}]}],
}
# What a server sends with a right answer: (finish reason, more of the answer).
DEPARTURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": ("stop", {}),
    "eos_token": ("eos_token", {}),
    "end_turn": ("end_turn", {}),
    "unknown word": ("tired", {}),
    "null with usage": (None, {}),
    "finish int": (7, {}),
    "finish dict": ({"a": 1}, {}),
    "usage odd": ("stop", {"usage": {"prompt_tokens": -1, "completion_tokens": 10**40}}),
    "usage text": ("stop", {"usage": "many"}),
    "ids odd": ("stop", {"prompt_token_ids": ["a", 2**70]}),
    "name odd": ("stop", {"model": "\ud83d\x1b[31m", "id": {"a": []}}),
    "deep": ("stop", {"x": json.loads("[" * 60 + "]" * 60)}),
    "lone half": ("stop", {"system_fingerprint": "\udc80"}),
    "created odd": ("stop", {"created": 1e308}),
    "null choices beside": ("stop", {"error": None}),
}
KINDS = [*BODIES, *STREAMS, *DEPARTURES]


async def answer(request: HttpRequest, reply: Reply, finish: Any, more: dict[str, Any]) -> None:
    """A right answer that repeats the secrets."""
    said = f"I was sent {ECHO}. {RIGHT}"
    is_chat = "messages" in request.body
    whole = {"message": {"content": said}} if is_chat else {"text": said}
    if not request.body["stream"]:
        choices = [{"index": 0, **whole, "finish_reason": finish}]
        await reply.json({"choices": choices, "usage": USAGE, **more})
        return
    part = {"delta": {"content": said}} if is_chat else {"text": said}
    end: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
    await reply.start_stream()
    await reply.raw(b": " + ECHO.encode() + b"\n\n")
    await reply.event({"choices": [{"index": 0, **part}], **more})
    await reply.event({"choices": [{"index": 0, **end, "finish_reason": finish}]})
    await reply.event({"choices": [], "usage": USAGE, **more})
    await reply.end_stream()


def server_of(kind: str) -> Any:
    """A handler that fails a seventh of the questions in its own way, and answers the others."""

    async def handler(request: HttpRequest, reply: Reply) -> None:
        if kind in DEPARTURES:
            await answer(request, reply, *DEPARTURES[kind])
        elif request.body["seed"] % 7 or request.body["max_tokens"] < 32:
            await answer(request, reply, "stop", {})
        elif kind in STREAMS and request.body["stream"]:
            await reply.start_stream()
            for event in STREAMS[kind]:
                await reply.event(event)
            await reply.end_stream(done=kind != "no end")
        elif kind in STREAMS:
            await reply.json(STREAMS[kind][-1] if STREAMS[kind] else {})
        else:
            status, body = BODIES[kind]
            whole = body if isinstance(body, str) else json.dumps(body)
            await reply.send(whole.encode(), status=status)

    return handler


def run_against(cli: Cli, server: HttpServer, *, stream: bool, api: str, folder: Path) -> Any:
    login = f"ann:{quote(PASSWORD, safe='')}"
    return cli(
        *("run", "demo_math", "--engine", "openai", "--model", "tiny", "--run-id", "served"),
        *("--base-url", f"http://{login}@127.0.0.1:{server.port}/v1?key={quote(QUERY, safe='')}"),
        *("--repeats", "1", "-v", "--log-file", str(folder / "log.txt")),
        *("--header", f"x-api-key: {HEADER}"),
        *("--set", f"engine.extra_body={{password: {BODY}}}", "--set", f"engine.stream={stream}"),
        *("--set", f"engine.api={api}", "--set", "engine.first_wait_seconds=0"),
        *("--set", "engine.max_retries=2", "--set", "engine.rate_limit_patience_seconds=0.01"),
        *("--set", "engine.idle_timeout_seconds=5", "--set", "engine.longest_wait_seconds=0"),
        G4EVAL_API_KEY=KEY,
    )


def leaks(folder: Path, said: str) -> Iterator[str]:
    """Every place that holds a secret in some form: files as they are, and what is stored."""
    texts = {str(p): p.read_bytes().decode("latin-1") for p in folder.rglob("*") if p.is_file()}
    texts["screen"] = said
    for run in folder.glob("runs/*"):
        with RunReader(run) as reader:
            rows = [*reader.completions("demo_math"), reader.failed("demo_math")]
            texts["store"] = repr([*rows, reader.refused("demo_math"), reader.meta()])
    for (place, text), secret in itertools.product(texts.items(), SECRETS):
        yield from (f"{form!r} in {place}" for form in forms(secret) if form in text)


# A spread of kinds and ways for every change; the whole, `slow`, takes minutes.
WAYS = [(True, "chat"), (False, "chat"), (True, "completions"), (False, "completions")]
FEW = [(kind, WAYS[n % 4]) for n, kind in enumerate(KINDS) if n % 6 == 0]
ALL = [(kind, way) for kind in KINDS for way in WAYS]


def check(kind: str, way: tuple[bool, str], cli: Cli, folder: Path) -> None:
    stream, api = way
    with served(server_of(kind)) as server:
        result = run_against(cli, server, stream=stream, api=api, folder=folder)
        shown = cli("export", "served", "--to", "jsonl")
    said = result.stdout + result.stderr + shown.stdout + shown.stderr
    assert result.returncode in (0, 5), said
    assert shown.returncode in (0, 2), said  # 2: it ended before there was a run
    assert list(leaks(folder, said)) == []
    if shown.returncode == 2:
        return
    with RunReader(folder / "runs" / "served") as run:
        for completion in run.completions("demo_math"):
            assert completion.text.endswith(RIGHT), (kind, completion)
            assert "***" in completion.text
            grade = run.grade(completion.key)
            if grade is None:  # the run ended before it was graded
                assert result.returncode == 5
            else:
                assert grade.outcome in (Outcome.CORRECT, Outcome.INCORRECT)
        if kind in DEPARTURES:
            assert result.returncode == 0, said
            assert not run.failed("demo_math")


def test_there_are_sixty_servers() -> None:
    assert len(KINDS) >= 60


@pytest.mark.parametrize(("kind", "way"), FEW, ids=str)
def test_a_server_costs_no_answer_and_learns_nothing_out(
    kind: str, way: tuple[bool, str], quick_cli: Cli, tmp_path: Path
) -> None:
    check(kind, way, quick_cli, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "way"), ALL, ids=str)
def test_every_server_in_every_way(
    kind: str, way: tuple[bool, str], quick_cli: Cli, tmp_path: Path
) -> None:
    check(kind, way, quick_cli, tmp_path)
