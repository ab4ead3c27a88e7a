"""Servers: what stands behind an address answers whatever it likes, byte by byte.

A real server on the loopback interface sends it, the engine reads it, and what it makes of it goes
into a store and comes back out.
"""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from g4eval.engines.openai_http import OpenAIEngine, OpenAIOptions
from g4eval.records import Attempt
from g4eval.store.run_store import RunStore
from tests.driving import make_request
from tests.fuzz.border import HOSTILE, Border, mutated_bytes, mutated_json, mutated_value
from tests.http_server import read_head

QUICK: dict[str, Any] = {
    "queue_timeout_seconds": 0.5,
    "idle_timeout_seconds": 0.3,
    "connect_timeout_seconds": 1,
    "max_retries": 2,
    "first_wait_seconds": 0,
    "longest_wait_seconds": 0,
    "rate_limit_patience_seconds": 0.05,
}
KEY = "sk-invented-0123456789"
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CHUNKS: list[Any] = [
    {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": "tiny",
        "prompt_token_ids": [2, 5],
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
    },
    {"model": "tiny", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    {
        "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": "four"}, "token_ids": [7, 8]}],
    },
    {"choices": [{"delta": {"content": [{"type": "text", "text": "4"}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": USAGE},
    {"error": {"message": "EngineCore died", "type": "server_error", "code": 500}},
]
BODIES: list[Any] = [
    {
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"content": "4", "reasoning": "hm"}, "finish_reason": "stop"}
        ],
        "usage": USAGE,
    },
    {"choices": [{"text": "4", "finish_reason": "length", "token_ids": [3]}]},
    {"object": "error", "message": "no", "type": "BadRequestError", "code": 400},
    {"error": {"message": "maximum context length is 900 tokens", "code": "context_length"}},
    {"detail": [{"msg": "field required", "loc": ["body", "messages"]}]},
]
ROWS = [{"id": "tiny", "owned_by": owner, "max_model_len": 900} for owner in ("vllm", "sglang")]
ABOUT: list[Any] = [
    {"object": "list", "data": ROWS[:1]},
    {"object": "list", "data": ROWS[1:]},
    {"data": [{"id": "tiny", "owned_by": "llamacpp"}]},
    [{"id": "tiny", "context_length": 900}],
    {"models": [{"name": "tiny", "context_length": 900}]},
    {"version": "0.17.0", "total_slots": 3, "count": 30, "max_total_tokens": 900},
    {"build_info": "b1", "total_slots": 2, "default_generation_settings": {"n_ctx": 900}},
    {"parameters": "num_ctx 900", "model_info": {"gemma.context_length": 900}},
]
TYPES = ["text/event-stream", "application/json", "text/html", "text/plain", "", "x" * 300]
CODINGS = ["identity", "gzip", "deflate", "br", "x", ""]
WAITS = ["0", "86400", "inf", "nan", "-1", "1e308", "9" * 999, "Fri, 31 Dec 9999 23:59:59 GMT", "x"]


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a server sends."""

    about: bytes  # to every question about itself
    answer: bytes
    status: int
    media_type: str
    coding: str
    wait: str
    streams: bool
    raw: bool  # the answer is the whole message, head and all


def _events(events: list[bytes]) -> bytes:
    return b"".join(b"data: " + event + b"\n\n" for event in events)


def scripts() -> st.SearchStrategy[Script]:
    """Servers of every kind, some of them sound."""
    event = st.one_of(st.sampled_from(CHUNKS).map(lambda v: json.dumps(v).encode()))
    events = st.lists(st.one_of(event, mutated_json(CHUNKS)), max_size=6).map(_events)
    end = st.sampled_from([b"data: [DONE]\n\n", b"", b": hello\n\n", b"data: null\n\n", b"data: ["])
    stream = st.tuples(events, end).map(b"".join)
    body = st.one_of(mutated_json(BODIES), st.sampled_from(HOSTILE).map(_dumped))
    whole = st.one_of(stream, stream, body, stream.flatmap(lambda s: mutated_bytes([s + b" "])))
    return st.builds(
        Script,
        about=st.one_of(
            st.sampled_from(ABOUT).map(_dumped), mutated_value(ABOUT).map(_dumped), body
        ),
        answer=whole,
        status=st.sampled_from([200] * 8 + [204, 302, 308, 400, 401, 403, 404, 413, 422, 429, 503]),
        media_type=st.sampled_from(TYPES),
        coding=st.sampled_from(["identity"] * 6 + CODINGS),
        wait=st.sampled_from(WAITS),
        streams=st.booleans(),
        raw=st.sampled_from([False] * 9 + [True]),
    )


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def read_server(script: Script, folder: Path) -> None:
    """Meet a server, ask it two things, keep what it says."""
    logging.getLogger("g4eval.engines").setLevel(logging.ERROR)  # each try again is a line
    asyncio.run(_read(script, folder))


async def _read(script: Script, folder: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, asyncio.CancelledError):
            method, path, _ = await read_head(reader)
            writer.write(_message(script, is_question=method == "POST" and "/v1/" in path))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    try:
        await _use(script, folder, f"http://127.0.0.1:{port}/v1")
    finally:
        server.close()


async def _use(script: Script, folder: Path, base_url: str) -> None:
    options = OpenAIOptions(**QUICK, stream=script.streams)
    engine = OpenAIEngine(options, model="tiny", base_url=base_url, api_key=KEY)
    with RunStore(folder / "run") as store:
        async with engine:
            facts = engine.describe()
            assert facts.fingerprint
            json.dumps(dict(facts.operation))
            for number in range(2):
                request = make_request(number=number)
                store.expect(request, gated=False)
                answer = await engine.answer(request)
                assert KEY not in repr(answer)
                if isinstance(answer, Attempt):
                    await store.add_attempt(answer)
                else:
                    await store.add_completion(answer)
            await store.flush()
        kept = list(store.completions("invented"))
        failed = {**store.failed("invented"), **store.refused("invented")}
        assert len(kept) + len(failed) == 2


def _message(script: Script, *, is_question: bool) -> bytes:
    if not is_question:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + script.about
    if script.raw:
        return script.answer
    head = f"HTTP/1.1 {script.status} X\r\nConnection: close\r\nRetry-After: {script.wait}\r\n"
    head += f"Content-Type: {script.media_type}\r\nContent-Encoding: {script.coding}\r\n"
    return (head + "Location: /v1/chat/completions\r\n\r\n").encode() + script.answer


BORDERS = [Border(name="servers", inputs=scripts(), read=read_server, few=25)]
