"""`ServiceSnapshot`: all that is known of one service at one moment, in a form that every consumer accepts.

The invariant it keeps, whichever source made it: what Envoy or gRPC would refuse cannot be made (the service then stays
at its last good snapshot, instead of breaking a client far away). Reference: Envoy endpoint.proto, gRFC A27 and A56.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec

from lbcore.address import is_hostname
from lbcore.errors import Mistake
from lbcore.model import MAX_WEIGHT, Endpoint, Locality, WholeByLocality
from lbcore.policy import Policy, RoundRobin
from lbcore.request_hash import HashPolicy
from lbcore.routing import RouteAction
from lbcore.schema import Checked
from lbcore.settings import CircuitBreakers, DropOverload, HealthCheck, OutlierDetection
from lbcore.validation import Interval, Percent, Whole, resource_name

__all__ = ["ServiceSnapshot"]


@dataclass(frozen=True, kw_only=True)
class ServiceSnapshot(Checked):
    """All that is known of one service at one moment. Equal content has an equal `version`, in any process.

    Fields:
        name: see `lbcore.validation.resource_name`.
        endpoints: at IP addresses or unix sockets, each address once. None is fine: requests then fail at once.
        policy: how one endpoint is picked.
        hash_on: what of a request a hashing policy hashes: for gRPC clients, and for routes that do not say it.
        locality_weights: relative shares of localities within a priority; 1 where nothing is said.
        overprovisioning_factor: percent; a priority keeps all its traffic while healthy endpoints x this reaches 100.
        panic_threshold: percent of healthy endpoints below which all are used, 0 to 100.
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
    locality_weights: Annotated[Mapping[Locality, int], WholeByLocality("weight", 1)] = field(default_factory=dict)
    overprovisioning_factor: Annotated[int, Whole(1, MAX_WEIGHT)] = 140
    panic_threshold: Percent = 50.0
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

    @cached_property
    def version(self) -> str:
        """A hash of the content: the same across restarts and replicas, different after any change."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        content["policy"] = (type(self.policy).__name__, self.policy)
        content["locality_weights"] = sorted(self.locality_weights.items())
        encoded = msgspec.json.encode(content, order="deterministic")
        return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def endpoint_mistakes(endpoints: tuple[Endpoint, ...]) -> Iterator[Mistake]:
    """Addresses that are not distinct or that EDS cannot carry; metadata that protobuf's Struct cannot hold."""
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
        if endpoint.metadata and (path := _not_json(endpoint.metadata)) is not None:
            what = (
                "metadata: expected only text, finite numbers, true, false, null, lists and mappings with text as keys"
            )
            yield Mistake(("endpoints", index, "metadata", *path), what)


def weight_mistakes(endpoints: tuple[Endpoint, ...], weights: Mapping[Locality, int]) -> Iterator[Mistake]:
    """Sums that overflow 32 bits: of endpoints in a locality and priority, of localities in a priority (gRFC A27)."""
    of_endpoints: dict[tuple[int, Locality], int] = {}
    for endpoint in endpoints:
        place = (endpoint.priority, endpoint.locality)
        of_endpoints[place] = of_endpoints.get(place, 0) + endpoint.weight
    of_localities: dict[int, int] = {}
    for (priority, locality), total in of_endpoints.items():
        if total > MAX_WEIGHT:
            where = f"priority {priority}, locality {str(locality)!r}"
            yield Mistake(("endpoints",), f"weights of {where} add up to {total}: expected at most {MAX_WEIGHT}")
        of_localities[priority] = of_localities.get(priority, 0) + weights.get(locality, 1)
    for priority, total in of_localities.items():
        if total > MAX_WEIGHT:
            what = f"weights of the localities of priority {priority} add up to {total}: expected at most {MAX_WEIGHT}"
            yield Mistake(("locality_weights",), what)


def _not_json(value: Any) -> tuple[str | int, ...] | None:
    """The path to the first part that JSON, and so protobuf's Struct, cannot hold."""
    if isinstance(value, str):
        return None if _is_unicode(value) else ()
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return None
    if isinstance(value, Mapping) and all(isinstance(key, str) and _is_unicode(key) for key in value):
        parts: Any = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return ()
    for key, part in parts:
        if (path := _not_json(part)) is not None:
            return (key, *path)
    return None


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry it: a lone surrogate it cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
