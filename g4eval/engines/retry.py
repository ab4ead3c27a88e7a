"""Which failures of a server are retried, how often, and how long to wait.

A failure has a kind, and the kind decides what happens next:

    RATE_LIMITED  429: waited out, for as long as the patience lasts
    BROKEN        408, 5xx, cut streams, no completion, nonsense: retried with back-off, then an
                  Attempt
    UNREACHABLE   nobody listens: retried with back-off, then the engine has stopped
    REJECTED      this request is at fault (400, 413, 422), for a reason nobody knows: an Attempt,
                  a refused one where the server answers other questions
    NEVER         this request can't succeed: content that is refused, a prompt longer than the
                  context: a refused Attempt, not sent again
    REFUSED       401, 402, 403, 404, no credit: no request can succeed, the engine stops at once
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any

_LEAST_RATE_WAIT_SECONDS = 0.01  # so that patience ends, whatever the waits are set to
_QUOTED_CHARACTERS = 300  # of a server's own words, in a message
_LEVELS = 16  # of objects in objects, on the way to a server's own words

# What servers and gateways call it when they won't answer a prompt for what it says: OpenAI, Azure,
# OpenRouter, Anthropic, Gemini, Bedrock, Alibaba, WAFs.
_REFUSED_CONTENT = re.compile(
    r"content[_ -]?(filter|policy|management|moderation)|moderat|flagged|data_?inspection|"
    r"responsible_?ai|safety (system|setting|polic|filter|reason)|prohibited[_ ]content|"
    r"invalid_prompt|usage polic|policy violation|violat\w* .{0,40}polic|inappropriate content|"
    r"sensitive (content|word)|harmful content|blocked by .{0,40}(polic|filter|guard|safety)|"
    r"guardrail|blocklist",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(
    r"insufficient[_ ](quota|balance|credit|funds)|billing|exceeded your current quota|"
    r"payment required|out of credits",
    re.IGNORECASE,
)
# Words that stand for a status, where an error has no number: OpenAI's, Anthropic's, LiteLLM's.
_STATUS_WORDS = (
    (re.compile(r"rate_?limit|too_?many_?requests|throttl", re.IGNORECASE), 429),
    (re.compile(r"invalid_?api_?key|authentication|unauthorized", re.IGNORECASE), 401),
    (re.compile(r"permission|forbidden", re.IGNORECASE), 403),
    (re.compile(r"model_?not_?found|not_?found_?error", re.IGNORECASE), 404),
    (
        re.compile(r"context_?length|exceed_?context|string_above_max|too_?large", re.IGNORECASE),
        400,
    ),
    (re.compile(r"bad_?request|invalid_?request|invalid_?prompt", re.IGNORECASE), 400),
)


class Failure(Enum):
    """What kind of failure it was; see the module's table."""

    REJECTED = auto()
    NEVER = auto()
    RATE_LIMITED = auto()
    BROKEN = auto()
    UNREACHABLE = auto()
    REFUSED = auto()


