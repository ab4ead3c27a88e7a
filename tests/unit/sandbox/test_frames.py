"""Frames over Docker's chunked stream, against a socket pair."""

import socket
import struct
import threading

import pytest

from g4eval.sandbox.frames import HEADER, Frame, FrameStream, StreamError


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield FrameStream(ours), theirs
    ours.close()
    theirs.close()


def chunk(data: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


def frame(kind: bytes, payload: bytes) -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def test_frames_come_out_however_docker_cuts_them(ends) -> None:
    stream, theirs = ends
    data = frame(b"A", b"one") + frame(b"B", b"") + frame(b"C", b"three")
    for place in range(0, len(data), 4):
        theirs.sendall(chunk(data[place : place + 4]))
    got = [stream.receive(timeout_seconds=1, max_bytes=10) for _ in range(3)]
    assert got == [Frame(b"A", b"one"), Frame(b"B", b""), Frame(b"C", b"three")]


def test_what_the_container_writes_to_stderr_is_dropped(ends) -> None:
    stream, theirs = ends
    theirs.sendall(chunk(frame(b"X", b"forged"), stream=2) + chunk(frame(b"A", b"real")))
    assert stream.receive(timeout_seconds=1, max_bytes=10).payload == b"real"


def test_a_frame_over_its_cap_is_refused_before_it_is_read(ends) -> None:
    stream, theirs = ends
    theirs.sendall(chunk(HEADER.pack(b"A", 2**31)))
    with pytest.raises(StreamError, match="at most 10"):
        stream.receive(timeout_seconds=1, max_bytes=10)


def test_silence_and_the_end_are_stream_errors(ends) -> None:
    stream, theirs = ends
    with pytest.raises(StreamError, match="silent"):
        stream.receive(timeout_seconds=0.05, max_bytes=10)
    theirs.sendall(chunk(b"A"))
    theirs.close()
    with pytest.raises(StreamError, match="ended"):
        stream.receive(timeout_seconds=1, max_bytes=10)


def test_sending_to_a_container_that_is_gone_is_a_stream_error(ends) -> None:
    stream, theirs = ends
    theirs.close()
    with pytest.raises(StreamError, match="input"):
        stream.send(b"R", bytes(10_000_000), timeout_seconds=1)


def test_a_frame_goes_out_whole(ends) -> None:
    stream, theirs = ends
    payload = bytes(3_000_000)
    sender = threading.Thread(
        target=stream.send, args=(b"R", payload), kwargs={"timeout_seconds": 5}
    )
    sender.start()
    data = bytearray()
    while len(data) < len(payload) + HEADER.size:
        data += theirs.recv(1 << 20)
    sender.join()
    assert bytes(data) == frame(b"R", payload)
