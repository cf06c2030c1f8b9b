"""Listeners and routes, for Envoys that take them from lbcore. Values only.

Source: the part of Envoy's listener.proto and route_components.proto that a front proxy needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbcore.errors import InvalidSetting

__all__ = ["HashOn", "Listener", "Route"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOn:
    """What of a request is hashed to choose the endpoint; exactly one field is set.

    Source: Envoy RouteAction.HashPolicy.
    """

    header: str = ""
    cookie: str = ""
    query_parameter: str = ""
    source_ip: bool = False

    def __post_init__(self) -> None:
        if [bool(self.header), bool(self.cookie), bool(self.query_parameter), self.source_ip].count(True) != 1:
            raise InvalidSetting("hash_on: expected exactly one of header, cookie, query_parameter, source_ip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Requests whose path begins with `prefix` go to `service`."""

    prefix: str
    service: str
    hash_on: HashOn | None = None

    def __post_init__(self) -> None:
        if not self.prefix.startswith("/"):
            raise InvalidSetting(f"prefix {self.prefix!r}: expected it to start with /")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An address that Envoy listens on, and where its requests go; the first route that matches wins."""

    name: str
    address: str
    routes: tuple[Route, ...]
