"""How a `Prober` asks for load: over HTTP by the ORCA header of any answer, over gRPC by ORCA's service or the
trailers of any call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lbcore.address import grpc_target
from lbcore.model import Endpoint, LoadReport
from lbcore.orca import InvalidReport, load_report_from_binary, load_report_from_headers
from lbcore.validation import number, text

if TYPE_CHECKING:
    import grpc.aio

__all__ = ["GrpcLoadProbe", "HttpLoadProbe"]

_LEAST = 0.001  # seconds
_ORCA = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"


class HttpLoadProbe:
    """GETs a path; the answer's `endpoint-load-metrics` header is the report, whatever its status.

    Args:
        path: what to ask for.
        host: the Host header; None: the address.
        timeout: seconds.

    Needs aiohttp. Endpoints are at IP addresses or names and ports.
    """

    def __init__(self, path: str = "/", *, host: str | None = None, timeout: float = 1.0) -> None:
        import aiohttp

        self._path = text(path, "path")
        self._headers = {} if host is None else {"Host": text(host, "host")}
        self._timeout = aiohttp.ClientTimeout(total=number(timeout, "timeout", _LEAST))
        self._errors = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, endpoint: Endpoint) -> LoadReport | None:
        """See `LoadProbe`."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.get(
                f"http://{endpoint.address}{self._path}", headers=self._headers, allow_redirects=False
            ) as response:
                report = load_report_from_headers(response.headers)
                await response.read()  # keeps the connection
                return report
        except self._errors:  # an InvalidReport is a ValueError
            return None

    async def close(self) -> None:
        """See `LoadProbe`."""
        if self._session is not None:
            await self._session.close()


class GrpcLoadProbe:
    """Asks ORCA's own service for one report, or calls a unary method whose trailing metadata has one.

    Args:
        method: of a unary call, its full name, such as `/grpc.health.v1.Health/Check`, whose `endpoint-load-metrics`
            trailer is the report, whatever its status; None: `xds.service.orca.v3.OpenRcaService`.
        request: of that call, serialized.
        timeout: seconds.

    grpcio keeps the binary trailer, `endpoint-load-metrics-bin`, to itself: servers that send no other are asked by the
    service. Needs grpcio.
    """

    def __init__(self, method: str | None = None, request: bytes = b"", *, timeout: float = 1.0) -> None:

        self._method = None if method is None else text(method, "method")
        self._request = request
        self._timeout = number(timeout, "timeout", _LEAST)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def ask(self, endpoint: Endpoint) -> LoadReport | None:
        """See `LoadProbe`."""
        import grpc.aio

        channel = self._channels.get(endpoint.address)
        if channel is None:
            channel = self._channels[endpoint.address] = grpc.aio.insecure_channel(
                grpc_target(endpoint.address), [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
            )
        try:
            if self._method is None:
                return await self._from_service(channel)
            return await self._from_trailers(channel, self._method)
        except (grpc.aio.AioRpcError, InvalidReport):
            return None

    async def forget(self, endpoint: Endpoint) -> None:
        """See `KeepsConnections`."""
        if channel := self._channels.pop(endpoint.address, None):
            await channel.close(None)

    async def close(self) -> None:
        """See `LoadProbe`."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    async def _from_service(self, channel: grpc.aio.Channel) -> LoadReport | None:
        """The first report of a stream, which servers send at once."""
        stream = channel.unary_stream(_ORCA, request_serializer=bytes, response_deserializer=bytes)
        call = stream(b"", timeout=self._timeout)
        try:
            async for report in call:
                return load_report_from_binary(report)
            return None
        finally:
            call.cancel()

    async def _from_trailers(self, channel: grpc.aio.Channel, method: str) -> LoadReport | None:
        unary = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        trailers = await unary(self._request, timeout=self._timeout).trailing_metadata()
        return load_report_from_headers([(name, value) for name, value in trailers or ()])
