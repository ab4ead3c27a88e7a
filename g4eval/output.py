r"""The border of what goes out: nothing that a model or a server wrote may steer a terminal.

Covered: everything printed on stdout and stderr, whoever prints it, since the entry point puts
`SafeStream` in their place. Control characters (ESC and the rest of C0 and C1, DEL), direction
marks, line separators that aren't `\n` and lone surrogates are shown as `\u001b` and the like, and
JSON reads that back as what it stands for. Files keep texts as they are; JSON lines escape them.
Not covered: what an engine's own library writes to the process's descriptors by itself.
"""

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from g4eval.errors import NotReadyError, StoreError

# Kept: newline, tab, and a carriage return that only belongs to a newline. One class of characters,
# which the engine searches for many times as fast as for one of several things.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Return the text with what would steer a terminal written as `\uXXXX`."""
    line = text.removesuffix("\n")
    if line.isprintable():  # quick, and true of most lines
        return text
    return text if _UNSAFE.search(text) is None else _UNSAFE.sub(_escaped, text)


def safe_json(line: str) -> str:
    """Return JSON that UTF-8 can hold and a terminal can show; it reads back the same."""
    if line.isascii() and "\x7f" not in line:  # json has escaped the other control characters
        return line
    return visible(line)


def _escaped(match: re.Match[str]) -> str:
    if match[0] == "\r" and match.string.startswith("\n", match.end()):
        return "\r"
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


class SafeStream(io.TextIOBase):
    """A text stream that shows what it is given and obeys none of it.

    Raises NotReadyError where the stream is closed or its device is full; BrokenPipeError, where
    its reader has gone, passes.
    """

    def __init__(self, stream: TextIO | None, name: str, *, must_arrive: bool = True) -> None:
        super().__init__()
        self._stream = stream
        self._name = name
        self._must_arrive = must_arrive  # False: what can't be said is dropped
        self.reader_has_gone = False

    @property
    def raw(self) -> TextIO | None:
        """The stream itself, for colours and cursor movements of our own."""
        return self._stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # read-only here
        """How the stream treats what its encoding can't hold."""
        return getattr(self._stream, "errors", None)

    @property
    def buffer(self) -> IO[bytes]:
        """The bytes below."""
        return self._there().buffer

    def write(self, text: str) -> int:
        """Write what is safe to show."""
        self.write_safe(visible(text))
        return len(text)

    def write_safe(self, shown: str) -> None:
        """Write what was made safe already."""
        try:
            try:
                self._there().write(shown)
            except UnicodeEncodeError:
                encoding = self.encoding
                self._there().write(shown.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            self.reader_has_gone = True
            raise
        except (OSError, ValueError, NotReadyError) as error:
            self._failed(error)

    def flush(self) -> None:
        """Flush, or say that the device is full."""
        if self._stream is None or self._stream.closed:
            return
        try:
            self._stream.flush()
        except BrokenPipeError:
            self.reader_has_gone = True
            raise
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """Leave the stream below to its owner; nothing is held back here."""

    def isatty(self) -> bool:
        """Whether people look at it."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor below."""
        return self._there().fileno()

    def writable(self) -> bool:
        """Text can be written to it."""
        return True

    def _there(self) -> TextIO:
        if self._stream is None:
            raise NotReadyError(f"{self._name} is closed", hint="leave it open, or name a file")
        return self._stream

    def _failed(self, error: Exception) -> None:
        if not self._must_arrive:
            return
        if isinstance(error, NotReadyError):
            raise error
        reason = getattr(error, "strerror", None) or str(error)
        raise NotReadyError(f"{self._name} can't be written: {reason}") from error


def raw(stream: Any) -> TextIO:
    """Return the stream below a SafeStream, for our own colours."""
    below = stream.raw if isinstance(stream, SafeStream) else None
    return stream if below is None else below


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write; in the end it takes the place of `path`, whole or not at all.

    Only a regular file, or nothing, is replaced. A device, a pipe or a link is written through: it
    stays what it is. Raises StoreError where `path` can't be written.
    """
    is_plain = not path.is_symlink() and (path.is_file() or not path.exists())
    if is_plain and path.exists() and not os.access(path.parent, os.W_OK):
        is_plain = False  # the file may be written, and nothing beside it
    folder = path.parent if is_plain else Path(tempfile.gettempdir())
    draft: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=".g4eval-", suffix=".part", dir=folder)
        os.close(descriptor)
        draft = Path(name)
        yield draft
        if is_plain:
            draft.chmod(_mode(path))
            draft.replace(path)
        else:
            with draft.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
    except OSError as error:
        raise StoreError(f"can't be written: {error.strerror or error}", where=path) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Return the mode of the file that is replaced, else what a new file gets."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
