"""A TCP relay, on the test's own event loop: a connection to somewhere that the test can cut and let through again."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType

from tests.harness.tcp_server import tcp_server

__all__ = ["Relay"]


class Relay:
    """Passes connections to `address` on to `target`. While `cut` it ends those there are, and each new one at once."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = target
        self._is_cut = False
        self._relaying: set[asyncio.Task[None]] = set()
        self._serving: AbstractAsyncContextManager[str] = tcp_server(self._handle)

    async def __aenter__(self) -> Relay:
        self.address = await self._serving.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        await self._serving.__aexit__(kind, error, trace)

    def cut(self) -> None:
        self._is_cut = True
        for relaying in self._relaying:
            relaying.cancel()

    def let_through(self) -> None:
        self._is_cut = False

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            return
        host, _, port = self._target.rpartition(":")
        beyond, there = await asyncio.open_connection(host, int(port))
        ways = [asyncio.ensure_future(_copy(reader, there)), asyncio.ensure_future(_copy(beyond, writer))]
        self._relaying.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._relaying.difference_update(ways)
            for way in ways:
                way.cancel()
            there.close()
            await asyncio.gather(*ways, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
