"""The server's stream to the host, through memory that forked children don't get.

Standard library only.
"""

import mmap
import os
import struct
from collections.abc import Sequence

HEADER = struct.Struct(">cI")  # kind, length of the payload
_KEPT_BYTES = 1 << 20
_MAX_PARTS = 512  # the kernel takes 1,024 at once


class Buffer:
    """Memory that children don't inherit: what only passes through here is out of their reach."""

    def __init__(self) -> None:
        self._make(_KEPT_BYTES)

    def at_least(self, size: int) -> memoryview:
        """Return the whole buffer, grown to `size` bytes if need be; growing drops the content."""
        if size > len(self.view):
            self._make(size)
        return self.view

    def move_to_front(self, start: int, end: int) -> int:
        """Move bytes start..end to the front; return how many there are."""
        if start:
            self._map.move(0, start, end - start)
        return end - start

    def _make(self, size: int) -> None:
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_DONTFORK)
        self.view = memoryview(self._map)

    def release(self, used: int) -> None:
        """Give the pages back that a long frame took."""
        if used > _KEPT_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)


class Channel:
    """The host's side: frames over two descriptors that children don't inherit."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.buffer = Buffer()

    def read(self) -> tuple[bytes, memoryview] | None:
        """Return the next frame, its payload in the buffer; None at the end of the stream."""
        header = bytearray(HEADER.size)
        if not self._fill(memoryview(header)):
            return None
        kind, length = HEADER.unpack(header)
        payload = self.buffer.at_least(length)[:length]
        return (kind, payload) if self._fill(payload) else None

    def write(
        self, kind: bytes, payload: bytes, *, before: Sequence[bytes | memoryview] = ()
    ) -> None:
        """Send one frame, after others that are ready."""
        self.send([*before, HEADER.pack(kind, len(payload)), payload])

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send whole frames, in as few writes as the kernel takes."""
        pending = [memoryview(part) for part in parts if part]
        done = 0
        while done < len(pending):
            sent = os.writev(self.sink, pending[done : done + _MAX_PARTS])
            while done < len(pending) and sent >= len(pending[done]):
                sent -= len(pending[done])
                done += 1
            if sent:
                pending[done] = pending[done][sent:]

    def _fill(self, view: memoryview) -> bool:
        while view:
            size = os.readv(self.source, [view])
            if not size:
                return False
            view = view[size:]
        return True
