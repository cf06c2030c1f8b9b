"""HTTP/1.1 backends that can be made to fail in the ways that real ones do. They live on the test's own event loop."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from tests.harness.tcp_server import tcp_server

__all__ = ["Mood", "UnreliableBackends"]


class Mood(enum.Enum):
    """What a backend does with a request."""

    ANSWERS = "answers 200"
    FAILS = "answers 503"
    NOT_FOUND = "answers 404"
    HANGS = "never answers"
    RESETS = "closes the connection"
    GARBAGE = "answers what is no HTTP"
    SLOW = "answers 200 after 0.2 s"
    DEGRADED = "answers 200 with x-envoy-degraded"
    LEAVES = "answers 503 with x-envoy-immediate-health-check-fail"


_HEADERS = {Mood.DEGRADED: "x-envoy-degraded: true\r\n", Mood.LEAVES: "x-envoy-immediate-health-check-fail: true\r\n"}
_STATUS = {
    Mood.FAILS: "503 Service Unavailable",
    Mood.LEAVES: "503 Service Unavailable",
    Mood.NOT_FOUND: "404 Not Found",
}


class UnreliableBackends:
    """So many backends on 127.0.0.1. An async context manager.

    `addresses` are theirs; `requests`, `connections` and `open` count by address; `last` has the last request's head.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._servers: dict[str, AbstractAsyncContextManager[str]] = {}
        self._moods: dict[str, Mood] = {}
        self.body = b"ok"
        self.headers = ""  # of its answers, each line ended by CR LF
        self.last = ""
        self.requests: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.open: Counter[str] = Counter()

    @property
    def addresses(self) -> list[str]:
        return list(self._moods)

    async def __aenter__(self) -> UnreliableBackends:
        for _ in range(self._count):
            await self.listen("127.0.0.1:0")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for address in list(self._servers):
            await self.refuse(address)

    def become(self, address: str, mood: Mood) -> None:
        """From now on it behaves like this; what hangs already goes on hanging."""
        self._moods[address] = mood

    async def refuse(self, address: str) -> None:
        """Stops listening, and closes what is open: new connections are refused."""
        await self._servers.pop(address).__aexit__(None, None, None)

    async def listen(self, address: str) -> None:
        """Listens, again where it did."""
        server = tcp_server(self._serve, address)
        address = await server.__aenter__()
        self._servers[address] = server
        self._moods.setdefault(address, Mood.ANSWERS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("sockname")[:2]
        address = f"{host}:{port}"
        self.connections[address] += 1
        self.open[address] += 1
        try:
            while await self._answer(address, reader, writer):
                pass
        finally:
            self.open[address] -= 1

    async def _answer(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; returns whether the connection goes on."""
        self.last = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests[address] += 1
        mood = self._moods[address]
        if mood is Mood.RESETS:
            return False
        if mood is Mood.HANGS:
            await reader.read()  # until the client goes
            return False
        if mood is Mood.SLOW:
            await asyncio.sleep(0.2)
        if mood is Mood.GARBAGE:
            writer.write(b"\x00\x01 what is this?\r\n\r\n")
            return False
        head = f"HTTP/1.1 {_STATUS.get(mood, '200 OK')}\r\ncontent-length: {len(self.body)}\r\n"
        writer.write(f"{head}{self.headers}{_HEADERS.get(mood, '')}\r\n".encode() + self.body)
        await writer.drain()
        return True