class RequestFailedError(Exception):
    """One try at one request failed; never leaves the engine.

    Args:
        failure: decides whether it is tried again.
        message: what happened; may hold the server's own words.
        status: the HTTP status, or the one inside the answer; None: there was none.
        retry_after_seconds: what the server asked for; None: nothing.
        body: the error's body, for those who read more in it.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        body: str = "",
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.body = body


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

    def is_patient_with(self, error: RequestFailedError) -> bool:
        """Whether the wait that the server asks for is one that is worth it."""
        return (error.retry_after_seconds or 0.0) <= self.rate_limit_patience_seconds


@dataclass(slots=True, kw_only=True)
class Tries:
    """What became of one request so far, and whether it may be tried again."""

    policy: RetryPolicy
    n_failed: int = 0
    n_rate_limited: int = 0
    waited_for_rate_seconds: float = 0.0

    def next_wait_seconds(self, error: RequestFailedError, chance: float) -> float | None:
        """Count a failure; return how long to wait before the next try, None to give up."""
        asked = error.retry_after_seconds or 0.0
        if not self.policy.is_patient_with(error):
            return None
        if error.failure is Failure.RATE_LIMITED:
            self.n_rate_limited += 1
            if self.waited_for_rate_seconds >= self.policy.rate_limit_patience_seconds:
                return None
            wait = max(asked, self.policy.wait_seconds(self.n_rate_limited, chance))
            wait = max(wait, _LEAST_RATE_WAIT_SECONDS)
            self.waited_for_rate_seconds += wait
            return wait
        if error.failure not in (Failure.BROKEN, Failure.UNREACHABLE):
            return None
        self.n_failed += 1
        if self.n_failed > self.policy.max_retries:
            return None
        return max(asked, self.policy.wait_seconds(self.n_failed, chance))


def failure_from_answer(
    status: int, body: str, retry_after: str | None, *, now: datetime
) -> RequestFailedError:
    """Return the failure that an HTTP status of 300 or more stands for."""
    return RequestFailedError(
        _kind_of(status, body),
        f"HTTP {status}: {server_message(body)}",
        status=status,
        retry_after_seconds=parse_retry_after(retry_after, now=now),
        body=body,
    )


def failure_from_event(error: Any) -> RequestFailedError:
    """Return the failure that an error inside an answer or a stream stands for.

    Args:
        error: the value of `error`, or a whole flat object: {"message", "code"}, {"detail"}, ...
    """
    try:
        body = json.dumps({"error": error})
    except (ValueError, RecursionError):
        body = type(error).__name__
    status, words = _status_in(error), _words_in(error)
    kind = _kind_of(status, body) if status else _kind_of(500, "")
    if status is None and _NO_CREDIT.search(words):
        kind = Failure.REFUSED
    elif status is None and _REFUSED_CONTENT.search(words):
        kind = Failure.NEVER
    message = f"error in the answer: {server_message(body)}"
    return RequestFailedError(kind, message, status=status, body=body)


def is_error(value: Any) -> bool:
    """Whether the value of `error` says that there was one: not an object of nothing."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def is_flat_error(value: Mapping[str, Any]) -> bool:
    """Whether an object of a 200 answer, one without choices, is an error without an envelope."""
    if value.get("object") == "error" or value.get("type") == "error" or _status_in(value):
        return True
    return any(value.get(name) for name in ("message", "detail", "msg", "errors", "error_msg"))


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds a Retry-After header asks for, given as seconds or as a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return None if math.isnan(seconds) else max(0.0, seconds)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def server_message(body: str) -> str:
    """Return a server's own words from an error body, on one line and not too long."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = body
    for _ in range(_LEVELS):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict):
            inner = (value.get(k) for k in ("error", "message", "detail", "msg", "error_msg"))
            value = next((v for v in inner if v), None)
        else:
            break
    said = value if isinstance(value, (str, int, float)) else None
    text = " ".join(str(said or body[: 4 * _QUOTED_CHARACTERS]).split()) or "no text"
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "..."


def _kind_of(status: int, body: str) -> Failure:
    """Return the kind of failure that a status and its words stand for."""
    if status == 402 or (status in (403, 429) and _NO_CREDIT.search(body)):
        return Failure.REFUSED
    if status in (400, 403, 422, 451) and _REFUSED_CONTENT.search(body):
        return Failure.NEVER
    if status == 429:
        return Failure.RATE_LIMITED
    if status in (408, 425) or status >= 500:
        return Failure.BROKEN
    if status in (400, 409, 413, 422):
        return Failure.REJECTED
    return Failure.REFUSED


def _status_in(error: Any) -> int | None:
    """Return the status an error object names, as a number, as text or as a word; None: none."""
    if not isinstance(error, dict):
        return None
    for name in ("code", "status", "status_code", "http_status", "statusCode"):
        value = error.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    words = _words_in(error)
    return next((status for pattern, status in _STATUS_WORDS if pattern.search(words)), None)


def _words_in(error: Any) -> str:
    """Return the words by which an error object says its kind, not its message."""
    named = error if isinstance(error, dict) else {}
    words = (named.get(name) for name in ("code", "type", "status"))
    return " ".join(word[:100] for word in words if isinstance(word, str))
