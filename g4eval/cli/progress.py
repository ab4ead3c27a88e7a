"""Progress on stderr: a live bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from g4eval.errors import UsageError
from g4eval.output import raw, visible
from g4eval.pipeline import Watcher
from g4eval.records import Attempt, Completion, Grade, Outcome
from g4eval.stats.intervals import wilson
from g4eval.stats.summary import summarise
from g4eval.store.reader import RunReader

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.2
EVENTS_BETWEEN_LOOKS = 16  # at the clock

log = logging.getLogger("g4eval")


def make_reporter(*, log_file: Path | None, verbose: bool) -> "ProgressReporter":
    """Return the reporter for this process's stderr, and set up the log file."""
    if log_file is not None:
        handler = _log_file(log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.DEBUG if verbose else logging.INFO)
    return ProgressReporter(Console(file=raw(sys.stderr)))


class _LogFile(logging.FileHandler):
    """A log that says once that it can't be written, and leaves the run alone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  logging's
        error = sys.exception()
        log.removeHandler(self)
        reason = getattr(error, "strerror", None) or error
        print(f"the log ends here: {self.baseFilename}: {reason}", file=sys.stderr)  # noqa: T201


def _log_file(path: Path) -> logging.Handler:
    try:
        return _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the log can't be written: {reason}", where=path, hint="give --log-file another place"
        ) from error


class ProgressReporter:
    """Counts what happens and shows it: done/total, tokens/s, running score, truncated, ETA."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._shown_at = 0.0

    def note(self, message: str) -> None:
        """Say one thing, and log it."""
        log.info(message)
        self._console.print(visible(message), highlight=False, markup=False, soft_wrap=True)

    def start(self, todo: Mapping[str, int], done: Mapping[str, int], store: RunReader) -> Watcher:
        """Say what is about to be generated, then show progress until `stop`."""
        self._begun = self._shown_at = time.monotonic()
        self._total = sum(todo.values())
        self._completed = self._failed = self._tokens = self._truncated = 0
        self._right = self._graded = self._events = 0
        self.note(_forecast(todo, done, store))
        if self._total and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self._watch

    def stop(self) -> None:
        """Take the bar away; elsewhere write the last line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._total:
            self._show()

    def _watch(self, event: Completion | Attempt | Grade) -> None:
        match event:
            case Completion():
                self._completed += 1
                self._tokens += event.completion_tokens or 0
                self._truncated += event.is_truncated
                log.debug("completed %s %s/%d", event.task_id, event.sample_id, event.repeat)
            case Attempt():
                self._failed += 1
                log.warning(
                    "failed %s %s/%d: %s", event.task_id, event.sample_id, event.repeat, event.error
                )
            case Grade():
                self._graded += event.outcome is not Outcome.UNGRADED
                self._right += event.outcome is Outcome.CORRECT
                log.debug("graded %s: %s", event.key[:12], event.outcome)
        self._events += 1
        if self._live is None and self._events % EVENTS_BETWEEN_LOOKS:
            return
        pause = SECONDS_BETWEEN_FRAMES if self._live else SECONDS_BETWEEN_LINES
        if time.monotonic() - self._shown_at > pause:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        if self._live is not None:
            self._live.update(Text(self._line()), refresh=True)
        else:
            print(self._line(), file=sys.stderr, flush=True)  # noqa: T201  plain progress

    def _line(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._begun)
        done = self._completed + self._failed
        parts = [f"{done:,}/{self._total:,}", f"{self._tokens / seconds:,.0f} tokens/s"]
        if self._graded:
            interval = wilson(self._right, self._graded)
            parts.append(
                f"score so far {100 * self._right / self._graded:.1f} "
                f"({100 * interval.low:.1f} to {100 * interval.high:.1f})"
            )
        if self._truncated:
            parts.append(f"truncated {100 * self._truncated / max(1, self._completed):.1f} %")
        if self._failed:
            parts.append(f"failed {self._failed:,}")
        if done and done < self._total:
            parts.append(f"{_clock(seconds / done * (self._total - done))} left")
        return ", ".join(parts)


def _forecast(todo: Mapping[str, int], done: Mapping[str, int], store: RunReader) -> str:
    """Say how many requests, and from earlier sessions of this run how many tokens and hours."""
    lines = [
        f"{task_id}: {count:,} completions to get"
        + (f", {done[task_id]:,} stored" if done[task_id] else "")
        for task_id, count in todo.items()
    ]
    sessions = store.sessions()
    seconds = sum(s["ended_at"] - s["started_at"] for s in sessions)
    tokens = sum(s["completion_tokens"] for s in sessions)
    if tokens and seconds and any(todo.values()):
        means = {s.task_id: s.mean_completion_tokens for s in summarise(store)}
        expected = sum(count * (means.get(task_id) or 0) for task_id, count in todo.items())
        lines.append(
            f"about {expected:,.0f} tokens, {_clock(expected * seconds / tokens)} at the rate "
            "so far"
        )
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
