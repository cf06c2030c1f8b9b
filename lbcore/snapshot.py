"""`ServiceSnapshot`: all that is known of one service at one moment, in a form that every consumer accepts.

The invariant it keeps, whichever source made it: what Envoy or gRPC would refuse cannot be made (the service then stays
at its last good snapshot, instead of breaking a client far away). Reference: Envoy endpoint.proto, gRFC A27 and A56.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Literal

import msgspec

from lbcore.address import is_hostname
from lbcore.errors import Mistake
from lbcore.model import MAX_WEIGHT, Endpoint, Locality, WholeByLocality, locality
from lbcore.policy import Policy, RoundRobin
from lbcore.request_hash import HashPolicy
from lbcore.routing import RouteAction
from lbcore.schema import Checked
from lbcore.settings import CircuitBreakers, DropOverload, HealthCheck, LocalityWeighted, OutlierDetection, ZoneAware
from lbcore.subset import Subsets
from lbcore.subsetting import DeterministicSubsetting, RandomSubsetting
from lbcore.validation import JSON_EXPECTED, Interval, Percent, Whole, path_beyond_json, resource_name

__all__ = ["ServiceSnapshot"]

_ADDRESS, _MORE_ADDRESSES = attrgetter("address"), attrgetter("additional_addresses")
_METADATA, _WEIGHT = attrgetter("metadata"), attrgetter("weight")


@dataclass(frozen=True, kw_only=True)
class ServiceSnapshot(Checked):
    """All that is known of one service at one moment. Equal content has an equal `version`, in any process.

    Fields:
        name: see `lbcore.validation.resource_name`.
        endpoints: at IP addresses or unix sockets, each address once. None is fine: requests then fail at once.
        policy: how one endpoint is picked.
        hash_on: what of a request a hashing policy hashes: for gRPC clients, and for routes that do not say it.
        subsetting: which part of the endpoints the picker service uses, where it is one of many clients of a large
            fleet; None: all. xDS clients get them all.
        subsets: by which metadata of endpoints a request may ask for some of them; None: it may not.
        locality_policy: None is `LocalityWeighted` where there are locality weights, and else no regard to localities.
        local_locality: where the requests come from that the picker service answers and that do not say it.
        locality_weights: relative shares of localities within a priority; 1 where nothing is said.
        overprovisioning_factor: percent; a priority keeps all its traffic while healthy endpoints x this reaches 100.
        panic_threshold: percent of healthy endpoints below which all are used, 0 to 100.
        fail_traffic_on_panic: then none is used instead.
        drop_overload: a share of requests to refuse.
        protocol: what the endpoints speak. Envoy takes it from here; gRPC always speaks HTTP/2.
        connect_timeout: for a connection to an endpoint; Envoy's alone.
        nearest_first: within each priority the endpoints of a client's sub_zone come first, then those of its zone, of
            its region, and the others, each as a priority of its own. For xDS clients, by their node's locality.
        ttl: seconds after which Envoy forgets the service, unless it hears from here again; None: it never does.
        route: what becomes of the calls of gRPC clients, which have no listener's routes; without it all of them go to
            this service.

    Raises `InvalidSetting` with everything that is wrong.
    """

    name: Annotated[str, resource_name]
    endpoints: tuple[Endpoint, ...] = ()
    policy: Policy = field(default_factory=RoundRobin)
    hash_on: HashPolicy | None = None
    subsetting: DeterministicSubsetting | RandomSubsetting | None = None
    subsets: Subsets | None = None
    locality_policy: LocalityWeighted | ZoneAware | None = None
    local_locality: Annotated[Locality, locality] = field(default_factory=Locality)
    locality_weights: Annotated[Mapping[Locality, int], WholeByLocality("weight", 1)] = field(default_factory=dict)
    overprovisioning_factor: Annotated[int, Whole(1, MAX_WEIGHT)] = 140
    panic_threshold: Percent = 50.0
    fail_traffic_on_panic: bool = False
    health_check: HealthCheck | None = None
    outlier_detection: OutlierDetection | None = None
    circuit_breakers: CircuitBreakers | None = None
    drop_overload: DropOverload | None = None
    protocol: Literal["http1", "http2"] = "http1"
    connect_timeout: Interval = 5.0
    nearest_first: bool = False
    ttl: Interval | None = None
    route: RouteAction | None = None

    def contradictions(self) -> Iterator[Mistake]:
        yield from endpoint_mistakes(self.endpoints)
        yield from weight_mistakes(self.endpoints, self.locality_weights)
        check = self.health_check
        if check is not None and check.grpc and check.checked_by == "clients" and self.protocol != "http2":
            what = "health_check.checked_by clients: expected protocol http2, without which Envoy makes no gRPC checks"
            yield Mistake(("health_check", "checked_by"), what)

    @property
    def is_locality_weighted(self) -> bool:
        """Whether a pick chooses a locality by its weight first."""
        if self.locality_policy is None:
            return bool(self.locality_weights)
        return isinstance(self.locality_policy, LocalityWeighted)

    def says_the_same_as(self, other: ServiceSnapshot) -> bool:
        """Whether the content is equal; where the endpoints are not, that takes no version."""
        return self is other or (self.endpoints == other.endpoints and self.version == other.version)

    @cached_property
    def version(self) -> str:
        """A hash of the content: the same across restarts and replicas, different after any change."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("policy", "locality_policy", "subsetting"):
            content[name] = (type(content[name]).__name__, content[name])
        content["locality_weights"] = sorted(self.locality_weights.items())
        if isinstance(zones := self.locality_policy, ZoneAware):  # JSON takes text alone as keys
            hosts = sorted((str(place), count) for place, count in zones.local_hosts.items())
            content["locality_policy"] = ("ZoneAware", replace(zones, local_hosts={}), hosts)
        encoded = msgspec.json.encode(content, order="deterministic")
        return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def endpoint_mistakes(endpoints: tuple[Endpoint, ...]) -> Iterator[Mistake]:
    """Addresses that are not distinct or that EDS cannot carry; metadata that protobuf's Struct cannot hold."""
    if not _are_distinct_ipv4(endpoints):
        yield from _address_mistakes(endpoints)
    for index, endpoint in enumerate(endpoints if any(map(_METADATA, endpoints)) else ()):
        if endpoint.metadata and (path := path_beyond_json(endpoint.metadata)) is not None:
            yield Mistake(("endpoints", index, "metadata", *path), f"metadata: {JSON_EXPECTED}")


