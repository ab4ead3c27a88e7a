"""One server over httpx: its address and key kept apart, its failures given names.

What is kept secret: the API key, and the user, password and query parts of the address. They reach
the server, and no message, log line or repr; a server that echoes one is quoted without it. What is
not covered: what the server itself logs.
"""

import itertools
import logging
import math
import resource
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from g4eval.engines.openai_stream import AnswerParts, EventDecoder, parse_json_object
from g4eval.engines.retry import Failure, RequestFailedError, failure_from_answer
from g4eval.engines.server_facts import public_address
from g4eval.errors import ConfigError

# httpx looks at each of a client's connections for each request: many small clients are faster.
CONNECTIONS_A_CLIENT = 64
_SPARE_FILES = 256  # beside the connections: the store, logs, libraries


class ServerConnection:
    """Sends requests to one server; an async context manager.

    Args:
        base_url: the API's address, ending in /v1 as a rule; may hold user, password and query.
        api_key: sent as a bearer token, unless the address holds a user.
        connections: how many may be open at once.
        idle_timeout_seconds: silence longer than this is a broken connection.
        connect_timeout_seconds: for opening a connection.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        connections: int,
        idle_timeout_seconds: float,
        connect_timeout_seconds: float,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "the server's address doesn't start with http:// or https:// and a host",
                where="--base-url",
                hint="for example --base-url http://127.0.0.1:8000/v1",
            )
        self.address = public_address(base_url)
        query = dict(parse_qsl(parts.query))
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self._secrets = sorted(
            {s for s in (api_key, user, password, *query.values()) if s}, key=len, reverse=True
        )
        self._connections = connections
        self._idle_timeout_seconds = idle_timeout_seconds
        use_key = api_key and not user
        tls = httpx.create_ssl_context()  # reading the certificates once is enough
        self._clients = [
            httpx.AsyncClient(
                base_url=self.address,
                params=query,
                auth=(user, password) if user else None,
                headers={"Authorization": f"Bearer {api_key}"} if use_key else {},
                timeout=httpx.Timeout(
                    idle_timeout_seconds, connect=connect_timeout_seconds, pool=None
                ),
                limits=httpx.Limits(max_connections=None),
                verify=tls,
            )
            for _ in range(math.ceil(connections / CONNECTIONS_A_CLIENT))
        ]
        self._in_turn = itertools.cycle(self._clients)

    async def __aenter__(self) -> "ServerConnection":
        _allow_open_files(self._connections + _SPARE_FILES)
        for name in ("httpx", "httpcore"):  # they log addresses with their query
            logging.getLogger(name).setLevel(logging.WARNING)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()

    async def get_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`, relative to the API's address or absolute."""
        async with self._opened("GET", path) as response:
            return _json_object(response, await response.aread())

    async def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object that answers `body`."""
        async with self._opened("POST", path, body) as response:
            return _json_object(response, await response.aread())

    async def post(self, path: str, body: Mapping[str, Any]) -> AnswerParts:
        """Return the whole answer to `body`, streamed or not, as the server likes."""
        parts = AnswerParts()
        async with self._opened("POST", path, body) as response:
            if not _is(response, "text/event-stream"):
                _require_json(response, data := await response.aread())
                parts.add_body(data)
                parts.is_done = True
                return parts
            decoder = EventDecoder()
            async for chunk in response.aiter_bytes():
                for event in decoder.feed(chunk):
                    parts.add_event(event)
            for event in decoder.end():
                parts.add_event(event)
        if not parts.is_complete():
            raise RequestFailedError(Failure.BROKEN, "the stream was cut before its end")
        return parts

    def hide_secrets(self, text: str) -> str:
        """Return `text` without the key and the secret parts of the address."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send, and give the answer's head; raises RequestFailedError alone, without secrets."""
        try:
            with self._named_failures():
                async with next(self._in_turn).stream(method, path, json=body) as response:
                    if response.status_code >= 300:
                        raise failure_from_answer(
                            response.status_code,
                            (await response.aread()).decode("utf-8", "replace"),
                            response.headers.get("retry-after"),
                            now=datetime.now(UTC),
                        )
                    yield response
        except RequestFailedError as error:
            error.message = self.hide_secrets(error.message)
            raise

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise RequestFailedError(
                Failure.UNREACHABLE, f"can't connect: {_words(error)}"
            ) from error
        except httpx.ReadTimeout as error:
            raise RequestFailedError(
                Failure.BROKEN, f"no byte for {self._idle_timeout_seconds:g} s"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise RequestFailedError(
                Failure.BROKEN, f"the connection broke: {_words(error)}"
            ) from error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _json_object(response: httpx.Response, data: bytes) -> dict[str, Any]:
    _require_json(response, data)
    return parse_json_object(data)


def _require_json(response: httpx.Response, data: bytes) -> None:
    if _is(response, "text/html"):
        raise RequestFailedError(
            Failure.BROKEN,
            f"the server sent HTML, not JSON: {data[:80].decode('utf-8', 'replace')!r}",
        )


def _is(response: httpx.Response, media_type: str) -> bool:
    return bool(response.headers.get("content-type", "").lower().startswith(media_type))


def _allow_open_files(count: int) -> None:
    """Raise the soft limit on open files, since each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ConfigError(
            f"{count} open files are needed and this process may have {hard}",
            where="--set engine.concurrency",
            hint=f"lower it to {max(1, hard - _SPARE_FILES)}, or raise the limit (ulimit -Hn)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
