"""The values that every part of lbcore speaks in: `Endpoint`, `Locality`, `Health`, `LoadReport`.

Immutable, validated when made.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

from lbcore.address import canonical_address, is_hostname
from lbcore.errors import InvalidSetting, Mistake
from lbcore.schema import Checked, attempt, keep_fields
from lbcore.validation import JSON_EXPECTED, UINT32_MAX, Whole, number, path_beyond_json, refusal, text, whole

__all__ = [
    "MAX_PRIORITY",
    "MAX_WEIGHT",
    "NO_METADATA",
    "ByLocality",
    "CheckedHealth",
    "Endpoint",
    "Health",
    "LoadReport",
    "Locality",
    "WholeByLocality",
]

MAX_WEIGHT = UINT32_MAX  # endpoint.proto: load_balancing_weight is a uint32
MAX_PRIORITY = 128  # endpoint.proto: LocalityLbEndpoints.priority is at most 128


_THREE_PARTS = "expected at most three parts, region/zone/sub_zone"


class Health(enum.IntEnum):
    """What discovery says of an endpoint: Envoy's `HealthStatus` (core/v3/health_check.proto), names and numbers."""

    UNKNOWN = 0
    HEALTHY = 1
    UNHEALTHY = 2
    DRAINING = 3
    TIMEOUT = 4
    DEGRADED = 5


@dataclass(frozen=True, slots=True)
class CheckedHealth:
    """What active checks have found of an endpoint; it adds to what discovery says.

    Fields:
        passing: False takes it out, whatever discovery says.
        degraded: it passes, and is to be used after all that are healthy.
        excluded: it fails because it leaves; availability is measured without it.
        timed_out: it fails, and the last check had no answer in time.
        reason: of the last result, in words.
    """

    passing: bool = True
    degraded: bool = False
    excluded: bool = False
    timed_out: bool = False
    reason: str = ""

    def over(self, said: Health) -> Health:
        """The health to act upon, of what discovery says and what was found.

        >>> CheckedHealth(passing=False).over(Health.HEALTHY)
        <Health.UNHEALTHY: 2>
        >>> CheckedHealth().over(Health.DRAINING)
        <Health.DRAINING: 3>
        """
        if said in (Health.UNHEALTHY, Health.DRAINING, Health.TIMEOUT):
            return said
        if not self.passing:
            return Health.DRAINING if self.excluded else Health.UNHEALTHY
        if self.degraded:
            return Health.DEGRADED
        return Health.HEALTHY if said is Health.UNKNOWN else said


@dataclass(frozen=True, order=True, slots=True)
class Locality(Checked):
    """Where an endpoint runs, written `region/zone/sub_zone`; trailing parts may be left out.

    >>> Locality.parse("eu/a")
    Locality(region='eu', zone='a', sub_zone='')
    >>> str(Locality("eu", "a"))
    'eu/a'
    """

    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(text: str) -> Locality:
        """Reads `region/zone/sub_zone`. Raises `InvalidSetting` at more than three parts."""
        parts = text.split("/")
        if len(parts) > 3:
            raise refusal("locality", text, _THREE_PARTS)
        return Locality(*parts)

    def __str__(self) -> str:
        return f"{self.region}/{self.zone}/{self.sub_zone}".rstrip("/")


@dataclass(frozen=True, slots=True)
class WholeByLocality:
    """Rule for a mapping of `Locality`, or its text, to whole numbers of `low` or more, 32 bits each."""

    of: str
    low: int

    def __call__(self, value: object, field: str) -> dict[Locality, int]:
        if not isinstance(value, Mapping):
            raise refusal(field, value, f"expected a mapping of localities to {self.of}")
        count_rule = Whole(self.low, UINT32_MAX)
        mistakes: list[Mistake] = []
        counts: dict[Locality, int] = {}
        for place, count in value.items():
            wrong: list[Mistake] = []
            where = attempt(locality, place, "locality", wrong)
            if where in counts:
                wrong.append(Mistake((), f"locality {place!r}: expected each locality once, it is {str(where)!r}"))
            counts[where] = attempt(count_rule, count, self.of, wrong)
            mistakes += (Mistake((field, str(place)), each.what) for each in wrong)
        if mistakes:
            raise InvalidSetting(*mistakes)
        return counts


_NOWHERE = Locality.parse("")  # the one that is parsed, to be known by identity

# Whole numbers by locality, as people write them. Three mappings, not one, because a Mapping's key type is invariant.
ByLocality: TypeAlias = Mapping[Locality, int] | Mapping[str, int] | Mapping[Locality | str, int]
NO_METADATA: Mapping[str, Any] = {}
_WEIGHT_HINT = "; to take an endpoint out of rotation set its health to draining"


def locality(value: object, field: str) -> Locality:
    """A locality, or its text."""
    if isinstance(value, Locality):
        return value
    if text(value, field).count("/") > 2:
        raise refusal(field, value, _THREE_PARTS)
    return Locality.parse(str(value)) if value != "" else _NOWHERE