def _are_distinct_ipv4(endpoints: tuple[Endpoint, ...]) -> bool:
    """Whether a glance shows that the addresses are right. Thousands are looked at anew with each change of one."""
    addresses = list(map(_ADDRESS, endpoints))
    return (
        len(set(addresses)) == len(addresses)
        and not "".join(addresses).encode(errors="replace").translate(None, b"0123456789.:")
        and not any(map(_MORE_ADDRESSES, endpoints))
    )


def _address_mistakes(endpoints: tuple[Endpoint, ...]) -> Iterator[Mistake]:
    first: dict[str, int] = {}
    for index, endpoint in enumerate(endpoints):
        here = ("endpoints", index, "address")
        for address in (endpoint.address, *endpoint.additional_addresses):
            where = here if address is endpoint.address else ("endpoints", index, "additional_addresses")
            if address in first:
                what = f"address {address!r}: expected each address once"
                yield Mistake(where, what, see=("endpoints", first[address], "address"))
            first.setdefault(address, index)
        if endpoint.additional_addresses and endpoint.address.startswith("unix:"):
            what = "additional_addresses: expected none beside a unix socket"
            yield Mistake(("endpoints", index, "additional_addresses"), what)
        if is_hostname(endpoint.address):
            what = (
                f"address {endpoint.address!r}: expected an IP address, because xDS endpoints carry no names to resolve"
            )
            yield Mistake(here, f"{what}; list the addresses that the name resolves to")


def weight_mistakes(endpoints: tuple[Endpoint, ...], weights: Mapping[Locality, int]) -> Iterator[Mistake]:
    """Sums that overflow 32 bits: of endpoints in a locality and priority, of localities in a priority (gRFC A27)."""
    of_all = sum(map(_WEIGHT, endpoints))
    if of_all <= MAX_WEIGHT and sum(weights.values()) + len(endpoints) <= MAX_WEIGHT:
        return  # no part is more than the whole; localities without a weight, at most one an endpoint, count 1
    of_endpoints: dict[tuple[int, Locality], int] = {}
    for endpoint in endpoints:
        here = (endpoint.priority, endpoint.locality)
        of_endpoints[here] = of_endpoints.get(here, 0) + endpoint.weight
    of_localities: dict[int, int] = {}
    for (priority, place), total in of_endpoints.items():
        if total > MAX_WEIGHT:
            where = f"priority {priority}, locality {str(place)!r}"
            yield Mistake(("endpoints",), f"weights of {where} add up to {total}: expected at most {MAX_WEIGHT}")
        of_localities[priority] = of_localities.get(priority, 0) + weights.get(place, 1)
    for priority, total in of_localities.items():
        if total > MAX_WEIGHT:
            what = f"weights of the localities of priority {priority} add up to {total}: expected at most {MAX_WEIGHT}"
            yield Mistake(("locality_weights",), what)
