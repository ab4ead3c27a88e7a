"""One server over httpx: its address and key kept apart, its failures given names.

What is kept secret: the API key, header values, and the user, password and query parts of the
address. They reach the server, and no message, log line or repr; a server that echoes one is quoted
without it, in whatever form `server_secrets.py` knows. What is not covered: what the server itself
logs.

Everything read here is read within the bounds of `server_json.py`, compressed bodies included, and
within the clocks of `server_clocks.py`.
"""

import asyncio
import itertools
import logging
import math
import os
import resource
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from g4eval.engines.openai_stream import AnswerParts, EventDecoder
from g4eval.engines.retry import Failure, RequestFailedError, failure_from_answer
from g4eval.engines.server_address import Address, parse_address, server_root
from g4eval.engines.server_bodies import decoded, first_bytes, read_body, read_rest
from g4eval.engines.server_clocks import AnswerClock, ServerPulse
from g4eval.engines.server_json import (
    BODY_BYTES,
    ERROR_BYTES,
    HELPER_SECONDS,
    SCORES_BYTES,
    parse_json,
    parse_json_object,
    printable,
)
from g4eval.engines.server_secrets import Secrets
from g4eval.errors import ConfigError

_T = TypeVar("_T")

# httpx looks at each of a client's connections for each request: many small clients are faster.
CONNECTIONS_A_CLIENT = 64
_SPARE_FILES = 256  # beside the connections: the store, logs, libraries
_FEWEST_SPARE_FILES = 48  # a run gets by with these
_REDIRECTS = 5
_SECONDS_BEHIND_THE_END = 1.0  # of a stream, until the connection is given up
_STREAM_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """How one server is reached, and for how long it may be silent."""

    connections: int  # how many may be open at once
    queue_timeout_seconds: float  # before the first byte of an answer
    idle_timeout_seconds: float  # between two bytes of it
    connect_timeout_seconds: float  # for opening a connection
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # of the user


