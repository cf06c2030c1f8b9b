"""Checks over HTTP/1.1, HTTP/2 and HTTPS, on one kept connection an endpoint.

Source: Envoy source/extensions/health_checkers/http/health_checker_impl.cc.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from async_timeout import timeout as time_limit

from lbcore.address import split_address
from lbcore.health.exchange import Answer, BrokenExchange, Connection, Request
from lbcore.health.outcome import Cause, Outcome
from lbcore.health.probe import checked_address, holds_in_order
from lbcore.health.tls import context_of
from lbcore.model import Endpoint
from lbcore.settings import HeaderValue, HealthCheck, HttpHealthCheck, StatusRange

if TYPE_CHECKING:
    from lbcore.health.http1 import Http1Connection
    from lbcore.health.http2 import Http2Connection

__all__ = ["HttpProbe"]

_OK = (StatusRange(start=200, end=201),)
_PASSED = Outcome()
_DEGRADED = Outcome(reason="x-envoy-degraded", degraded=True)
_USER_AGENT = "lbcore/HC"  # as Envoy's Envoy/HC
_UPSTREAM_CLUSTER = b"x-envoy-upstream-healthchecked-cluster"


class HttpProbe:
    """Asks for a path and judges status, body and headers."""

    def __init__(self, service: str, settings: HealthCheck, http: HttpHealthCheck) -> None:
        self._settings = settings
        self._http = http
        self._expected = http.expected_statuses or _OK
        self._request = _request(service, settings, http)
        self._protocol = _protocol(http)
        self._context = _context(settings, http)
        self._kept: dict[str, Connection] = {}  # by the endpoint's address

    async def check(self, endpoint: Endpoint) -> Outcome:
        """See `Probe`."""
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        try:
            answer = await self._exchange(endpoint, deadline)
        except asyncio.TimeoutError:
            return Outcome(Cause.NETWORK_TIMEOUT, f"no answer within {self._settings.timeout:g} s")
        except (BrokenExchange, OSError) as error:
            reason = str(error) if isinstance(error, BrokenExchange) else f"{type(error).__name__}: {error}"
            return Outcome(Cause.NETWORK, reason)
        return self._judge(answer)

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        """HTTP says nothing by itself."""

    async def forget(self, endpoint: Endpoint) -> None:
        """See `Probe`."""
        if connection := self._kept.pop(endpoint.address, None):
            connection.abort()

    async def close(self) -> None:
        """See `Probe`."""
        kept, self._kept = self._kept, {}
        for connection in kept.values():
            connection.abort()

    async def _exchange(self, endpoint: Endpoint, deadline: float) -> Answer:
        connection = self._kept.pop(endpoint.address, None)
        if connection is not None and connection.reusable:
            try:
                return await self._ask(endpoint, connection, deadline)
            except BrokenExchange as error:
                if not error.unanswered:
                    raise
                # It was closed while idle, as the request was on its way: that says nothing of the endpoint.
        elif connection is not None:
            connection.abort()  # the server is going away, and may wait for this end to close
        remaining = deadline - asyncio.get_running_loop().time()
        async with time_limit(remaining):
            connection = await self._connect(endpoint)
        return await self._ask(endpoint, connection, deadline)

    async def _ask(self, endpoint: Endpoint, connection: Connection, deadline: float) -> Answer:
        """The answer, in time; the connection is kept, or closed."""
        answer = connection.send(self._request)
        timer = asyncio.get_running_loop().call_at(deadline, _time_out, answer)
        keep = False
        try:
            found = await answer
            keep = self._settings.reuse_connection and connection.reusable
        finally:
            timer.cancel()
            if keep:
                self._kept[endpoint.address] = connection
            else:
                connection.abort()  # at once, as Envoy: no lingering with tens of thousands of checks
        return found

    async def _connect(self, endpoint: Endpoint) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = split_address(checked_address(endpoint, self._settings))
        name = self._server_name(endpoint, "unix" if port is None else host) if self._context else None
        made: Connection
        if port is None:
            _, made = await loop.create_unix_connection(self._protocol, host, ssl=self._context, server_hostname=name)
        else:
            _, made = await loop.create_connection(self._protocol, host, port, ssl=self._context, server_hostname=name)
        return made

    def _server_name(self, endpoint: Endpoint, host: str) -> str:
        """For SNI and the certificate."""
        named = self._settings.tls.server_name if self._settings.tls else ""
        return named or endpoint.hostname or host

    def _judge(self, answer: Answer) -> Outcome:
        status, http = answer.status, self._http
        leaves = b"x-envoy-immediate-health-check-fail" in answer.headers
        if http.receive and not holds_in_order(answer.body, http.receive):
            return Outcome(Cause.ACTIVE, f"status {status}, unexpected body", excluded=leaves)
        if not any(status in each for each in self._expected):
            retriable = any(status in each for each in http.retriable_statuses)
            return Outcome(Cause.ACTIVE, f"status {status}", retriable=retriable, excluded=leaves)
        if http.service_name_matcher is not None:
            name = answer.headers.get(_UPSTREAM_CLUSTER, b"").decode(errors="replace")
            if not http.service_name_matcher.matches(name):
                return Outcome(Cause.ACTIVE, f"service {name!r} answered")
        return _DEGRADED if b"x-envoy-degraded" in answer.headers else _PASSED


def _time_out(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(asyncio.TimeoutError())


def _protocol(http: HttpHealthCheck) -> Callable[[], Http1Connection | Http2Connection]:
    """The kind of connection; its library is imported here."""
    if http.codec_client_type == "http2":
        from lbcore.health.http2 import Http2Connection

        return Http2Connection
    from lbcore.health.http1 import Http1Connection

    return Http1Connection


def _context(settings: HealthCheck, http: HttpHealthCheck) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = context_of(settings.tls)
    context.set_alpn_protocols(["h2" if http.codec_client_type == "http2" else "http/1.1"])
    return context


def _request(service: str, settings: HealthCheck, http: HttpHealthCheck) -> Request:
    limit: int | None = 0
    if http.receive:
        limit = http.response_buffer_size or None
    headers = [("user-agent", _USER_AGENT)]
    headers = [(name, value) for name, value in headers if name not in http.request_headers_to_remove]
    return Request(
        method=http.method,
        authority=http.host or service,
        path=http.path,
        scheme="https" if settings.tls else "http",
        headers=tuple(_with_headers(headers, http.request_headers_to_add)),
        body=http.send.content if http.send else b"",
        body_limit=limit,
    )


def _with_headers(headers: list[tuple[str, str]], added: Iterable[HeaderValue]) -> list[tuple[str, str]]:
    """Source: Envoy HeaderParser::evaluateHeaders."""
    for each in added:
        there = any(name == each.key for name, _ in headers)
        if (each.append_action == "add_if_absent" and there) or (
            each.append_action == "overwrite_if_exists" and not there
        ):
            continue
        if each.append_action.startswith("overwrite"):
            headers = [(name, value) for name, value in headers if name != each.key]
        headers.append((each.key, each.value))
    return headers
