"""Which failures of a server are retried, how often, and how long to wait.

A failure has a kind, and the kind decides what happens next:

    REJECTED      this request is at fault (400, 413, 422): an Attempt at once
    RATE_LIMITED  429: waited out, for as long as the patience lasts
    BROKEN        408, 5xx, cut streams, nonsense: retried with back-off, then an Attempt
    UNREACHABLE   nobody listens: retried with back-off, then the engine has stopped
    REFUSED       401, 403, 404, no credit: no request can succeed, the engine stops at once
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any

_QUOTED_CHARACTERS = 300  # of a server's own words, in a message


class Failure(Enum):
    """What kind of failure it was; see the module's table."""

    REJECTED = auto()
    RATE_LIMITED = auto()
    BROKEN = auto()
    UNREACHABLE = auto()
    REFUSED = auto()


class RequestFailedError(Exception):
    """One try at one request failed; never leaves the engine.

    Args:
        failure: decides whether it is tried again.
        message: what happened; may hold the server's own words.
        retry_after_seconds: what the server asked for; None: nothing.
    """

    def __init__(
        self, failure: Failure, message: str, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how long."""

    max_retries: int = 8
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    rate_limit_patience_seconds: float = 3600.0  # of waiting, for one request

    def wait_seconds(self, n_failed: int, chance: float) -> float:
        """Return how long to wait after the n-th failure (1-based), doubling up to the longest.

        Args:
            n_failed: tries that failed so far.
            chance: a random number in [0, 1); half of the wait is jitter, so that requests that
                failed together don't come back together.
        """
        doublings = min(n_failed - 1, 32)
        whole = min(self.first_wait_seconds * 2.0**doublings, self.longest_wait_seconds)
        return whole * (0.5 + 0.5 * chance)


@dataclass(slots=True, kw_only=True)
class Tries:
    """What became of one request so far, and whether it may be tried again."""

    policy: RetryPolicy
    n_failed: int = 0
    n_rate_limited: int = 0
    waited_for_rate_seconds: float = 0.0

    def next_wait_seconds(self, error: RequestFailedError, chance: float) -> float | None:
        """Count a failure; return how long to wait before the next try, None to give up."""
        asked = error.retry_after_seconds
        if error.failure is Failure.RATE_LIMITED:
            self.n_rate_limited += 1
            if self.waited_for_rate_seconds >= self.policy.rate_limit_patience_seconds:
                return None
            wait = max(asked or 0.0, self.policy.wait_seconds(self.n_rate_limited, chance))
            self.waited_for_rate_seconds += wait
            return wait
        if error.failure not in (Failure.BROKEN, Failure.UNREACHABLE):
            return None
        self.n_failed += 1
        if self.n_failed > self.policy.max_retries:
            return None
        wait = self.policy.wait_seconds(self.n_failed, chance)
        return max(wait, min(asked or 0.0, self.policy.rate_limit_patience_seconds))


def failure_from_answer(
    status: int, body: str, retry_after: str | None, *, now: datetime
) -> RequestFailedError:
    """Return the failure that an HTTP status of 300 or more stands for."""
    message = f"HTTP {status}: {server_message(body)}"
    seconds = parse_retry_after(retry_after, now=now)
    if status == 429 and "insufficient_quota" not in body:
        return RequestFailedError(Failure.RATE_LIMITED, message, retry_after_seconds=seconds)
    if status in (408, 425) or status >= 500:
        return RequestFailedError(Failure.BROKEN, message, retry_after_seconds=seconds)
    if status in (400, 409, 413, 422):
        return RequestFailedError(Failure.REJECTED, message)
    return RequestFailedError(Failure.REFUSED, message)


def failure_from_event(error: Any) -> RequestFailedError:
    """Return the failure that an `error` object inside an answer or a stream stands for."""
    code = error.get("code") if isinstance(error, dict) else None
    message = f"error in the answer: {server_message(json.dumps({'error': error}))}"
    if code == 429:
        return RequestFailedError(Failure.RATE_LIMITED, message)
    if code in (400, 413, 422):
        return RequestFailedError(Failure.REJECTED, message)
    return RequestFailedError(Failure.BROKEN, message)


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds a Retry-After header asks for, given as seconds or as a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def server_message(body: str) -> str:
    """Return a server's own words from an error body, on one line and not too long."""
    try:
        value = json.loads(body)
    except ValueError:
        value = body
    while isinstance(value, dict):
        inner = (value.get(k) for k in ("error", "message", "detail"))
        value = next((v for v in inner if v), None)
    text = " ".join(str(value or body).split()) or "no text"
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "..."
