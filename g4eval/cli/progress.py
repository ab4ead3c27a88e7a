"""Progress on stderr: a live bar on a terminal, plain lines elsewhere."""

import logging
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from g4eval.errors import UsageError
from g4eval.output import raw, visible
from g4eval.pipeline import Watcher
from g4eval.records import Attempt, Grade, Outcome, StopReason, Try
from g4eval.stats.accuracy import Scored, estimate
from g4eval.stats.summary import summarise
from g4eval.store.reader import RunReader

SECONDS_TO_THE_FIRST = 1.5
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.25
COST_OF_SCORES = 20  # times as long as they took to work out, scores stay as they are

log = logging.getLogger("g4eval")


def make_reporter(*, log_file: Path | None, verbose: bool) -> "ProgressReporter":
    """Return the reporter for this process's stderr, and set up the log file."""
    if log_file is not None:
        handler = _log_file(log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.DEBUG if verbose else logging.INFO)
    reporter = ProgressReporter(Console(file=raw(sys.stderr)))
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(reporter.close)
    return reporter


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
    """Counts what happens and shows it: done/total, tokens/s, scores so far, truncated, time left.

    A thread of its own shows it as time goes, so that there is something to see before the first
    answer: within two seconds, and without a terminal a line every ten.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._is_running = self._has_shown = False
        self._total = self._completed = self._failed = self._tokens = self._truncated = 0
        self._scores: ScoresSoFar | None = None
        self._made = self._begun = self._shown_at = time.monotonic()
        self._closed = threading.Event()
        self._lock = threading.RLock()
        threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def note(self, message: str) -> None:
        """Say one thing, and log it."""
        log.info(message)
        with self._lock:
            self._shown_at, self._has_shown = time.monotonic(), True
            self._console.print(visible(message), highlight=False, markup=False, soft_wrap=True)

    def start(self, todo: Mapping[str, int], done: Mapping[str, int], store: RunReader) -> Watcher:
        """Say what is about to be generated, then show progress until `stop`."""
        self.note(_forecast(todo, done, store))
        with self._lock:
            self._begun = self._shown_at = time.monotonic()
            self._total = sum(todo.values())
            self._completed = self._failed = self._tokens = self._truncated = 0
            self._scores = ScoresSoFar(store)
            self._is_running, self._has_shown = True, False
            if self._total and self._console.is_terminal:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
        return self._watch

    def stop(self) -> None:
        """Take the bar away; elsewhere write the last line."""
        with self._lock:
            self._is_running = False
            if self._live is not None:
                self._live.stop()
                self._live = None
            elif self._total:
                self._show()

    def close(self) -> None:
        """End the thread; nothing is said any more as time goes."""
        self._closed.set()

    def _watch(self, event: Try | Attempt | Grade) -> None:
        match event:
            case Try():
                self._completed += 1
                self._tokens += sum(c.completion_tokens or 0 for c in event.completions)
                self._truncated += event.completion.is_truncated
                log.debug("completed %s %s/%d", event.task_id, event.sample.sample_id, event.repeat)
            case Attempt():
                self._failed += 1
                log.warning(
                    "failed %s %s/%d: %s", event.task_id, event.sample_id, event.repeat, event.error
                )
            case Grade():
                log.debug("graded %s: %s", event.key[:12], event.outcome)
        if self._scores is not None:
            self._scores.take(event)

    def _tick(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_FRAMES):
            with self._lock:
                pause = SECONDS_BETWEEN_LINES if self._has_shown else SECONDS_TO_THE_FIRST
                if self._live is not None:
                    pause = SECONDS_BETWEEN_FRAMES
                if time.monotonic() - self._shown_at < pause or self._closed.is_set():
                    continue
                if self._is_running and self._total:
                    self._show()
                else:
                    self.note(f"working, {_clock(time.monotonic() - self._made)} so far")

    def _show(self) -> None:
        self._shown_at, self._has_shown = time.monotonic(), True
        if self._live is not None:
            self._live.update(Text(self._line()), refresh=True)
        else:
            print(self._line(), file=sys.stderr, flush=True)  # noqa: T201  plain progress

    def _line(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._begun)
        done = self._completed + self._failed
        parts = [f"{done:,}/{self._total:,}"]
        if self._tokens:
            parts.append(f"{self._tokens / seconds:,.0f} tokens/s")
        if not done:
            parts.append(f"first requests sent {_clock(seconds)} ago")
        if self._scores is not None and (words := self._scores.words()):
            parts.append(f"score so far: {words}")
        if self._truncated:
            parts.append(f"truncated {100 * self._truncated / max(1, self._completed):.1f} %")
        if self._failed:
            parts.append(f"failed {self._failed:,}")
        if done and done < self._total:
            parts.append(f"{_clock(seconds / done * (self._total - done))} left")
        return ", ".join(parts)


class ScoresSoFar:
    """Each task's score so far by the table's own estimator, what was stored before included."""

    def __init__(self, store: RunReader) -> None:
        self._samples: dict[str, dict[str, int]] = {}
        self._rows: dict[str, list[Scored]] = {}
        self._ungraded: dict[str, tuple[str, str, bool]] = {}  # task, sample, truncated, by key
        for task_id in store.tasks():
            for row in store.rows(task_id):
                place = (task_id, row.sample_id, row.stop_reason is StopReason.LENGTH)
                if row.grade is None:
                    self._ungraded[row.key] = place
                else:
                    self._add(place, row.grade.outcome)
        self._words, self._due = "", 0.0

    def take(self, event: Try | Attempt | Grade) -> None:
        """Hear of a try, and later of its grade."""
        match event:
            case Try():
                truncated = event.completion.is_truncated
                place = (event.task_id, event.sample.sample_id, truncated)
                self._ungraded[event.key] = place
            case Grade() if event.outcome is not Outcome.UNGRADED:
                if (found := self._ungraded.pop(event.key, None)) is not None:
                    self._add(found, event.outcome)
            case _:
                pass

    def words(self) -> str:
        """Return each task's value and interval; worked out anew when that costs little time."""
        begun = time.monotonic()
        if begun >= self._due:
            self._words = "; ".join(
                f"{task_id} {_score(rows[:])}" for task_id, rows in sorted(self._rows.items())
            )
            now = time.monotonic()
            self._due = now + COST_OF_SCORES * (now - begun)
        return self._words

    def _add(self, place: tuple[str, str, bool], outcome: Outcome) -> None:
        task_id, sample_id, truncated = place
        samples = self._samples.setdefault(task_id, {})
        sample = samples.setdefault(sample_id, len(samples))
        self._rows.setdefault(task_id, []).append(Scored(sample, outcome, truncated))


def _score(rows: list[Scored]) -> str:
    found = estimate(rows)
    interval = found.interval
    around = f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else ""
    return f"{100 * found.value:.1f}{around}"


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
