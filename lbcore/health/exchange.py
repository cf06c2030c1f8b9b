"""One request and its answer on a connection: what the probes over HTTP/1.1 and HTTP/2 share.

A connection is an asyncio protocol that serves one request at a time. Nothing is made for a check but a future: at
thousands of checks a second tasks, streams and contexts of time limits would cost several times what the check does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol, cast

__all__ = ["MOST_OF_HEAD", "Answer", "BrokenExchange", "Connection", "Exchanging", "Request"]

MOST_OF_HEAD = 65536  # bytes of an answer's head, before it counts as none


class BrokenExchange(Exception):
    """The connection gave no answer; `unanswered`: it closed before a single byte of one."""

    def __init__(self, reason: str, *, unanswered: bool = False) -> None:
        super().__init__(reason)
        self.unanswered = unanswered


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a check asks for; one is made for all checks of a service.

    Fields:
        method, authority, path, scheme: of the request.
        headers: names in lower case, and values.
        body: what it sends.
        body_limit: bytes of the answer's body that are looked at; None: all, 0: none.
    """

    method: str
    authority: str
    path: str
    scheme: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    body_limit: int | None = 0


@dataclass(slots=True)
class Answer:
    """What came back: `headers` by name in lower case, `body` as far as it is looked at."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    def take(self, part: bytes, limit: int | None) -> None:
        """Adds a part of the body."""
        if limit is None:
            self.body += part
        elif len(self.body) < limit:
            self.body += part[: limit - len(self.body)]


class Connection(Protocol):
    """A connection to an endpoint, once it is made."""

    @property
    def reusable(self) -> bool:
        """Whether it can take another request."""

    def send(self, request: Request) -> asyncio.Future[Answer]:
        """Sends a request; the future has the answer, or `BrokenExchange`."""

    def abort(self) -> None:
        """Closes at once."""


class Exchanging(asyncio.Protocol):
    """What every kind of connection has: its transport, the answer that comes, and who waits for it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._body_limit: int | None = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def abort(self) -> None:
        """See `Connection`."""
        self._waiting = None
        if self._transport is not None:
            self._transport.abort()

    def _await_answer(self, request: Request) -> asyncio.Future[Answer]:
        self._answer = Answer()
        self._body_limit = request.body_limit
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def _deliver(self) -> None:
        waiting, answer = self._waiting, self._answer
        self._waiting, self._answer = None, Answer()  # what still comes is of no answer
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _fail(self, reason: str, *, unanswered: bool = False) -> None:
        waiting = self._waiting
        self.abort()
        if waiting is not None and not waiting.done():
            waiting.set_exception(BrokenExchange(reason, unanswered=unanswered))
