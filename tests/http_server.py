"""A real HTTP server on the loopback interface, whose every byte a test decides.

`async with HttpServer(handler) as server:` then send to `server.base_url`. The handler is called
for each request that `models` doesn't answer.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    method: str
    path: str
    query: str
    headers: dict[str, str]  # names in lower case
    body: Any  # parsed JSON; None without a body

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"] if "messages" in self.body else ""


class Reply:
    """Writes one answer; a stream is chunked, so that a cut is seen as one."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.is_whole = False

    async def send(
        self,
        body: bytes,
        *,
        status: int = 200,
        media_type: str = "application/json",
        **headers: str,
    ) -> None:
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self._writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\n{extra}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await self._writer.drain()
        self.is_whole = True

    async def json(self, value: Any, *, status: int = 200, **headers: str) -> None:
        await self.send(json.dumps(value).encode(), status=status, **headers)

    async def error(self, status: int, message: str, **headers: str) -> None:
        await self.json({"error": {"message": message}}, status=status, **headers)

    async def start_stream(self) -> None:
        self._writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def raw(self, data: bytes) -> None:
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._writer.drain()

    async def event(self, value: Any) -> None:
        await self.raw(b"data: " + json.dumps(value).encode() + b"\n\n")

    async def delta(self, content: str | None = None, **fields: Any) -> None:
        """One chunk of a chat stream; every field goes to its place."""
        choice: dict[str, Any] = {
            "delta": {"content": content} if content is not None else {},
            **{k: fields.pop(k) for k in ("finish_reason", "token_ids") if k in fields},
        }
        usage = {"usage": fields.pop("usage")} if "usage" in fields else {}
        choice["delta"].update(fields)
        await self.event({"choices": [choice], **usage})

    async def end_stream(self, *, done: bool = True) -> None:
        if done:
            await self.raw(b"data: [DONE]\n\n")
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        self.is_whole = True

    async def answer(self, text: str, *, finish_reason: str = "stop", **fields: Any) -> None:
        """A good streamed answer."""
        await self.start_stream()
        await self.delta(text, **fields)
        await self.delta(finish_reason=finish_reason)
        await self.end_stream()


Handler = Callable[[HttpRequest, Reply], Awaitable[None]]


class HttpServer:
    """Serves until the block ends.

    Args:
        handler: answers one request; what it leaves unfinished is cut.
        models: what `/models` lists; None: the handler answers that too.
        port: 0 takes any free one.
        tls: with a certificate; None: plain HTTP.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        models: list[dict[str, Any]] | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._handler = handler
        self._models = [{"id": "tiny"}] if models is None else models
        self._port = port
        self._tls = tls
        self.requests: list[HttpRequest] = []
        self.n_open = 0
        self.most_open = 0

    async def __aenter__(self) -> "HttpServer":
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, backlog=4096, limit=2**20, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._connections: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def base_url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read_request(reader)) is not None:
                reply = Reply(writer)
                await self._dispatch(request, reply)
                if not reply.is_whole:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _dispatch(self, request: HttpRequest, reply: Reply) -> None:
        if request.path == "/v1/models" and self._models:
            await reply.json({"object": "list", "data": self._models})
        elif request.method == "GET" and self._models:
            await reply.error(404, "Not Found")
        else:
            self.requests.append(request)
            self.n_open += 1
            self.most_open = max(self.most_open, self.n_open)
            try:
                await self._handler(request, reply)
            finally:
                self.n_open -= 1


async def read_head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]]:
    """The method, target and headers of the next request, its body read and dropped."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", 0)))
    return method, target, headers


async def _read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    path, _, query = target.partition("?")
    return HttpRequest(
        method=method,
        path=path,
        query=query,
        headers=headers,
        body=json.loads(body) if body else None,
    )
