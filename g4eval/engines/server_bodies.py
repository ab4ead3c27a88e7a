"""Read the body of an answer piece by piece, within bounds, unpacked as it comes.

A small compressed body may hold a very large one: no more is unpacked at a time than a piece, and
whoever reads counts the bytes. Servers are asked for plain bodies; gzip and zlib are read anyway.
"""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx

from g4eval.engines.retry import Failure, RequestFailedError

_PIECE_BYTES = 2**20
_BLANK = b" \t\r\n\xef\xbb\xbf"  # before a body; a byte order mark is one


def decoded(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body's bytes, unpacked piece by piece; raises RequestFailedError where none can."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return response.aiter_raw()  # type: ignore[return-value]  # a generator, typed as iterator
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise RequestFailedError(Failure.BROKEN, f"content coding {coding[:40]!r} is not read here")
    return _unpacked(response)


async def _unpacked(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, as its first bytes say
    async for chunk in response.aiter_raw():
        rest = chunk
        while rest:
            piece = unpacker.decompress(rest, _PIECE_BYTES)
            rest = unpacker.unconsumed_tail
            if piece:
                yield piece
            elif not rest:
                break


async def first_bytes(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the first chunks up to one that isn't blank."""
    async for chunk in chunks:
        if head := chunk.lstrip(_BLANK):
            return head
    return b""


async def read_rest(head: bytes, chunks: AsyncIterator[bytes], most: int) -> bytes:
    """Return `head` and all that follows; raises RequestFailedError past so many bytes."""
    pieces, n_bytes = [head], len(head)
    async for chunk in chunks:
        pieces.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > most:
            raise RequestFailedError(Failure.BROKEN, f"an answer of over {most:,} bytes")
    return b"".join(pieces)


async def read_body(response: httpx.Response, most: int) -> bytes:
    """Return a whole body; raises RequestFailedError past so many bytes."""
    return await read_rest(b"", decoded(response), most)
