"""Servers that say the right thing oddly, and servers that say nothing: by their every byte.

A good answer in odd clothes is taken, whole and once. What is no answer is never graded. No command
ends as a bug of ours or hangs, and nothing that was sent to hide is on a screen or in a file.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g4eval.store.reader import RunReader
from tests.conftest import Cli
from tests.http_server import HttpRequest, Reply
from tests.integration.test_openai_runs import served

KEY = "sk-inv/ented+01'23=="
RIGHT = "Schön ✓: the answer is \\boxed{4}."
HALVES = (RIGHT[:12], RIGHT[12:])
USAGE = {"prompt_tokens": 30, "completion_tokens": 7}
SSE = "Content-Type: text/event-stream"
CLOSE = "Connection: close"
Parts = list[bytes | float]  # bytes to send, seconds to wait


def head(*lines: str, version: str = "1.1", status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", *lines, "", ""]).encode()


def chunked(data: bytes, extension: str = "") -> bytes:
    return f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n"


def event(value: Any, end: bytes = b"\n\n") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return b"data: " + text + end


def delta(text: str | None = None, **choice: Any) -> dict[str, Any]:
    part = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": part, **choice}]}


STOP = delta(finish_reason="stop")
LAST = {"choices": [], "usage": USAGE}
DONE = event(b"[DONE]")
PLAIN = [delta(HALVES[0]), delta(HALVES[1]), STOP, LAST]
EVENTS = b"".join(map(event, PLAIN)) + DONE
WHOLE = {
    "choices": [{"index": 0, "message": {"content": RIGHT}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def stream(*events: Any, done: bool = True) -> Parts:
    """A plain chunked stream of events."""
    sent = b"".join(chunked(event(value)) for value in events)
    return [head(SSE, "Transfer-Encoding: chunked"), sent + chunked(DONE) * done, b"0\r\n\r\n"]


def closing(data: bytes, *lines: str, version: str = "1.1") -> Parts:
    """A body that ends where the connection does."""
    return [head(SSE, CLOSE, *lines, version=version), data]


def body(value: Any, *lines: str) -> Parts:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return [head("Content-Type: application/json", f"Content-Length: {len(data)}", *lines), data]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def bytewise(data: bytes) -> Parts:
    return [head(SSE, CLOSE), *(data[i : i + 1] for i in range(len(data)))]


MEMBERS = b"".join(gzip.compress(event(value)) for value in PLAIN) + gzip.compress(DONE)
LONGER = len(EVENTS) + 100

# A right answer in odd clothes.
TAKEN: dict[str, Parts] = {
    "carriage returns alone": closing(EVENTS.replace(b"\n", b"\r")),
    "carriage returns in two pieces": [
        head(SSE, CLOSE),
        *(piece for line in EVENTS.split(b"\n") for piece in (line + b"\r", 0.002, b"\n")),
    ],
    "one byte at a time": bytewise(EVENTS),
    "data over several lines": closing(
        b"".join(
            b"".join(
                b"data: " + line + b"\n" for line in json.dumps(v, indent=1).encode().split(b"\n")
            )
            + b"\n"
            for v in PLAIN
        )
        + DONE
    ),
    "no blank after the colon": closing(EVENTS.replace(b"data: ", b"data:")),
    "names, ids, retry": closing(EVENTS.replace(b"data:", b"id: 1\nevent: x\nretry: 5\ndata:")),
    "a byte order mark": closing(b"\xef\xbb\xbf" + EVENTS),
    "end marks twice and words behind": closing(EVENTS + DONE + b"bye\n\n"),
    "an end mark in quotes": closing(EVENTS.replace(b"[DONE]", b'"[DONE]" ')),
    "an end mark in small letters": closing(EVENTS.replace(b"[DONE]", b"[done]")),
    "open after the end mark": [head(SSE), EVENTS, 60.0],
    "open after the end mark, chunked": [
        head(SSE, "Transfer-Encoding: chunked"),
        chunked(EVENTS),
        60.0,
    ],
    "no last chunk": [head(SSE, "Transfer-Encoding: chunked"), chunked(EVENTS)],
    "longer by its header": [head(SSE, f"Content-Length: {LONGER}"), EVENTS],
    "HTTP/1.0": closing(EVENTS, version="1.0"),
    "extensions and trailers": [
        head(SSE, "Transfer-Encoding: chunked", "Trailer: X-Sum"),
        chunked(EVENTS, ";sig=a"),
        b"0;last\r\nX-Sum: 7\r\n\r\n",
    ],
    "100 and 103 before": [
        head(status="100 Continue"),
        head("Link: </x>", status="103 Early Hints"),
        *stream(*PLAIN),
    ],
    "gzip": closing(gzip.compress(EVENTS), "Content-Encoding: gzip"),
    "gzip in members": closing(MEMBERS, "Content-Encoding: gzip"),
    "deflate": closing(zlib.compress(EVENTS), "Content-Encoding: deflate"),
    "deflate, raw": closing(raw_deflate(EVENTS), "Content-Encoding: deflate"),
    "usage in the middle": stream(PLAIN[0], {**PLAIN[1], "usage": USAGE}, STOP),
    "usage in the middle, then null": stream(
        PLAIN[0], LAST, {**PLAIN[1], "usage": None}, {**STOP, "usage": {}}
    ),
    "choices in odd order": stream(
        {"choices": [{"index": 1, "delta": {"content": "no"}}, *PLAIN[0]["choices"]]},
        {"choices": [*PLAIN[1]["choices"], {"index": 1, "delta": {"content": "no"}}]},
        STOP,
        LAST,
    ),
    "indices as texts": stream(
        {"choices": [{"index": "0", "delta": {"content": RIGHT}}]},
        {"choices": [{"index": "1", "delta": {"content": "\\boxed{5}"}, "finish_reason": "stop"}]},
        {"choices": [{"index": "0", "delta": {}, "finish_reason": "stop"}]},
        LAST,
    ),
    "empty deltas": stream(
        delta(""), {"choices": [{"index": 0, "delta": None}]}, *PLAIN[:2], delta(""), STOP, LAST
    ),
    "finish reasons empty on the way": stream(
        delta(HALVES[0], finish_reason=""), delta(HALVES[1], finish_reason=None), STOP, LAST
    ),
    "all again at the end": stream(
        *PLAIN[:2],
        {"choices": [{"index": 0, "delta": {}, "message": {"content": RIGHT}}]},
        {"choices": [{"index": 0, "message": {"content": RIGHT}, "finish_reason": "stop"}]},
        LAST,
    ),
    "an empty error beside": stream(
        {**PLAIN[0], "error": {"message": None, "code": 0}}, *PLAIN[1:]
    ),
    "logprobs garbage": stream(
        delta(HALVES[0], logprobs=[1e308, {"x": "NaN"}]), delta(HALVES[1], logprobs="x"), STOP, LAST
    ),
    "a role, then tools of none": stream(
        delta("", role="assistant"), delta(RIGHT, tool_calls=[], refusal=None), STOP, LAST
    ),
    "keep-alives between": closing(EVENTS.replace(b"data:", b": ping\n\nevent: ping\n\ndata:")),
    "a slow first byte": [0.6, *stream(*PLAIN)],
    "called HTML": [head("Content-Type: text/html", CLOSE), EVENTS],
    "status 201": [head(SSE, CLOSE, status="201 Created"), EVENTS],
    "a body for a stream": body(WHOLE),
    "a body longer by its header": [
        head("Content-Length: 9999", CLOSE),
        json.dumps(WHOLE).encode(),
    ],
    "a body after blanks": body(b" \r\n\t" + json.dumps(WHOLE).encode()),
    "a body called HTML": [
        head("Content-Type: text/html", CLOSE),
        json.dumps(WHOLE).encode(),
    ],
    "JSON lines": closing(b"".join(json.dumps(value).encode() + b"\n" for value in PLAIN)),
    "a finish word of none": stream(PLAIN[0], delta(HALVES[1], finish_reason="None"), LAST),
}
CUT = b"".join(map(event, PLAIN[:2]))
BOTH = [{"message": f"no {KEY}"}, {"code": 500, "message": "\x1b[31mred\x07 \u202ebidi"}]
# No answer, or not a whole one.
BROKEN: dict[str, Parts] = {
    "cut in the middle": closing(CUT[:-9]),
    "shorter by its header": [head(SSE, "Content-Length: 20"), EVENTS],
    "a broken chunk size": [head(SSE, "Transfer-Encoding: chunked"), b"zz\r\n" + EVENTS],
    "half a letter": closing(event(b'{"choices": [{"delta": {"content": "\xc3"}}]}') + DONE),
    "brotli": closing(b"\x0b\x02\x80" + EVENTS, "Content-Encoding: br"),
    "gzip cut": closing(gzip.compress(EVENTS)[:-30], "Content-Encoding: gzip"),
    "an error in the middle": stream(*PLAIN[:2], {"error": BOTH[0]}),
    "an error as a list": stream(*PLAIN[:2], {"error": BOTH}),
    "an error event after the text": stream(*PLAIN[:2], {"error": BOTH[1]}, STOP, LAST),
    "an error beside the finish": stream(*PLAIN[:2], {**STOP, "error": BOTH[1]}),
    "only other choices": stream(
        {"choices": [{"index": 2, "delta": {"content": RIGHT}, "finish_reason": "stop"}]}, LAST
    ),
    "no protocol": [b"hello\r\n\r\n"],
    "nothing": [b""],
    "a header too long": [head(SSE, f"X-Long: {'x' * 200_000}"), EVENTS],
    "a truncated body": [head("Content-Length: 4000"), json.dumps(WHOLE).encode()[:-40]],
    "a body that stops": [head("Content-Length: 4000"), json.dumps(WHOLE).encode()[:-40], 60.0],
    "a stream that stops": [head(SSE), CUT, 60.0],
    "switching protocols": [head("Upgrade: h2c", status="101 Switching Protocols"), EVENTS],
}


def handler_of(parts: Parts) -> Callable[[HttpRequest, Reply], Any]:
    async def handler(request: HttpRequest, reply: Reply) -> None:
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            elif part:
                reply._writer.write(part)
                await reply._writer.drain()

    return handler


def run_against(cli: Cli, parts: Parts, *arguments: str) -> Any:
    with served(handler_of(parts)) as server:
        return cli(
            *("run", "demo_math", "--engine", "openai", "--model", "tiny", "--run-id", "odd"),
            *("--base-url", f"http://127.0.0.1:{server.port}/v1", "--repeats", "1"),
            *("--set", "engine.first_wait_seconds=0", "--set", "engine.longest_wait_seconds=0"),
            *("--set", "engine.max_retries=1", "--set", "engine.idle_timeout_seconds=2"),
            *("--set", "engine.concurrency=16", "--limit", "4", *arguments),
            G4EVAL_API_KEY=KEY,
        )


def check_nothing_is_shown(folder: Path, said: str) -> None:
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert KEY not in said
    assert KEY.encode() not in files
    assert not any(sign in said for sign in "\x1b\x07\u202e")


@pytest.mark.parametrize("name", TAKEN)
def test_a_right_answer_in_odd_clothes_is_taken_whole(
    name: str, quick_cli: Cli, tmp_path: Path
) -> None:
    result = run_against(quick_cli, TAKEN[name])
    assert result.returncode == 0, result.stdout + result.stderr
    with RunReader(tmp_path / "runs" / "odd") as run:
        answers = list(run.completions("demo_math"))
        assert not run.failed("demo_math")
    assert [completion.text for completion in answers] == [RIGHT] * 4
    assert {completion.completion_tokens for completion in answers} <= {7, None}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_answer_is_never_graded(name: str, quick_cli: Cli, tmp_path: Path) -> None:
    result = run_against(quick_cli, BROKEN[name])
    said = result.stdout + result.stderr
    assert result.returncode == 5, said
    with RunReader(tmp_path / "runs" / "odd") as run:
        assert not list(run.completions("demo_math"))
    check_nothing_is_shown(tmp_path, said)
