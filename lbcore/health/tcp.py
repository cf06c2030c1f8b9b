"""Checks over TCP, and TLS: connect; with `receive`, send and wait for an answer, on one kept connection an endpoint.

Source: Envoy source/extensions/health_checkers/tcp/health_checker_impl.cc.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from async_timeout import timeout as time_limit

from lbcore.address import split_address
from lbcore.health.outcome import Cause, Outcome
from lbcore.health.probe import checked_address, holds_in_order
from lbcore.health.tls import context_of
from lbcore.model import Endpoint
from lbcore.settings import HealthCheck, TcpHealthCheck

__all__ = ["TcpProbe"]

_PASSED = Outcome()
_MOST_BYTES = 65536  # of an answer that does not match, before it counts as a wrong one
_LARGEST_READ = 4096

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TcpProbe:
    """Connects and, where asked to, compares what comes back."""

    def __init__(self, settings: HealthCheck, tcp: TcpHealthCheck) -> None:
        self._settings = settings
        self._tcp = tcp
        self._timeout = settings.timeout
        self._tls = settings.tls
        self._context: ssl.SSLContext | None = context_of(settings.tls) if settings.tls else None
        # A connection that nothing comes back on proves nothing when it is used again.
        self._reuse = settings.reuse_connection and bool(tcp.receive)
        self._kept: dict[str, _Connection] = {}

    async def check(self, endpoint: Endpoint) -> Outcome:
        """See `Probe`."""
        try:
            async with time_limit(self._timeout):
                return await self._exchange(endpoint)
        except asyncio.TimeoutError:
            return Outcome(Cause.NETWORK_TIMEOUT, f"no answer within {self._timeout:g} s")
        except (OSError, EOFError, ValueError) as error:
            return Outcome(Cause.NETWORK, f"{type(error).__name__}: {error}")

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        """TCP says nothing by itself."""

    async def forget(self, endpoint: Endpoint) -> None:
        """See `Probe`."""
        if connection := self._kept.pop(endpoint.address, None):
            _drop(connection)

    async def close(self) -> None:
        """See `Probe`."""
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            _drop(connection)

    async def _exchange(self, endpoint: Endpoint) -> Outcome:
        connection = self._kept.pop(endpoint.address, None)
        if connection is not None and connection[0].at_eof():  # closed while idle: that says nothing of the endpoint
            _drop(connection)  # the other end may wait for this one to close
            connection = None
        if connection is None:
            connection = await self._connect(endpoint)
        keep = False
        try:
            if self._tcp.receive:
                await self._converse(*connection)
                keep = self._reuse
        finally:
            if keep:
                self._kept[endpoint.address] = connection
            else:
                _drop(connection)
        return _PASSED

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends, and returns when all that is wanted has come. As in Envoy, a wrong answer and a part of the right one
        look alike: both end with the time limit."""
        if self._tcp.send:
            writer.write(self._tcp.send.content)
        answer = bytearray()
        while not holds_in_order(answer, self._tcp.receive):
            part = await reader.read(_LARGEST_READ)
            if not part:
                raise EOFError(f"closed after {len(answer)} bytes that do not match")
            answer += part
            if len(answer) > _MOST_BYTES:
                raise ValueError(f"{len(answer)} bytes that do not match")

    async def _connect(self, endpoint: Endpoint) -> _Connection:
        host, port = split_address(checked_address(endpoint, self._settings))
        name = (self._tls.server_name or endpoint.hostname or host) if self._tls else None
        if port is None:
            return await asyncio.open_unix_connection(host, ssl=self._context, server_hostname=name)
        return await asyncio.open_connection(host, port, ssl=self._context, server_hostname=name)


def _drop(connection: _Connection) -> None:
    """Closes at once, as Envoy does: no lingering with tens of thousands of checks."""
    connection[1].transport.abort()
