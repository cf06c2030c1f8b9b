"""Whatever bytes come, in whatever parts: a connection raises nothing, and its answer comes or is said to be none."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.health.exchange import BrokenExchange, Request
from lbcore.health.http1 import Http1Connection
from lbcore.health.http2 import Http2Connection


class Wire(asyncio.Transport):
    """A transport that takes what is written, and tells its connection once that it has ended."""

    def __init__(self, connection: asyncio.Protocol) -> None:
        super().__init__()
        self._connection = connection
        self._closed = False
        self.written = b""
        connection.connection_made(self)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        self.written += bytes(content)

    def is_closing(self) -> bool:
        return self._closed

    def abort(self) -> None:
        self.end()

    def end(self, error: Exception | None = None) -> None:
        if not self._closed:
            self._closed = True
            self._connection.connection_lost(error)

    def receive(self, part: bytes) -> None:
        if not self._closed:
            self._connection.data_received(part)


parts_of_http1 = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"content-length: 2\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"x-envoy-degraded: 1\r\n",
        b"\r\n",
        b"ok",
        b"2\r\nok\r\n",
        b"0\r\n\r\n",
    ]
)
# Frames of HTTP/2 (RFC 9113): the length, type, flags and stream, then as much as that.
frames = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 10),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3]),
    st.binary(max_size=12),
)
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ANSWER = b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"  # HEADERS, :status 200, the end of the stream


async def answered(kind: type[Http1Connection | Http2Connection], method: str, parts: list[bytes]) -> bool:
    """Whether an answer came; asserts that the waiting ends when the connection does, at the latest."""
    connection = kind()
    wire = Wire(connection)
    for _ in range(2):
        if not connection.reusable:
            return False
        waiting = connection.send(Request(method, "web", "/", "http", body_limit=None))
        for part in parts:
            wire.receive(part)
        if not waiting.done():
            wire.end()
        try:
            answer = await asyncio.wait_for(waiting, 0)
        except BrokenExchange:
            return False
        assert answer.status >= 101
    return True


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@given(parts=st.lists(parts_of_http1 | st.binary(max_size=20), max_size=12))
def test_http1(method: str, parts: list[bytes]) -> None:
    asyncio.run(answered(Http1Connection, method, parts))


@given(parts=st.lists(frames | st.binary(max_size=20) | st.just(ANSWER), max_size=8), settings=st.booleans())
def test_http2(parts: list[bytes], settings: bool) -> None:
    asyncio.run(answered(Http2Connection, "GET", [SETTINGS, *parts] if settings else parts))


def test_the_parts_reach_answers() -> None:
    """Guards the two above."""
    assert asyncio.run(answered(Http1Connection, "GET", [b"HTTP/1.1 200 OK\r\n", b"content-length: 2\r\n\r\nok"]))
    connection = Http2Connection()
    wire = Wire(connection)

    async def one() -> int:
        waiting = connection.send(Request("GET", "web", "/", "http"))
        wire.receive(SETTINGS)
        wire.receive(ANSWER)
        return (await waiting).status

    assert asyncio.run(one()) == 200


async def test_what_follows_an_answer_does_not_change_it() -> None:
    connection = Http1Connection()
    wire = Wire(connection)
    answer = connection.send(Request(method="GET", authority="a", path="/", scheme="http"))
    one, other = (b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status for status in (503, 200))
    wire.receive(one + other)
    assert (await answer).status == 503
