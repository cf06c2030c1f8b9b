"""Checks by grpc.health.v1.Health: a Check at each interval and, where asked for, a Watch beside it.

A Watch alone would not do: a host that hangs keeps its stream open and says nothing, and pings often enough to find out
are refused by servers with default settings (GOAWAY ENHANCE_YOUR_CALM). So whatever a stream says only has the next
Check made at once.

Source: Envoy source/extensions/health_checkers/grpc/health_checker_impl.cc; gRPC doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from lbcore.address import grpc_target
from lbcore.errors import InvalidSetting
from lbcore.health.outcome import Cause, Outcome
from lbcore.health.probe import checked_address
from lbcore.model import Endpoint
from lbcore.settings import CheckTls, GrpcHealthCheck, HealthCheck

__all__ = ["GrpcProbe"]

_SERVICE = "/grpc.health.v1.Health/"
_PASSED = Outcome()
_SERVING = health_pb2.HealthCheckResponse.SERVING
_LONGEST_RECONNECT = 1000  # ms; grpc's own two minutes would hide that a host is back


class GrpcProbe:
    """Asks for the health of one gRPC service at each endpoint."""

    def __init__(self, service: str, settings: HealthCheck, health: GrpcHealthCheck) -> None:
        self._settings = settings
        self._timeout = settings.timeout
        self._metadata = tuple((each.key, each.value) for each in health.initial_metadata)
        self._interval = settings.interval
        self._watching = health.watch
        self._reuse = settings.reuse_connection
        self._request = health_pb2.HealthCheckRequest(service=health.service_name)
        self._tls = settings.tls
        self._credentials = _credentials(settings.tls) if settings.tls else None
        self._options: list[tuple[str, Any]] = [
            ("grpc.default_authority", health.authority or service),
            ("grpc.primary_user_agent", "lbcore/HC"),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100 + round(settings.timeout * 2000)),  # a connection has no less time
            ("grpc.max_reconnect_backoff_ms", max(100, min(round(settings.interval * 1000), _LONGEST_RECONNECT))),
        ]
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def check(self, endpoint: Endpoint) -> Outcome:
        """See `Probe`."""
        channel = self._channel(endpoint)
        call = channel.unary_unary(
            f"{_SERVICE}Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await call(self._request, timeout=self._timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return self._failure(channel, error)
        finally:
            if not self._reuse:
                await self.forget(endpoint)
        if answer.status == _SERVING:
            return _PASSED
        return Outcome(Cause.ACTIVE, _name_of(answer.status))

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        """See `Probe`."""
        if not self._watching:
            return
        while True:
            channel = self._channel(endpoint)
            method = channel.unary_stream(
                f"{_SERVICE}Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                async for _ in method(self._request, metadata=self._metadata):
                    wake()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
            wake()
            await asyncio.sleep(self._interval)

    async def forget(self, endpoint: Endpoint) -> None:
        """See `Probe`."""
        if channel := self._channels.pop(endpoint.address, None):
            await channel.close(None)

    async def close(self) -> None:
        """See `Probe`."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    def _channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint.address)
        if channel is None:
            target, options = grpc_target(checked_address(endpoint, self._settings)), self._options
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(target, options)
            else:
                assert self._tls is not None
                if name := self._tls.server_name or endpoint.hostname:
                    options = [*options, ("grpc.ssl_target_name_override", name)]
                channel = grpc.aio.secure_channel(target, self._credentials, options)
            self._channels[endpoint.address] = channel
        return channel

    def _failure(self, channel: grpc.aio.Channel, error: grpc.aio.AioRpcError) -> Outcome:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Outcome(Cause.NETWORK_TIMEOUT, f"no answer within {self._timeout:g} s")
        # A broken connection and an answer UNAVAILABLE look alike but for what has become of the connection.
        lost = code is grpc.StatusCode.UNAVAILABLE and channel.get_state() is not grpc.ChannelConnectivity.READY
        return Outcome(Cause.NETWORK if lost else Cause.ACTIVE, f"{code.name}: {details}" if details else code.name)


def _name_of(status: int) -> str:
    names = health_pb2.HealthCheckResponse.ServingStatus
    return names.Name(status) if status in names.values() else f"status {status}"


def _credentials(tls: CheckTls) -> grpc.ChannelCredentials:
    if not tls.verify:
        raise InvalidSetting("tls.verify False: expected true for grpc, which trusts no certificate unseen")
    return grpc.ssl_channel_credentials(Path(tls.ca_file).read_bytes() if tls.ca_file else None)