def metadata(value: object, field: str) -> Mapping[str, Any]:
    """A mapping with text as keys; what the values may be depends on where they go."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise refusal(field, value, "expected a mapping with text as keys")
    return dict(value) if value else NO_METADATA


def additional_addresses(value: object, field: str) -> tuple[str, ...]:
    """Addresses in canonical form, each once."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise refusal(field, value, "expected a list of addresses")
    addresses = tuple(canonical_address(each, field) for each in value)
    for address in addresses:
        if is_hostname(address) or address.startswith("unix:"):
            raise refusal(field, address, "expected an IP address and port")
    return addresses


def json_metadata(value: object, field: str) -> Mapping[str, Any]:
    """The same, of what JSON, and so protobuf's Struct, can hold."""
    kept = metadata(value, field)
    if (path := path_beyond_json(kept)) is not None:
        raise InvalidSetting(Mistake((field, *path), f"{field}: {JSON_EXPECTED}"))
    return kept


@dataclass(frozen=True, slots=True, init=False)
class Endpoint(Checked):
    """One place that serves requests.

    Fields:
        address: `10.0.0.1:80`, `[::1]:80`, `name:80` or `unix:/path`; kept in canonical form (IPv6 compressed).
            It is the endpoint's identity: what a request in flight is counted under, and what hashing policies hash.
        weight: relative share of the traffic, 1 to 4294967295.
        locality: a `Locality` or its text, `region/zone/sub_zone`.
        priority: 0 to 128; 0 is used first.
        health: what discovery says of it.
        hostname: hashed instead of the address where a policy sets `use_hostname_for_hashing`.
        metadata: as Envoy's `envoy.lb` metadata; `hash_key` (a string) is hashed instead of the address.
        additional_addresses: more IP addresses of the same endpoint, of the other family say; clients that know Happy
            Eyeballs (RFC 8305; Envoy, gRPC A61) connect to the one that answers first.

    Raises `InvalidSetting` (a `ValueError`) that names the field, the value and what is allowed.

    >>> Endpoint("[0:0::1]:80", weight=2, locality="eu/a").address
    '[::1]:80'
    """

    address: Annotated[str, canonical_address]
    weight: Annotated[int, Whole(1, MAX_WEIGHT, _WEIGHT_HINT)]
    locality: Annotated[Locality, locality]
    priority: Annotated[int, Whole(0, MAX_PRIORITY)]
    health: Health
    hostname: str
    metadata: Annotated[Mapping[str, Any], metadata]
    additional_addresses: Annotated[tuple[str, ...], additional_addresses]

    def __init__(
        self,
        address: str,
        *,
        weight: int = 1,
        locality: Locality | str = _NOWHERE,
        priority: int = 0,
        health: Health = Health.UNKNOWN,
        hostname: str = "",
        metadata: Mapping[str, Any] = NO_METADATA,
        additional_addresses: tuple[str, ...] = (),
    ) -> None:
        keep_fields(self, address, weight, locality, priority, health, hostname, metadata, additional_addresses)

    def __hash__(self) -> int:
        return hash((self.address, self.weight, self.locality, self.priority, self.health))

    @property
    def hash_key(self) -> str | None:
        """The text hashed instead of the address, from `metadata["hash_key"]`; only where it is a string."""
        key = self.metadata.get("hash_key")
        return key if isinstance(key, str) and key else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a server says of its own load beside an answer; `Lease.done(load=...)` takes one.

    Fields:
        rif: the server's requests in flight when it answered; None where it does not say.
        cpu_utilization: 0.0 is idle, 1.0 all of what the server has been given; may exceed 1.0.
        application_utilization: the same, as the application itself defines it.
        mem_utilization: 0.0 to 1.0.
        rps_fractional, eps: requests and errors per second.
        named_metrics: the application's own.

    Raises `InvalidSetting`. Source: ORCA (xds.data.orca.v3.OrcaLoadReport, gRFC A51); `rif` is Prequal's.

    >>> LoadReport(rif=3, cpu_utilization=0.25).rif
    3
    """

    rif: int | None = None
    cpu_utilization: float = 0.0
    application_utilization: float = 0.0
    mem_utilization: float = 0.0
    rps_fractional: float = 0.0
    eps: float = 0.0
    named_metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rif is not None:
            whole(self.rif, "rif", 0, 2**63 - 1)
        number(self.cpu_utilization, "cpu_utilization", 0.0)
        number(self.application_utilization, "application_utilization", 0.0)
        number(self.mem_utilization, "mem_utilization", 0.0, 1.0)
        number(self.rps_fractional, "rps_fractional", 0.0)
        number(self.eps, "eps", 0.0)
        if not isinstance(self.named_metrics, Mapping):
            raise refusal("named_metrics", self.named_metrics, "expected a mapping of names to numbers")
        for name, value in self.named_metrics.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidSetting(f"named_metrics[{name!r}] {value!r}: expected a finite number")
