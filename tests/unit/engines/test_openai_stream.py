"""Server-sent events in any cut, and answers put together from them."""

import json

import pytest

from g4eval.engines.openai_stream import AnswerParts, EventDecoder
from g4eval.engines.retry import Failure, RequestFailedError
from g4eval.records import StopReason

STREAM = (
    b": a comment\r\n\r\nevent: message\r\ndata: first\r\n\r\n"
    b"data:second\n\nid: 7\ndata: two\ndata: lines\n\ndata: [DONE]\n\n"
)
EVENTS = [b"first", b"second", b"two\nlines", b"[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    decoder = EventDecoder()
    events = []
    for start in range(0, len(STREAM), size):
        events += decoder.feed(STREAM[start : start + size])
    assert events + decoder.end() == EVENTS


def test_a_last_event_without_its_empty_line_still_counts() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: one\n\ndata: two") == [b"one"]
    assert decoder.end() == [b"two"]
    assert decoder.end() == []


def test_a_letter_cut_in_the_middle_of_its_bytes_survives() -> None:
    data = json.dumps({"choices": [{"delta": {"content": "π ≈ 3"}}]}, ensure_ascii=False).encode()
    parts, decoder = AnswerParts(), EventDecoder()
    for byte in b"data: " + data + b"\n\n":
        for event in decoder.feed(bytes([byte])):
            parts.add_event(event)
    assert parts.text == "π ≈ 3"


@pytest.mark.parametrize(
    "data",
    [
        b"<html>",
        b"[1, 2]",
        b'{"choices": [7]}',
        b'{"choices": [{"delta": {"content": ["a"]}}]}',
        b'{"choices": 3}',
    ],
)
def test_nonsense_is_a_broken_answer(data: bytes) -> None:
    with pytest.raises(RequestFailedError) as caught:
        AnswerParts().add_event(data)
    assert caught.value.failure is Failure.BROKEN


def test_an_unknown_finish_reason_is_the_servers_failure_not_the_models_end() -> None:
    parts = AnswerParts()
    parts.add_body(b'{"choices": [{"text": "a", "finish_reason": "abort"}]}')
    with pytest.raises(RequestFailedError, match="'abort'"):
        parts.stop_reason(16)


def test_reasoning_tokens_are_kept_only_where_they_can_be_right() -> None:
    parts = AnswerParts()
    usage = {"completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 4}}
    parts.add_body(json.dumps({"choices": [{"text": "a"}], "usage": usage}).encode())
    assert parts.reasoning_tokens(10) == 4
    assert parts.reasoning_tokens(3) is None
    assert parts.reasoning_tokens(None) is None
    assert parts.stop_reason(10) is StopReason.LENGTH
