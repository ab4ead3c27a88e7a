"""What the server can have sent: the host's own check that every frame is counted once.

The server lets a child's frames through only in turn (sandboxes/python_judge/turns.py), and says so
to a run that spoke out of turn. So a frame that comes here out of turn is no submission's doing but
a failure of ours: a StreamError, after which the job is judged again in another container.
"""

from g4eval.sandbox.frames import StreamError
from g4eval.sandbox.protocol import End, Report

_LAST_KINDS = (b"F", b"X", b"B", b"S")
_LOADING_KINDS = (b"C", b"A", b"F", b"B")
_TESTING_KINDS = (b"A", b"X", b"S", b"F", b"B")


class Turns:
    """How far one run is, as its frames say."""

    def __init__(self, n_tests: int, *, functional: bool) -> None:
        self._n_tests = n_tests
        self._answer = b"V" if functional else b"O"
        self._ready = False
        self._spoken = False
        self.answered = 0  # tests with a frame of their own
        self.over = False  # the server ends the run by itself now

    def take(self, report: Report) -> None:
        """Count one frame; StreamError if the server can't have sent it."""
        kinds = (self._answer, *_TESTING_KINDS) if self._ready else _LOADING_KINDS
        if self.over or report.kind not in kinds:
            raise StreamError(f"a {report.kind!r} frame that the server can't have sent")
        if report.test != self.answered:
            raise StreamError(f"an answer to test {report.test} where {self.answered} is next")
        self._spoken = True
        self._ready |= report.kind == b"C"
        self.answered += report.kind == self._answer
        self.over = report.kind in _LAST_KINDS or self.answered == self._n_tests

    def end(self, end: End, *, killed: bool) -> None:
        """Check a run's end against its frames; `killed`: we asked for it."""
        done = end.why == "done"
        if done is not self.over and not (killed and end.why == "killed"):
            raise StreamError(
                f"the end {end.why!r} of a run that is {'' if self.over else 'not '}over"
            )
        if end.answered != self.answered:
            raise StreamError(f"{end.answered} answers at the end, of which {self.answered} came")
        if end.why == "killed" and not killed:
            raise StreamError("a run was killed that we didn't kill")
        if end.why == "setup" and self._spoken:
            raise StreamError("a run failed to start after it had spoken")
