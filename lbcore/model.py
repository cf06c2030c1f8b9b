"""The values that every part of lbcore speaks in: `Endpoint`, `Locality`, `Health`, `LoadReport`.

Immutable, validated when made.
"""

from __future__ import annotations

import enum
import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lbcore.errors import InvalidSetting
from lbcore.validation import number, text, whole

__all__ = ["MAX_PRIORITY", "MAX_WEIGHT", "Endpoint", "Health", "Locality", "LoadReport", "canonical_address"]

MAX_WEIGHT = 2**32 - 1  # endpoint.proto: load_balancing_weight is a uint32
MAX_PRIORITY = 128  # endpoint.proto: LocalityLbEndpoints.priority is at most 128

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")
_MAX_UNIX_PATH = 107  # sockaddr_un.sun_path less its terminating zero (unix(7))
_ADDRESS_FORMS = 'expected "IP:PORT", "[IPv6]:PORT", "HOSTNAME:PORT" or "unix:/PATH"'


class Health(enum.IntEnum):
    """What discovery says of an endpoint: Envoy's `HealthStatus` (core/v3/health_check.proto), names and numbers."""

    UNKNOWN = 0
    HEALTHY = 1
    UNHEALTHY = 2
    DRAINING = 3
    TIMEOUT = 4
    DEGRADED = 5


@dataclass(frozen=True, order=True, slots=True)
class Locality:
    """Where an endpoint runs, written `region/zone/sub_zone`; trailing parts may be left out.

    >>> Locality.parse("eu/a")
    Locality(region='eu', zone='a', sub_zone='')
    >>> str(Locality("eu", "a"))
    'eu/a'
    """

    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    @classmethod
    def parse(cls, text: str) -> Locality:
        """Reads `region/zone/sub_zone`. Raises `InvalidSetting` at more than three parts."""
        parts = text.split("/")
        if len(parts) > 3:
            raise InvalidSetting(f"locality {text!r}: expected at most three parts, region/zone/sub_zone")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.region}/{self.zone}/{self.sub_zone}".rstrip("/")


_NOWHERE = Locality()
_NO_METADATA: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, init=False)
class Endpoint:
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

    Raises `InvalidSetting` (a `ValueError`) that names the field, the value and what is allowed.

    >>> Endpoint("[0:0::1]:80", weight=2, locality="eu/a").address
    '[::1]:80'
    """

    address: str
    weight: int
    locality: Locality
    priority: int
    health: Health
    hostname: str
    metadata: Mapping[str, Any]

    def __init__(
        self,
        address: str,
        *,
        weight: int = 1,
        locality: Locality | str = _NOWHERE,
        priority: int = 0,
        health: Health = Health.UNKNOWN,
        hostname: str = "",
        metadata: Mapping[str, Any] = _NO_METADATA,
    ) -> None:
        set_field = object.__setattr__
        set_field(self, "address", canonical_address(address))
        set_field(self, "weight", whole(weight, "weight", 1, MAX_WEIGHT, hint=_WEIGHT_HINT))
        set_field(self, "locality", _locality(locality))
        set_field(self, "priority", whole(priority, "priority", 0, MAX_PRIORITY))
        set_field(self, "health", _health(health))
        set_field(self, "hostname", text(hostname, "hostname"))
        set_field(self, "metadata", _metadata(metadata))

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
        for name, value in self.named_metrics.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidSetting(f"named_metrics[{name!r}] {value!r}: expected a finite number")


def canonical_address(address: str) -> str:
    """Checks an address and returns its canonical form, the one Envoy hashes.

    >>> canonical_address("[2001:DB8:0::1]:443")
    '[2001:db8::1]:443'
    """
    text(address, "address")
    if address.startswith("unix:"):
        return _unix(address)
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise InvalidSetting(f"address {address!r}: {_ADDRESS_FORMS}")
    if not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise InvalidSetting(f"address {address!r}: port {port!r}, expected 1 to 65535")
    return f"{_host(host, address)}:{int(port)}"


def _unix(address: str) -> str:
    path = address[len("unix:") :]
    if not path.startswith("/") or "\0" in path:
        raise InvalidSetting(f"address {address!r}: expected an absolute path after unix:")
    if len(path.encode()) > _MAX_UNIX_PATH:
        raise InvalidSetting(f"address {address!r}: the path is longer than {_MAX_UNIX_PATH} bytes")
    return address


def _host(host: str, address: str) -> str:
    try:
        if host.startswith("["):
            if host.endswith("]"):
                return f"[{socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host[1:-1]))}]"
        elif host.rpartition(".")[2].isdigit():  # WHATWG URL: ends in a number, so an IPv4 address
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
        elif _HOSTNAME.match(host):
            return host
    except OSError:
        pass
    raise InvalidSetting(f"address {address!r}: {_ADDRESS_FORMS}")


_WEIGHT_HINT = "; to take an endpoint out of rotation set its health to DRAINING"


def _locality(value: Locality | str) -> Locality:
    if isinstance(value, Locality):
        return value
    return Locality.parse(text(value, "locality")) if value else _NOWHERE


def _health(value: Health) -> Health:
    if not isinstance(value, Health):
        names = ", ".join(state.name for state in Health)
        raise InvalidSetting(f"health {value!r}: expected a Health, one of {names}")
    return value


def _metadata(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidSetting(f"metadata {value!r}: expected a mapping with text as keys")
    return dict(value) if value else _NO_METADATA
