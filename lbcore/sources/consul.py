"""Instances of a Consul service and their health, by blocking queries: the agent answers when something changes.

Health, weights and addresses are read as Consul's own xDS server reads them (agent/xds/endpoints.go,
calculateEndpointHealthAndWeight), save that a warning is a setting here and that maintenance drains. An agent that
knows no leader, or has not heard from it for long, says nothing: it may be cut off from the others.

Since Consul 1.10 an agent answers a query that waits from a stream that the servers feed, which carries no word of the
leader, and which says nobody while it is not loaded or its token has lost its rights. So such an answer adds and
changes, but that all are gone is asked of the servers, by a query that does not wait.
Source: developer.hashicorp.com/consul/api-docs/features/blocking, /api-docs/health; agent/rpcclient/health,
agent/submatview, agent/blockingquery in Consul.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from urllib.parse import quote

import aiohttp
import msgspec

from lbcore.address import is_hostname
from lbcore.errors import InvalidSetting
from lbcore.membership import Membership
from lbcore.model import Endpoint, Health, Locality
from lbcore.source import Consul
from lbcore.sources.feed import Feed, FeedBroken, Timing
from lbcore.sources.http import HttpClient, body, decoded

__all__ = ["ConsulFeed"]

LOG = logging.getLogger(__name__)

_PACE = 0.1  # seconds from one query to the next at least, however often the index moves
_PACE_IN_DOUBT = 1.0  # after the servers were asked because a stream was not believed, lest it be so again and again
_LONGEST_SILENCE = 30_000  # milliseconds since the answering server has heard from the leader
_MAINTENANCE = ("_node_maintenance", "_service_maintenance:")  # structs.NodeMaint, structs.ServiceMaintPrefix


class _Place(msgspec.Struct, rename="pascal"):
    region: str = ""
    zone: str = ""


class _Weights(msgspec.Struct, rename="pascal"):
    passing: int = 1
    warning: int = 1


class _Node(msgspec.Struct, rename="pascal"):
    address: str
    node: str = ""
    datacenter: str = ""
    meta: dict[str, str] | None = None
    locality: _Place | None = None


class _Port(msgspec.Struct, rename="pascal"):
    name: str
    port: int
    default: bool = False


class _Service(msgspec.Struct, rename="pascal"):
    port: int = 0
    ports: list[_Port] | None = None  # Consul 1.22 and later; an agent that is older than its servers says `port` alone
    id: str = msgspec.field(name="ID", default="")
    address: str = ""
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    weights: _Weights | None = None
    locality: _Place | None = None


class _Check(msgspec.Struct, rename="pascal"):
    status: str
    check_id: str = msgspec.field(name="CheckID", default="")


class _Instance(msgspec.Struct, rename="pascal"):
    node: _Node
    service: _Service
    checks: list[_Check] = []


class ConsulFeed(Feed):
    """Blocking queries for one service; `index` is where the next one goes on."""

    def __init__(self, source: Consul, timing: Timing) -> None:
        self._source = source
        self._timing = timing
        self._client = HttpClient(source)
        self._index = 0
        self._left_out: frozenset[str] = frozenset()  # instances that were told of in the log

    async def follow(self) -> AsyncGenerator[Membership | FeedBroken, None]:
        url = f"{self._source.url.rstrip('/')}/v1/health/service/{quote(self._source.service, safe='')}"
        self._index = 0  # so that the first query does not wait: its answer ends staleness, changed or not
        believed = True
        async with self._client.session() as session:
            while True:
                asked, pace = self._timing.clock(), _PACE if believed else _PACE_IN_DOUBT
                query, wait = self._query()
                async with self._client.get(session, url, query=query, held=wait * 17 / 16) as response:
                    instances = decoded(await body(response), list[_Instance])
                    believed = self._take_in(response, empty=not instances)
                if believed:
                    yield self._members(instances)
                    if (early := asked + pace - self._timing.clock()) > 0:
                        await self._timing.sleep(early)

    def _query(self) -> tuple[Mapping[str, str], float]:
        """Parameters, and the seconds that the agent holds the query, to which it adds up to a sixteenth."""
        source = self._source
        query = {"dc": source.datacenter, "tag": source.tag}
        query = {name: value for name, value in query.items() if value}
        if source.stale:
            query["stale"] = ""
        if not self._index:
            return query, 0.0
        return {**query, "index": str(self._index), "wait": f"{source.wait:g}s"}, source.wait

    def _take_in(self, response: aiohttp.ClientResponse, *, empty: bool) -> bool:
        """Moves the index on; returns whether the answer is believed. Raises `FeedBroken` where it cannot be.

        Index 0 asks the servers anew: after one that went backwards, and where a stream told nothing or of nobody.
        """
        streamed = response.headers.get("X-Consul-Query-Backend") == "streaming"
        if not streamed and response.headers.get("X-Consul-KnownLeader") == "false":
            raise FeedBroken("the agent knows no leader")
        silence = _number(response, "X-Consul-LastContact", 0)
        if silence > _LONGEST_SILENCE:
            raise FeedBroken(f"the server that answers has not heard from the leader for {silence / 1000:g} s")
        if empty and response.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
            raise FeedBroken("the token may not see any instance: expected service:read and node:read")
        index = _number(response, "X-Consul-Index", -1)
        if index < 0:
            raise FeedBroken("no X-Consul-Index in the answer: expected Consul")
        known, self._index = self._index, max(index, 1)
        if streamed and empty and not known:
            raise FeedBroken("the agent asked a stream, not the servers, and the stream says nobody")
        if index < known or (streamed and empty):
            self._index = 0
            return False
        if streamed and index == known:
            self._index = 0
        return True

    def _members(self, instances: Iterable[_Instance]) -> Membership | FeedBroken:
        """Who can be connected to; where there are instances but none that can, that is a failure."""
        endpoints: dict[str, Endpoint] = {}
        left_out: dict[str, str] = {}
        for instance in sorted(instances, key=lambda each: (each.node.node, each.service.id)):
            try:
                endpoint = _endpoint(instance, self._source)
            except InvalidSetting as wrong:
                left_out[instance.service.id] = str(wrong)
                continue
            # An instance that was started again under another id is there twice until the old one is reaped.
            if (other := endpoints.get(endpoint.address)) is None or other.health is Health.UNHEALTHY:
                endpoints[endpoint.address] = endpoint
        for name in left_out.keys() - self._left_out:
            LOG.warning("instance %r of %r is left out: %s", name, self._source.service, left_out[name])
        self._left_out = frozenset(left_out)
        if left_out and not endpoints:
            name, why = next(iter(left_out.items()))
            return FeedBroken(f"no instance is of use: {name!r}: {why}")
        return Membership(tuple(endpoints.values()))


def _endpoint(instance: _Instance, source: Consul) -> Endpoint:
    """Raises `InvalidSetting` at an address that nobody can connect to without resolving it, or without the port."""
    node, service = instance.node, instance.service
    host = service.address or node.address
    port = _port(service, source.port)
    health, weight = _health_and_weight(instance, source)
    place = service.locality or node.locality
    endpoint = Endpoint(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        health=health,
        weight=weight,
        locality=Locality(place.region, place.zone) if place else Locality(node.datacenter),
        metadata={
            **(node.meta or {}),
            **(service.meta or {}),
            "consul_node": node.node,
            "consul_id": service.id,
            "consul_tags": service.tags or [],
        },
    )
    if is_hostname(endpoint.address):
        raise InvalidSetting(f"address {endpoint.address!r}: expected an IP address")
    return endpoint


def _port(service: _Service, wanted: str) -> int:
    ports = service.ports or []
    if wanted:
        for each in ports:
            if each.name == wanted:
                return each.port
        there = ", ".join(f"{each.name} {each.port}" for each in ports) or "none with a name"
        raise InvalidSetting(f"port {wanted!r}: no such port; there are: {there}")
    return service.port or next((each.port for each in ports if each.default), 0)


def _health_and_weight(instance: _Instance, source: Consul) -> tuple[Health, int]:
    """The worst check decides; a weight of 0 takes an instance out, as in Consul."""
    weights = instance.service.weights or _Weights()
    statuses = {check.status for check in instance.checks}
    if any(check.status == "critical" and check.check_id.startswith(_MAINTENANCE) for check in instance.checks):
        return Health.DRAINING, max(weights.passing, 1)
    if statuses - {"passing", "warning"}:
        return Health.UNHEALTHY, max(weights.passing, 1)
    health, weight = (
        (Health[source.warning.upper()], weights.warning)
        if "warning" in statuses
        else (Health.HEALTHY, weights.passing)
    )
    return (health, weight) if weight > 0 else (Health.UNHEALTHY, 1)


def _number(response: aiohttp.ClientResponse, header: str, default: int) -> int:
    text = response.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else default
