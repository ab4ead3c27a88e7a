"""Which failures are tried again, and after how long."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from g4eval.engines.retry import (
    Failure,
    RequestFailedError,
    RetryPolicy,
    Tries,
    failure_from_answer,
    failure_from_event,
    parse_retry_after,
    server_message,
)

NOON = datetime(2026, 4, 2, 12, 0, 0, tzinfo=UTC)
POLICY = RetryPolicy(
    max_retries=3,
    first_wait_seconds=1.0,
    longest_wait_seconds=60.0,
    rate_limit_patience_seconds=10.0,
)


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (301, Failure.REFUSED),
        (400, Failure.REJECTED),
        (401, Failure.REFUSED),
        (402, Failure.REFUSED),
        (403, Failure.REFUSED),
        (404, Failure.REFUSED),
        (408, Failure.BROKEN),
        (413, Failure.REJECTED),
        (422, Failure.REJECTED),
        (429, Failure.RATE_LIMITED),
        (500, Failure.BROKEN),
        (503, Failure.BROKEN),
    ],
)
def test_a_status_has_its_kind_of_failure(status: int, failure: Failure) -> None:
    assert failure_from_answer(status, "", None, now=NOON).failure is failure


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (429, Failure.RATE_LIMITED),
        (400, Failure.REJECTED),
        (500, Failure.BROKEN),
        ("odd", Failure.BROKEN),
    ],
)
def test_an_error_inside_an_answer_has_its_kind_of_failure(code: object, failure: Failure) -> None:
    assert failure_from_event({"code": code, "message": "no"}).failure is failure


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 02 Apr 2026 12:00:30 GMT", 30.0),
        ("Thu, 02 Apr 2026 11:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now=NOON) == seconds


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "no such model", "code": 404}}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"error": "plain"}', "plain"),
        ("<html>\n<b>502</b>\n</html>", "<html> <b>502</b> </html>"),
        ("", "no text"),
        ("x" * 400, "x" * 300 + "..."),
    ],
)
def test_the_servers_own_words_are_found_in_any_body(body: str, words: str) -> None:
    assert server_message(body) == words


@pytest.mark.parametrize(
    ("n_failed", "chance", "seconds"),
    [(1, 0.0, 0.5), (1, 0.999999, 1.0), (3, 0.0, 2.0), (7, 0.0, 30.0), (5000, 0.0, 30.0)],
)
def test_waits_double_up_to_the_longest_and_half_is_jitter(
    n_failed: int, chance: float, seconds: float
) -> None:
    assert POLICY.wait_seconds(n_failed, chance) == pytest.approx(seconds, abs=1e-5)


def test_a_broken_request_is_given_up_after_its_retries() -> None:
    tries = Tries(policy=POLICY)
    broken = RequestFailedError(Failure.BROKEN, "cut")
    waits = [tries.next_wait_seconds(broken, 0.0) for _ in range(4)]
    assert waits == [0.5, 1.0, 2.0, None]


def test_rate_limits_use_up_patience_and_no_retries() -> None:
    tries = Tries(policy=POLICY)
    limited = RequestFailedError(Failure.RATE_LIMITED, "slow down", retry_after_seconds=4.0)
    waits = [tries.next_wait_seconds(limited, 0.0) for _ in range(4)]
    assert waits == [4.0, 4.0, 4.0, None]
    assert tries.next_wait_seconds(RequestFailedError(Failure.BROKEN, "cut"), 0.0) == 0.5


@pytest.mark.parametrize("asked", [None, 0.0])
def test_patience_ends_where_nobody_waits(asked: float | None) -> None:
    policy = replace(POLICY, first_wait_seconds=0, longest_wait_seconds=0)
    tries = Tries(policy=replace(policy, rate_limit_patience_seconds=0.5))
    limited = RequestFailedError(Failure.RATE_LIMITED, "slow down", retry_after_seconds=asked)
    waits = [tries.next_wait_seconds(limited, 0.0) for _ in range(100)]
    assert waits[-1] is None
    assert sum(wait is not None for wait in waits) == 50


def test_what_cannot_get_better_is_not_tried_again() -> None:
    for failure in (Failure.REJECTED, Failure.REFUSED):
        assert (
            Tries(policy=POLICY).next_wait_seconds(RequestFailedError(failure, "no"), 0.0) is None
        )
