"""A TCP server on the test's own event loop that leaves nothing behind: no connection, no handler."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["Handler", "tcp_server"]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp_server(
    handler: Handler, address: str = "127.0.0.1:0", context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serves every connection by `handler`, and closes it then; yields the address, `IP:PORT` or `unix:/path`."""
    handling: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        handling[task] = writer
        try:
            with suppress(OSError, EOFError):
                await handler(reader, writer)
                await writer.drain()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            del handling[task]

    if address.startswith("unix:"):
        server = await asyncio.start_unix_server(handle, address.removeprefix("unix:"), backlog=1024)
    else:
        host, _, port = address.rpartition(":")
        server = await asyncio.start_server(handle, host, int(port), ssl=context, backlog=1024)
        address = f"{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield address
    finally:
        server.close()
        await asyncio.sleep(0.01)  # what has been accepted gets its handler
        for writer in list(handling.values()):
            writer.transport.abort()
        await asyncio.gather(*(task for task in handling if task), return_exceptions=True)
        await server.wait_closed()
