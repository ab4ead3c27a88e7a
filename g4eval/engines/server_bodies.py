"""Read the body of an answer piece by piece, within bounds, unpacked as it comes.

A small compressed body may hold a very large one: no more is unpacked at a time than a piece, and
whoever reads counts the bytes. Servers are asked for plain bodies; gzip and
deflate are read anyway.
"""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

import httpx

from g4eval.engines.retry import Failure, RequestFailedError

_PIECE_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_BLANK = b" \t\r\n\xef\xbb\xbf"  # before a body; a byte order mark is one


def decoded(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body's bytes, unpacked piece by piece; raises RequestFailedError where none can."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return response.aiter_raw()  # type: ignore[return-value]  # a generator, typed as iterator
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise RequestFailedError(Failure.BROKEN, f"content coding {coding[:40]!r} is not read here")
    return _unpacked(response, may_be_bare=coding == "deflate")


async def _unpacked(response: httpx.Response, *, may_be_bare: bool) -> AsyncGenerator[bytes, None]:
    """Yield what the pieces of one or more packed streams in a row hold."""
    unpacker = None
    rest = b""
    async for chunk in response.aiter_raw():
        rest += chunk
        while len(rest) >= 2 or (rest and unpacker is not None and not unpacker.eof):
            if unpacker is None:
                unpacker = zlib.decompressobj(_window(rest, may_be_bare=may_be_bare))
            elif unpacker.eof:
                if rest[:2] != _GZIP:
                    return  # padding
                unpacker = zlib.decompressobj(_GZIP_WINDOW)
            piece = unpacker.decompress(rest, _PIECE_BYTES)
            rest = unpacker.unconsumed_tail or unpacker.unused_data
            if piece:
                yield piece


def _window(first: bytes, *, may_be_bare: bool) -> int:
    """Return zlib's `wbits` for a stream of these first bytes: gzip, zlib, or deflate alone."""
    if first[:2] == _GZIP:
        return _GZIP_WINDOW
    is_zlib = first[0] & 15 == 8 and int.from_bytes(first[:2], "big") % 31 == 0
    return -zlib.MAX_WBITS if may_be_bare and not is_zlib else zlib.MAX_WBITS


async def first_bytes(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the first chunks up to one that isn't blank."""
    async for chunk in chunks:
        if head := chunk.lstrip(_BLANK):
            return head
    return b""


async def read_rest(
    head: bytes,
    chunks: AsyncIterator[bytes],
    most: int,
    on_piece: Callable[[], None] = lambda: None,
) -> bytes:
    """Return `head` and all that follows; raises RequestFailedError past so many bytes.

    Where the server ends the connection before the length that it stated, what came is returned:
    whoever parses it sees whether it is whole.
    """
    pieces, n_bytes = [head], len(head)
    on_piece()
    with suppress(httpx.RemoteProtocolError, httpx.ReadError):
        async for chunk in chunks:
            pieces.append(chunk)
            on_piece()
            n_bytes += len(chunk)
            if n_bytes > most:
                raise RequestFailedError(Failure.BROKEN, f"an answer of over {most:,} bytes")
    return b"".join(pieces)


async def read_body(response: httpx.Response, most: int) -> bytes:
    """Return a whole body; raises RequestFailedError past so many bytes."""
    return await read_rest(b"", decoded(response), most)