class ServerConnection:
    """Sends requests to one server; an async context manager.

    Args:
        base_url: the API's address, ending in /v1 as a rule; may hold user, password and query.
        api_key: sent as a bearer token, unless the address holds a user.
        options: see ConnectionOptions.
        more_secrets: values that go out in bodies and must not be shown.
        on_progress: hears how many pieces of an answer came.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        options: ConnectionOptions,
        more_secrets: frozenset[str] = frozenset(),
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        parsed = parse_address(base_url)
        self.address = parsed.public
        login = f"{parsed.user}:{parsed.password}" if parsed.user else ""
        values = {value for _, value in parsed.query}
        self.secrets = Secrets(
            {api_key or "", parsed.user, parsed.password, login}
            | values
            | set(options.headers.values())
            | {value.partition(" ")[2] for value in options.headers.values()}
            | more_secrets
        )
        self._options = options
        self._on_progress = on_progress
        self._clients = _make_clients(parsed, api_key, options)
        self._in_turn = itertools.cycle(self._clients)
        self._pulse = ServerPulse(
            self._is_healthy, idle_timeout_seconds=options.idle_timeout_seconds
        )

    async def __aenter__(self) -> "ServerConnection":
        _allow_open_files(self._options.connections)
        for name in ("httpx", "httpcore"):  # they log addresses with their query
            logging.getLogger(name).setLevel(logging.WARNING)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pulse.stop()
        for client in self._clients:
            await client.aclose()

    async def get_json(self, path: str) -> Any:
        """Return the JSON value at `path`, relative to the API's address or absolute."""
        return await self._ask("GET", path, None, parse_json)

    async def get_text(self, path: str) -> str:
        """Return the text at `path`."""
        return await self._ask("GET", path, None, lambda data: data.decode("utf-8", "replace"))

    async def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object that answers `body`, a question about the server itself."""
        return await self._ask("POST", path, body, parse_json_object)

    async def post_for_scores(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object that answers `body` in its own time."""
        async with self._clock(), self._opened("POST", path, body) as response:
            return parse_json_object(await read_body(response, SCORES_BYTES))

    async def post(self, path: str, body: Mapping[str, Any]) -> AnswerParts:
        """Return the whole answer to `body`, streamed or not, as the server likes."""
        async with self._clock() as clock, self._opened("POST", path, body) as response:
            chunks = decoded(response)
            try:
                head = await first_bytes(chunks)
                if head[:1] in (b"{", b"["):
                    return _one_body(await read_rest(head, chunks, BODY_BYTES, clock.data))
                is_stream = head.startswith(_STREAM_BEGINNINGS)
                if head[:1] == b"<" or (_is(response, "text/html") and not is_stream):
                    raise _html(head)
                return await self._read_stream(head, chunks, clock)
            finally:
                await chunks.aclose()

    async def _read_stream(
        self, head: bytes, chunks: AsyncIterator[bytes], clock: AnswerClock
    ) -> AnswerParts:
        parts, decoder = AnswerParts(), EventDecoder()

        def take(chunk: bytes) -> bool:
            n_events = 0
            for event in decoder.feed(chunk):
                n_events += parts.add_event(event)
            if n_events:
                clock.data()
                self._on_progress(n_events)
            elif decoder.has_begun_data:
                clock.data()
            return parts.is_done

        if not take(head):
            async for chunk in chunks:
                if take(chunk):
                    break
        if parts.is_done:
            await self._read_end(chunks)
        for event in decoder.end():
            parts.add_event(event)
        return parts

    async def _read_end(self, chunks: AsyncIterator[bytes]) -> None:
        """Read what follows an end mark, so that the connection is used again; for a moment only.

        The answer is whole: some servers leave the connection open, or break it now.
        """
        seconds = min(_SECONDS_BEHIND_THE_END, self._options.idle_timeout_seconds / 2)
        with suppress(httpx.HTTPError, httpx.StreamError, OSError, zlib.error):
            async with asyncio.timeout(seconds):  # TimeoutError is an OSError
                async for _ in chunks:
                    pass

    def hide_secrets(self, text: str) -> str:
        """Return a message on one line, without the key and the other secrets."""
        return printable(self.secrets.hide(text))

    def _clock(self) -> AnswerClock:
        return AnswerClock(
            self._pulse,
            queue_timeout_seconds=self._options.queue_timeout_seconds,
            idle_timeout_seconds=self._options.idle_timeout_seconds,
        )

    async def _is_healthy(self) -> bool:
        """Whether the server answers at all: 502 and 504 are a gateway's words about it."""
        url = server_root(self.address) + "/health"
        try:
            async with (
                asyncio.timeout(self._options.idle_timeout_seconds),
                self._clients[0].stream("GET", url) as response,
            ):
                return response.status_code not in (502, 504)
        except (httpx.HTTPError, httpx.StreamError, OSError, TimeoutError):
            return False

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        parse: Callable[[bytes], _T],
    ) -> _T:
        seconds = min(HELPER_SECONDS, self._options.idle_timeout_seconds)
        try:
            async with asyncio.timeout(seconds), self._opened(method, path, body) as response:
                data = await read_body(response, BODY_BYTES)
                if _is(response, "text/html"):
                    raise _html(data)
                return parse(data)
        except TimeoutError:
            raise RequestFailedError(
                Failure.BROKEN, f"no whole answer within {seconds:g} s"
            ) from None

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send, and give the answer's head; raises RequestFailedError alone, without secrets."""
        client = next(self._in_turn)
        try:
            with self._named_failures():
                for _ in range(_REDIRECTS):
                    async with client.stream(method, path, json=body) as response:
                        onward = self._redirect(method, response)
                        if onward is None:
                            if response.status_code >= 300:
                                raise await _failure_of(response)
                            yield response
                            return
                    path = onward
                raise _endless_redirect()
        except RequestFailedError as error:
            error.message = self.hide_secrets(error.message)
            raise

    def _redirect(self, method: str, response: httpx.Response) -> str | None:
        """Return where a redirect leads that may be followed: on the same host, as it was sent."""
        statuses = (301, 302, 303, 307, 308) if method == "GET" else (307, 308)
        if response.status_code not in statuses or "location" not in response.headers:
            return None
        try:
            target = response.request.url.join(response.headers["location"])
        except (httpx.InvalidURL, ValueError):
            return None
        here = response.request.url
        is_upgrade = (here.scheme, target.scheme) == ("http", "https")
        same_port = target.port == here.port or is_upgrade
        if target.host != here.host or not same_port or target.scheme not in ("http", "https"):
            return None
        return str(target)

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Map whatever the client, the network or TLS raises: the one boundary of its kind."""
        try:
            yield
        except RequestFailedError:
            raise
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise RequestFailedError(
                Failure.UNREACHABLE, f"can't connect: {_words(error)}"
            ) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise RequestFailedError(
                Failure.REFUSED, f"the address can't be used: {_words(error)}"
            ) from error
        except (httpx.HTTPError, httpx.StreamError, OSError, zlib.error) as error:
            raise RequestFailedError(
                Failure.BROKEN, f"the connection broke: {_words(error)}"
            ) from error


def _make_clients(
    address: Address, api_key: str | None, options: ConnectionOptions
) -> list[httpx.AsyncClient]:
    """Return the clients; raises ConfigError where the machine's settings can't be used."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "g4eval"}
    if api_key and not address.user:
        headers["Authorization"] = f"Bearer {api_key}"
    headers = {k: v for k, v in headers.items() if k.lower() not in map(str.lower, options.headers)}
    try:
        tls = httpx.create_ssl_context()  # reading the certificates once is enough
    except (OSError, ssl.SSLError, ValueError) as error:
        named = [name for name in _CERTIFICATES if os.environ.get(name)]
        raise ConfigError(
            f"the certificates can't be read: {_words(error)}",
            where=" ".join(f"{name}={os.environ[name]}" for name in named) or None,
            hint=f"put {' and '.join(named)} right, or unset it" if named else None,
        ) from error
    idle = options.idle_timeout_seconds
    timeout = httpx.Timeout(None, connect=options.connect_timeout_seconds, write=idle, pool=None)
    try:
        return [
            httpx.AsyncClient(
                base_url=address.public,
                params=list(address.query),
                auth=(address.user, address.password) if address.user else None,
                headers={**headers, **options.headers},
                timeout=timeout,
                limits=httpx.Limits(max_connections=None),
                verify=tls,
                proxy=address.proxy(),
                trust_env=False,  # of the environment only what was read above
            )
            for _ in range(math.ceil(options.connections / CONNECTIONS_A_CLIENT))
        ]
    except (ValueError, TypeError, ImportError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"the proxy that the environment names can't be used: {type(error).__name__}",
            where="HTTP_PROXY, HTTPS_PROXY or ALL_PROXY",
            hint=f"it begins with http://, https:// or socks5:// (that one needs "
            f"pip install 'httpx[socks]'); or set NO_PROXY={address.host}",
        ) from error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _failure_of(response: httpx.Response) -> RequestFailedError:
    data = b""
    async for chunk in decoded(response):
        data += chunk
        if len(data) >= ERROR_BYTES:
            break
    status, place = response.status_code, response.headers.get("location")
    failure = failure_from_answer(
        status,
        data[:ERROR_BYTES].decode("utf-8", "replace"),
        response.headers.get("retry-after"),
        now=datetime.now(UTC),
    )
    if 300 <= status < 400 and place:
        failure.message = f"HTTP {status}: the server sends us on to {place[:200]}"
    return failure


def _one_body(data: bytes) -> AnswerParts:
    """Read one JSON object, or a stream that has one a line and no more."""
    parts = AnswerParts()
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        for line in lines:
            parts.add_event(line)
    else:
        parts.add_body(data)
        parts.is_done = True
    return parts


def _endless_redirect() -> RequestFailedError:
    return RequestFailedError(Failure.REFUSED, "the server redirects in a circle")


def _html(data: bytes) -> RequestFailedError:
    start = data[:80].decode("utf-8", "replace")
    return RequestFailedError(Failure.BROKEN, f"the server sent HTML, not JSON: {start!r}")


def _is(response: httpx.Response, media_type: str) -> bool:
    return bool(response.headers.get("content-type", "").lower().startswith(media_type))


def _allow_open_files(connections: int) -> None:
    """Raise the soft limit on open files, since each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted, least = connections + _SPARE_FILES, connections + _FEWEST_SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < least:
        room = hard - _FEWEST_SPARE_FILES
        lower = f"lower it to {room}, or " if room >= 1 else ""
        raise ConfigError(
            f"{least} open files are needed and this process may have {hard}",
            where="--set engine.concurrency",
            hint=f"{lower}raise the limit (ulimit -Hn)",
        )
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
