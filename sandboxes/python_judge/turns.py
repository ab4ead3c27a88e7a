"""Whose turn it is: which frame may come next in a run, and when the run is over.

The one place where a child's frames are let through, each once: a frame names the test it answers,
and only the next one is taken. README.md has the table of states; a test walks every edge of it.
Standard library only.
"""

import struct

FRAME = struct.Struct(">cII")  # kind, the test it is about, length of the payload

SETTING_UP, LOADING, TESTING, OVER = "setting up", "loading", "testing", "over"

BEGUN, READY, ALARM = b"G", b"C", b"A"
FAILED, ENDED, RAISED, TOO_LONG = b"F", b"B", b"X", b"S"
OUTPUT, VALUE = b"O", b"V"

_KINDS: dict[str, tuple[bytes, ...]] = {  # what may come next, but for a test's answer
    SETTING_UP: (BEGUN,),
    LOADING: (READY, ALARM, FAILED, ENDED),
    OVER: (),
}


class Turns:
    """The state of one run, moved by the frames of its child."""

    def __init__(self, n_tests: int, *, functional: bool) -> None:
        self._n_tests = n_tests
        self._answer = VALUE if functional else OUTPUT
        self._kinds = {**_KINDS, TESTING: (self._answer, RAISED, TOO_LONG, ALARM, FAILED, ENDED)}
        self.state = SETTING_UP
        self.answered = 0  # tests that have a frame of their own
        self.why: str | None = None  # why it is over, in the words of server.py

    def is_next(self, kind: bytes, test: int) -> bool:
        """Return whether a frame is in turn."""
        return test == self.answered and kind in self._kinds[self.state]

    def take(self, kind: bytes, test: int) -> None:
        """Move on by one frame; one out of turn ends the run."""
        if self.is_next(kind, test):
            self.move(kind)
        else:
            self.end("protocol")

    def move(self, kind: bytes) -> None:
        """Move on by a frame that is in turn."""
        if kind == BEGUN:
            self.state = LOADING
        elif kind == READY:
            self.state = TESTING
        elif kind != ALARM:
            self.answered += kind == self._answer
            if kind != self._answer or self.answered == self._n_tests:
                self.end("done")

    def end(self, why: str) -> None:
        """End the run; a child that ends before a submission's first line is our failure."""
        if self.state != OVER:
            self.why = "setup" if self.state == SETTING_UP and why != "killed" else why
            self.state = OVER
