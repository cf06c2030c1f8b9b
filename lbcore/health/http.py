"""Checks over HTTP/1.1 and HTTPS, on one kept connection an endpoint.

Source: Envoy source/extensions/health_checkers/http/health_checker_impl.cc.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import aiohttp
from yarl import URL

from lbcore.health.outcome import Cause, Outcome
from lbcore.health.probe import holds_in_order
from lbcore.health.tls import context_of
from lbcore.model import Endpoint
from lbcore.settings import HealthCheck, HttpHealthCheck, StatusRange

__all__ = ["HttpProbe"]

_OK = (StatusRange(start=200, end=201),)
_PASSED = Outcome()
_UNIX = "unix:"
_USER_AGENT = "lbcore/HC"  # as Envoy's Envoy/HC


class HttpProbe:
    """Asks for a path and judges status, body and headers."""

    def __init__(self, service: str, settings: HealthCheck, http: HttpHealthCheck) -> None:
        self._http = http
        self._expected = http.expected_statuses or _OK
        self._reuse = settings.reuse_connection
        self._headers = {"Host": http.host or service, "User-Agent": _USER_AGENT}
        # Whole seconds above the threshold otherwise: the timers of many connections would share a wake-up.
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout, ceil_threshold=settings.timeout + 1)
        # Longer than any interval, so that a connection is there for the next check.
        self._keep_alive = 2 * max(settings.interval, settings.unhealthy_interval or 0.0) + 60
        self._tls = settings.tls
        self._context: ssl.SSLContext | bool = context_of(settings.tls) if settings.tls else False
        self._sessions: dict[str, aiohttp.ClientSession] = {}  # by unix socket; the one of all IPs under ""
        self._urls: dict[str, URL] = {}

    async def check(self, endpoint: Endpoint) -> Outcome:
        """See `Probe`."""
        http = self._http
        try:
            async with self._session(endpoint.address).request(
                http.method,
                self._url(endpoint.address),
                headers=self._headers,
                data=http.send.content if http.send else None,
                allow_redirects=False,
                ssl=self._context,
                server_hostname=self._server_name(endpoint),
            ) as response:
                return self._judge(response, await self._body(response))
        except asyncio.TimeoutError:
            return Outcome(Cause.NETWORK_TIMEOUT, f"no answer within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(Cause.NETWORK, f"{type(error).__name__}: {error}")

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        """HTTP says nothing by itself."""

    async def forget(self, endpoint: Endpoint) -> None:
        """See `Probe`. Connections to IPs are closed when they have been idle for long."""
        self._urls.pop(endpoint.address, None)
        if session := self._sessions.pop(endpoint.address, None):
            await session.close()

    async def close(self) -> None:
        """See `Probe`."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def _body(self, response: aiohttp.ClientResponse) -> bytearray:
        """The part of the body that is looked at; the check ends with the whole response."""
        body = bytearray()
        limit = self._http.response_buffer_size
        async for part in response.content.iter_any():
            if self._http.receive and not (limit and len(body) >= limit):
                body += part
        return body[:limit] if limit else body

    def _judge(self, response: aiohttp.ClientResponse, body: bytearray) -> Outcome:
        status = response.status
        leaves = "x-envoy-immediate-health-check-fail" in response.headers
        if self._http.receive and not holds_in_order(body, self._http.receive):
            return Outcome(Cause.ACTIVE, f"status {status}, unexpected body", excluded=leaves)
        if not any(status in each for each in self._expected):
            retriable = any(status in each for each in self._http.retriable_statuses)
            return Outcome(Cause.ACTIVE, f"status {status}", retriable=retriable, excluded=leaves)
        if "x-envoy-degraded" in response.headers:
            return Outcome(reason="x-envoy-degraded", degraded=True)
        return _PASSED

    def _session(self, address: str) -> aiohttp.ClientSession:
        key = address if address.startswith(_UNIX) else ""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=self._connector(key.removeprefix(_UNIX)),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding"),
            )
        return session

    def _connector(self, path: str) -> aiohttp.BaseConnector:
        keep_alive = self._keep_alive if self._reuse else None
        if path:
            return aiohttp.UnixConnector(path, force_close=not self._reuse, keepalive_timeout=keep_alive)
        return aiohttp.TCPConnector(limit=0, force_close=not self._reuse, keepalive_timeout=keep_alive)

    def _url(self, address: str) -> URL:
        url = self._urls.get(address)
        if url is None:
            place = "unix" if address.startswith(_UNIX) else address
            scheme = "https" if self._tls else "http"
            url = self._urls[address] = URL(f"{scheme}://{place}{self._http.path}", encoded=True)
        return url

    def _server_name(self, endpoint: Endpoint) -> str | None:
        """For SNI and the certificate; None: what the URL names."""
        return (self._tls.server_name or endpoint.hostname or None) if self._tls else None
