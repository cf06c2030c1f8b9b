"""EndpointSlices to endpoints: conditions to health, zones to localities, a port by its name or number.

A Service has any number of slices, each of one family of addresses; an endpoint may be in two of them for a moment,
while it moves. Source: Kubernetes discovery.k8s.io/v1 EndpointSlice, and its docs ("Duplicate endpoints").
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import msgspec

from lbcore.errors import InvalidSetting
from lbcore.membership import Membership
from lbcore.model import Endpoint, Health, Locality
from lbcore.sources.feed import FeedBroken

__all__ = ["EndpointSlice", "SliceTable"]


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str = ""


class _Conditions(msgspec.Struct):
    """None is unknown: then `ready` counts as true, `serving` as `ready`, `terminating` as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Zone(msgspec.Struct):
    name: str


class _Hints(msgspec.Struct, rename="camel"):
    for_zones: list[_Zone] | None = None


class _Target(msgspec.Struct):
    name: str = ""


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[str]
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: _Target | None = None
    hints: _Hints | None = None


class _Port(msgspec.Struct):
    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, rename="camel"):
    """What lbcore reads of one."""

    metadata: _Metadata
    address_type: str = "IPv4"
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class SliceTable:
    """The slices of one Service, and their endpoints at the port of a name or number; with "" the only one there is.

    What is made of a slice is kept until the slice changes: a Service may have a hundred of a hundred endpoints each.
    """

    def __init__(self, port: str) -> None:
        self._port = port
        self._slices: dict[str, EndpointSlice] = {}
        self._made: dict[str, tuple[Endpoint, ...]] = {}

    def replace(self, slices: Iterable[EndpointSlice]) -> None:
        """These are all."""
        listed = {each.metadata.name: each for each in slices}
        for name in self._slices.keys() - listed.keys():
            self.remove(name)
        for name, each in listed.items():
            if self._slices.get(name) != each:  # the version alone may be that of another past, from a backup
                self.put(each)

    def put(self, changed: EndpointSlice) -> None:
        """A slice that is new or different."""
        self._slices[changed.metadata.name] = changed
        self._made.pop(changed.metadata.name, None)

    def remove(self, name: str) -> None:
        """A slice that is gone."""
        self._slices.pop(name, None)
        self._made.pop(name, None)

    def membership(self) -> Membership:
        """All endpoints. Of a Service in both families the IPv4 addresses count, or each pod would be there twice.

        A slice without the port does not count as long as another has it: while pods that listen there are rolled out,
        the older ones are in slices of their own. Raises `FeedBroken` where none has it, or there are no IP addresses.
        """
        ordered = [each for _, each in sorted(self._slices.items()) if each.endpoints]
        family = "IPv4" if any(each.address_type == "IPv4" for each in ordered) else "IPv6"
        usable = [each for each in ordered if each.address_type == family]
        if ordered and not usable:
            shown = ordered[0]
            raise FeedBroken(f"slice {shown.metadata.name}: addressType {shown.address_type!r}: expected IPv4 or IPv6")
        made = [self._endpoints(each) for each in usable]
        if made and not any(made):
            raise FeedBroken(_no_port(usable[0], self._port))
        endpoints: dict[str, Endpoint] = {}
        for endpoint in chain(*made):
            # While a pod moves from one slice to another both have it, and the better state is the newer one.
            if (other := endpoints.get(endpoint.address)) is None or other.health is not Health.HEALTHY:
                endpoints[endpoint.address] = endpoint
        return Membership(tuple(endpoints.values()))

    def _endpoints(self, within: EndpointSlice) -> tuple[Endpoint, ...]:
        """None of them where the slice does not have the port."""
        made = self._made.get(within.metadata.name)
        if made is None:
            port = _port_number(within, self._port)
            made = tuple(_endpoint(shown, port) for shown in within.endpoints or ()) if port else ()
            self._made[within.metadata.name] = made
        return made


def _port_number(within: EndpointSlice, wanted: str) -> int | None:
    """None where it is not there. Raises `FeedBroken` where there are several and none is named."""
    ports = _ports(within)
    if wanted in ports:
        return ports[wanted]
    if wanted.isdigit() and (not ports or int(wanted) in ports.values()):
        return int(wanted)  # a slice without ports leaves them to whoever connects (headless Services)
    if wanted or not ports:
        return None
    if len(set(ports.values())) > 1:
        raise FeedBroken(_no_port(within, wanted))
    return next(iter(ports.values()))


def _ports(within: EndpointSlice) -> dict[str, int]:
    return {each.name or "": each.port for each in within.ports or () if each.port}


def _no_port(within: EndpointSlice, wanted: str) -> str:
    there = ", ".join(f"{name or 'unnamed'} {number}" for name, number in _ports(within).items()) or "none"
    asked = f"port {wanted!r}: no such port" if wanted else "no port is named"
    return f"slice {within.metadata.name}: {asked}; there are: {there}"


def _endpoint(shown: _Endpoint, port: int) -> Endpoint:
    """Raises `FeedBroken` at what is no address."""
    host = shown.addresses[0] if shown.addresses else ""  # all addresses mean the same pod (docs, EndpointSlice API)
    metadata: dict[str, Any] = {"kubernetes_node": shown.node_name, "kubernetes_pod": _name(shown.target_ref)}
    if shown.hints and shown.hints.for_zones:
        metadata["kubernetes_zone_hints"] = [zone.name for zone in shown.hints.for_zones]
    try:
        return Endpoint(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            health=_health(shown.conditions),
            locality=Locality(zone=shown.zone or ""),
            hostname=shown.hostname or "",
            metadata={key: value for key, value in metadata.items() if value},
        )
    except InvalidSetting as wrong:
        raise FeedBroken(f"not as expected: {wrong}") from None


def _name(target: _Target | None) -> str:
    return target.name if target else ""


def _health(conditions: _Conditions) -> Health:
    ready = conditions.ready is not False
    if conditions.terminating:
        serving = ready if conditions.serving is None else conditions.serving
        return Health.DRAINING if serving else Health.UNHEALTHY
    return Health.HEALTHY if ready else Health.UNHEALTHY
