"""A server that speaks HTTP/2 alone, with prior knowledge or over TLS, on the test's own event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import h2.config
import h2.connection
import h2.events

from tests.harness.tcp_server import tcp_server

__all__ = ["Http2Server", "http2_server"]


@dataclass
class Http2Server:
    """What it answers, and what it has heard; `goes_away`: it says so before each answer, or after it.

    `connections` counts those that it has accepted, `closed` those of them that the client has closed.
    """

    address: str = ""
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b"ok"
    resets: bool = False
    goes_away: Literal["", "before", "after"] = ""
    connections: int = 0
    closed: int = 0
    requests: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _open: list[tuple[h2.connection.H2Connection, asyncio.StreamWriter]] = field(default_factory=list)

    def go_away(self) -> None:
        """Says so at once, on every connection."""
        for http, writer in self._open:
            http.close_connection()
            writer.write(http.data_to_send())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        writer.write(http.data_to_send())
        self._open.append((http, writer))
        try:
            await self._serve(http, reader, writer)
        finally:
            self._open.remove((http, writer))
            self.closed += 1

    async def _serve(
        self, http: h2.connection.H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        body = b""
        while received := await reader.read(65536):
            if http.state_machine.state is h2.connection.ConnectionState.CLOSED:
                continue  # it has gone away, and waits for the client to close
            for event in http.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    self.requests.append({str(name): str(value) for name, value in event.headers})
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    self.bodies.append(body)
                    body = b""
                    writer.write(self._answer(http, event.stream_id))
            writer.write(http.data_to_send())

    def _answer(self, http: h2.connection.H2Connection, stream: int) -> bytes:
        if self.resets:
            http.reset_stream(stream)
            return http.data_to_send()
        before = http.data_to_send()
        http.send_headers(stream, [(":status", str(self.status)), *self.headers])
        http.send_data(stream, self.body, end_stream=True)
        answer = http.data_to_send()
        if self.goes_away:
            http.close_connection()  # h2 lets nothing follow it; HTTP/2 does
        farewell = http.data_to_send()
        return before + (farewell + answer if self.goes_away == "before" else answer + farewell)


@asynccontextmanager
async def http2_server(context: ssl.SSLContext | None = None) -> AsyncIterator[Http2Server]:
    """Serves until the block ends."""
    server = Http2Server()
    if context is not None:
        context.set_alpn_protocols(["h2"])
    async with tcp_server(server.serve, context=context) as address:
        server.address = address
        yield server
