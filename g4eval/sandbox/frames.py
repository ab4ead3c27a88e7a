"""Frames over a container's attach stream: a kind byte, a 4-byte big-endian length, the payload.

Docker wraps what the container writes into chunks of its own; `FrameStream` unwraps them. What
comes out of the container is never trusted: lengths are capped, and only bytes are made of it here.
"""

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

HEADER = struct.Struct(">cI")
_CHUNK = struct.Struct(">BxxxI")  # Docker's own: stream number, length
_STDOUT = 1
_RECEIVE_BYTES = 1 << 20
_LOOK_SECONDS = 1.0


class StreamError(Exception):
    """The stream ended, fell silent or carried something out of turn."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    kind: bytes
    payload: bytes


class FrameStream:
    """Both directions of one container's stream; used by one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._is_shut = False
        self._chunks = bytearray()  # as received, Docker's headers included
        self._data = bytearray()  # unwrapped, not yet a whole frame

    def shut(self) -> None:
        """End both directions; a thread that waits in `receive` gets its StreamError."""
        self._is_shut = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, kind: bytes, payload: bytes, *, timeout_seconds: float) -> None:
        """Send one frame, or raise StreamError."""
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.sendall(HEADER.pack(kind, len(payload)) + payload)
        except OSError as error:
            raise StreamError(f"the container doesn't take input: {error}") from error

    def receive(self, *, timeout_seconds: float, max_bytes: int) -> Frame:
        """Return the next frame; StreamError at the end, on silence, on a frame too long."""
        deadline = time.monotonic() + timeout_seconds
        size = HEADER.size
        while len(self._data) < size:
            self._fill(deadline)
        kind, length = HEADER.unpack_from(self._data)
        if length > max_bytes:
            raise StreamError(f"a frame of {length} bytes, where at most {max_bytes} may come")
        size += length
        while len(self._data) < size:
            self._fill(deadline)
        payload = bytes(self._data[HEADER.size : size])
        del self._data[:size]
        return Frame(kind, payload)

    def _fill(self, deadline: float) -> None:
        piece = self._receive_some(deadline)
        if not piece:
            raise StreamError("the container ended")
        self._chunks += piece
        self._unwrap()

    def _receive_some(self, deadline: float) -> bytes:
        """Return what comes next; looks up every second, since `shut` may not wake a reader."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or self._is_shut:
                raise StreamError("the container fell silent")
            try:
                self._socket.settimeout(min(left, _LOOK_SECONDS))
                return self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError:
                continue
            except OSError as error:
                raise StreamError(f"the container fell silent: {error}") from error

    def _unwrap(self) -> None:
        start = 0
        while len(self._chunks) - start >= _CHUNK.size:
            stream, length = _CHUNK.unpack_from(self._chunks, start)
            end = start + _CHUNK.size + length
            if len(self._chunks) < end:
                break
            if stream == _STDOUT:
                self._data += self._chunks[start + _CHUNK.size : end]
            start = end
        del self._chunks[:start]
