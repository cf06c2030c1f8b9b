"""What checks an endpoint: the `Probe` protocol, and the one that a `HealthCheck` asks for.

A probe keeps its own time limit and tells every failure as an `Outcome`. The libraries that it needs (httptools, h2,
grpcio) are imported when it is made, so that a program without them can use the other kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lbcore.health.outcome import Outcome
from lbcore.model import Endpoint
from lbcore.settings import HealthCheck, Payload

__all__ = ["Probe", "checked_address", "holds_in_order", "make_probe"]


class Probe(Protocol):
    """One kind of check, of all endpoints of a service. Write your own for other protocols."""

    async def check(self, endpoint: Endpoint) -> Outcome:
        """Checks once, in no longer than the timeout."""

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        """Calls `wake` when the endpoint says that a check is due. Returns where it will never say so."""

    async def forget(self, endpoint: Endpoint) -> None:
        """Closes what is kept open to an endpoint that is checked no more."""

    async def close(self) -> None:
        """Closes everything."""


def make_probe(service: str, settings: HealthCheck) -> Probe:
    """The probe that the settings ask for. Raises `ModuleNotFoundError` where its library is not installed."""
    if settings.http is not None:
        from lbcore.health.http import HttpProbe

        return HttpProbe(service, settings, settings.http)
    if settings.grpc is not None:
        from lbcore.health.grpc import GrpcProbe

        return GrpcProbe(service, settings, settings.grpc)
    assert settings.tcp is not None
    from lbcore.health.tcp import TcpProbe

    return TcpProbe(settings, settings.tcp)


def checked_address(endpoint: Endpoint, settings: HealthCheck) -> str:
    """Where an endpoint is checked: where it serves, or at `alt_port`. A unix socket has no port.

    >>> from lbcore.settings import TcpHealthCheck
    >>> checked_address(Endpoint("[::1]:80"), HealthCheck(tcp=TcpHealthCheck(), alt_port=8081))
    '[::1]:8081'
    """
    address = endpoint.address
    if settings.alt_port is None or address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{settings.alt_port}"


def holds_in_order(content: bytes | bytearray, wanted: Sequence[Payload]) -> bool:
    """Whether each payload is there, after the one before it, gaps allowed. Source: Envoy PayloadMatcher::match.

    >>> holds_in_order(b"+OK PONG", [Payload.of(b"OK"), Payload.of(b"PONG")])
    True
    """
    start = 0
    for payload in wanted:
        found = content.find(payload.content, start)
        if found < 0:
            return False
        start = found + len(payload.content)
    return True
