"""HTTP/1.1 for checks, parsed by httptools (llhttp, the parser of Node.js)."""

from __future__ import annotations

import asyncio
from functools import lru_cache

import httptools

from lbcore.health.exchange import MOST_OF_HEAD, Answer, Exchanging, Request

__all__ = ["Http1Connection"]


class Http1Connection(Exchanging):
    """See `Connection`."""

    def __init__(self) -> None:
        super().__init__()
        self._no_body = False
        self._received = 0  # bytes of the answer's head
        self._in_body = False
        self._ends_with_connection = False
        self._kept = True
        self._parser = httptools.HttpResponseParser(self)

    @property
    def reusable(self) -> bool:
        return self._transport is not None and self._kept and not self._transport.is_closing()

    def send(self, request: Request) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._received, self._in_body, self._ends_with_connection = 0, False, False
        self._no_body = request.method == "HEAD"
        waiting = self._await_answer(request)
        if self.reusable:
            self._transport.write(_written(request))
        else:  # it spoke before it was asked, or is gone
            self._fail("closed before the request", unanswered=True)
        return waiting

    # What the transport says

    def connection_lost(self, error: Exception | None) -> None:
        self._kept = False
        if self._waiting is None:
            return
        if self._ends_with_connection and error is None:
            self.on_message_complete()
            return
        reason = str(error) if error else f"closed after {self._received} bytes of an answer"
        self._fail(reason, unanswered=self._received == 0)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # what nobody has asked for
            self.abort()
            return
        if not self._in_body:
            self._received += len(data)
            if self._received > MOST_OF_HEAD + len(data):
                self._fail(f"no end of the answer's head after {self._received} bytes")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.on_message_complete()
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error}")

    # What the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        answer.status = parser.get_status_code()
        if answer.status < 200 and answer.status != 101:
            return
        self._in_body = True
        self._kept = parser.should_keep_alive()
        framed = b"content-length" in answer.headers or b"transfer-encoding" in answer.headers
        self._ends_with_connection = not framed
        if self._no_body:
            # The parser does not know what was asked for, and would wait for the body that a GET has.
            self._parser = httptools.HttpResponseParser(self)
            self.on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._answer.take(body, self._body_limit)

    def on_message_complete(self) -> None:
        if self._waiting is None:
            return
        if self._answer.status < 200 and self._answer.status != 101:  # an interim answer
            self._answer = Answer()
            return
        self._deliver()


@lru_cache(maxsize=1024)
def _written(request: Request) -> bytes:
    """A request as bytes, written once."""
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {request.authority}"]
    lines += (f"{name.title()}: {value}" for name, value in request.headers)
    if request.body:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode() + request.body
