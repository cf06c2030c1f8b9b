"""Listeners and routes, for Envoys that take them from lbcore. Values only.

Source: the part of Envoy's listener.proto and route_components.proto that a front proxy needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from lbcore.address import canonical_address, is_hostname
from lbcore.errors import InvalidSetting, Mistake
from lbcore.fault import Fault
from lbcore.model import json_metadata
from lbcore.request_hash import HashPolicy
from lbcore.retry import RetryPolicy
from lbcore.schema import Checked, attempt
from lbcore.validation import (
    UINT32_MAX,
    Seconds,
    Whole,
    refusal,
    resource_name,
    url_path,
)

__all__ = ["Listener", "Route", "RouteAction", "listener_clashes"]


def socket_address(value: object, field: str) -> str:
    """Where to listen, in canonical form: an IP address and port, or a unix socket."""
    address = canonical_address(value, field)
    if is_hostname(address):
        raise refusal(field, address, 'expected an IP address to listen on, "IP:PORT" or "[IPv6]:PORT"')
    return address


def service_or_none(value: object, field: str) -> str:
    """The name of a service, or nothing."""
    return "" if value == "" else resource_name(value, field)


def service_weights(value: object, field: str) -> dict[str, int]:
    """Names of services, each with its share of the requests; the shares add up to 1 to 4294967295 (gRFC A28)."""
    if not isinstance(value, Mapping):
        raise refusal(field, value, "expected a mapping of services to weights")
    mistakes: list[Mistake] = []
    weights: dict[str, int] = {}
    for name, weight in value.items():
        wrong: list[Mistake] = []
        weights[attempt(resource_name, name, "service", wrong)] = attempt(_WEIGHT, weight, "weight", wrong)
        mistakes += (Mistake((field, str(name)), each.what) for each in wrong)
    if mistakes:
        raise InvalidSetting(*mistakes)
    if weights and not 1 <= sum(weights.values()) <= UINT32_MAX:
        raise refusal(field, value, f"expected weights that add up to 1 to {UINT32_MAX}")
    return weights


_WEIGHT = Whole(0, UINT32_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAction(Checked):
    """What is done with a request that a route matches.

    Fields:
        services: several services with their shares of the requests, for a canary: `{web: 90, web-next: 10}`.
        timeout: for the whole of a request with its retries; 0 is none. Where it is not set, Envoy waits 15 seconds
            and gRPC for ever.
        retry: when a request is tried again.
        fault: delays and failures made on purpose.

    Source: Envoy RouteAction; gRPC reads the part that gRFC A28, A31, A33, A42 and A44 name.
    """

    services: Annotated[Mapping[str, int], service_weights] = field(default_factory=dict)
    timeout: Annotated[float, Seconds(0.0)] | None = None
    retry: RetryPolicy | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(RouteAction):
    """Requests whose path begins with `prefix` go to `service`, or to `services` by weight.

    Fields:
        subset: metadata of the endpoints that may serve, one of the service's subsets; None: what its fallback is.
        hash_on: what of a request is hashed to choose the endpoint; None: what the service itself says.
    """

    prefix: Annotated[str, url_path]
    service: Annotated[str, service_or_none] = ""
    subset: Annotated[Mapping[str, Any], json_metadata] | None = field(default=None, hash=False)
    hash_on: HashPolicy | None = None

    def contradictions(self) -> Iterator[Mistake]:
        if bool(self.service) == bool(self.services):
            yield Mistake((), "expected either service or services")

    @property
    def destinations(self) -> Mapping[str, int]:
        """The services that its requests go to, with their shares."""
        return self.services or {self.service: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener(Checked):
    """An address that Envoy listens on, and where its requests go; the first route that matches wins."""

    name: Annotated[str, resource_name]
    address: Annotated[str, socket_address]
    routes: tuple[Route, ...]


def listener_clashes(listeners: Iterable[Listener]) -> Iterator[Mistake]:
    """Names and addresses that two listeners have; Envoy could not tell them apart, or not bind the second."""
    names: dict[str, int] = {}
    addresses: dict[str, int] = {}
    for index, listener in enumerate(listeners):
        if (first := names.setdefault(listener.name, index)) != index:
            yield Mistake((index, "name"), f"name {listener.name!r}: expected each name once", see=(first, "name"))
        if (first := addresses.setdefault(listener.address, index)) != index:
            what = f"address {listener.address!r}: expected each address once"
            yield Mistake((index, "address"), what, see=(first, "address"))
