"""What a registry speaks in: announcements in, registrations and changes out, and the settings of it all. No behaviour.

A registration is an endpoint of a service that an agent keeps alive by a lease. An agent has one lease for everything
that it announces, so that its heartbeats cost the same for one endpoint and for a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from lbcore.address import is_hostname
from lbcore.errors import InvalidSetting, Mistake
from lbcore.model import Endpoint, Health, LoadReport
from lbcore.schema import Checked
from lbcore.snapshot import endpoint_mistakes
from lbcore.validation import Percent, Seconds, Whole, number, printable, refusal, resource_name

__all__ = [
    "MAX_TTL",
    "MIN_TTL",
    "Announcement",
    "Change",
    "Key",
    "Registration",
    "RegistrySettings",
    "Report",
    "check_announcement",
    "lease_ttl",
    "of_each",
]

T = TypeVar("T")
R = TypeVar("R")

MIN_TTL, MAX_TTL = 0.1, 3600.0  # seconds
MAX_METADATA = 65_536  # bytes as JSON: gRPC clients take 4 MiB for a whole service
MAX_HOSTNAME = 1024  # bytes


class Key(NamedTuple):
    """What identifies a registration."""

    service: str
    address: str


class Announcement(NamedTuple):
    """What an agent says: this endpoint serves that service."""

    service: str
    endpoint: Endpoint

    @property
    def key(self) -> Key:
        return Key(self.service, self.endpoint.address)


class Report(NamedTuple):
    """What a heartbeat says of an endpoint; None leaves what was said before."""

    key: Key
    health: Health | None = None
    load: LoadReport | None = None


class Registration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An endpoint as the registry has it.

    Fields:
        service: its name.
        endpoint: as readers see it, with the health that its agent reported, or DRAINING.
        lease: whose it is; only a request that bears this lease changes or removes it.
        revision: of the change that made it so.
        stale: nothing has been heard of its lease since this registry started.
        held: its lease has run out, but so have most of the service's at once (self-preservation).
        load: as last reported.
    """

    service: str
    endpoint: Endpoint
    lease: int
    revision: int
    stale: bool = False
    held: bool = False
    load: LoadReport | None = None

    @property
    def key(self) -> Key:
        return Key(self.service, self.endpoint.address)


class Change(NamedTuple):
    """One step of a registry's history; `registration` is None where it is gone."""

    revision: int
    key: Key
    registration: Registration | None


def store_name(value: object, field: str) -> str:
    """Where registrations are kept: `etcd://…`, `etcds://…`, `sqlite:PATH`, `memory`; empty: beside the file."""
    name = printable(value, field)
    kind, _, place = name.partition(":")
    known = kind == "sqlite" or (kind in ("etcd", "etcds") and place.startswith("//"))
    if name not in ("", "memory") and not (known and place.strip("/")):
        raise refusal(field, name, "expected etcd://HOST:PORT/PREFIX, sqlite:PATH or memory")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings(Checked):
    """Where a registry keeps what it is told, and how it treats silence.

    Fields:
        store: see `store_name`.
        default_ttl: seconds that a lease lasts without a heartbeat, where its agent does not say.
        min_ttl, max_ttl: what an agent may say.
        max_expiry_percent: of a service's leases; where more have gone silent at once, it is the network that is gone
            and not they: their registrations are held.
        min_leases: below so many leases of a service that is not judged; each then ends by itself.
        debounce: seconds between two publications; the first after a pause is immediate.
        max_flaps: how often an endpoint may get worse within three times `flap_hold` before its returns are held back.
        flap_hold: seconds that it must then have been well before it shows; 0: nothing is held back.
        initial_fetch_timeout: seconds from the start after which, without an answer of etcd, what it said last is
            served; 0 is never. Source: Envoy ConfigSource.initial_fetch_timeout.
        check_owners: how many of the servers that share an etcd check each endpoint; the majority of them decides.
        checker_ttl: seconds after which a server that etcd does not hear of checks no more, and others do in its place.

    The defaults: Nacos removes after 15 s of silence at the earliest, Eureka holds where less than 85 % renew.
    """

    store: Annotated[str, store_name] = ""
    default_ttl: Annotated[float, Seconds(MIN_TTL)] = 15.0
    min_ttl: Annotated[float, Seconds(MIN_TTL)] = MIN_TTL
    max_ttl: Annotated[float, Seconds(MIN_TTL)] = MAX_TTL
    max_expiry_percent: Percent = 50.0
    min_leases: Annotated[int, Whole(1, 1_000_000)] = 5
    debounce: Annotated[float, Seconds(0.0)] = 0.1
    max_flaps: Annotated[int, Whole(1, 1000)] = 3
    flap_hold: Annotated[float, Seconds(0.0)] = 10.0
    initial_fetch_timeout: Annotated[float, Seconds(0.0)] = 15.0
    check_owners: Annotated[int, Whole(1, 100)] = 3
    checker_ttl: Annotated[float, Seconds(2.0)] = 5.0

    def contradictions(self) -> Iterator[Mistake]:
        if self.max_ttl > MAX_TTL:
            yield Mistake(("max_ttl",), f"max_ttl {self.max_ttl:g}: expected at most {MAX_TTL:g} seconds")
        if not self.min_ttl <= self.default_ttl <= self.max_ttl:
            what = f"default_ttl {self.default_ttl:g}: expected min_ttl {self.min_ttl:g} to max_ttl {self.max_ttl:g}"
            yield Mistake(("default_ttl",), what)

    def ttl(self, asked: float | None) -> float:
        """The seconds that a lease lasts whose agent asks for so many. Raises `InvalidSetting` beyond the limits."""
        return self.default_ttl if asked is None else number(asked, "ttl", self.min_ttl, self.max_ttl)


def lease_ttl(value: object) -> float:
    """The seconds that a lease lasts, if they are within its limits. Raises `InvalidSetting`."""
    return number(value, "ttl", MIN_TTL, MAX_TTL)


def of_each(field: str, items: Iterable[T], make: Callable[[T], R]) -> list[R]:
    """What `make` makes of each item. Raises `InvalidSetting` that says which `FIELD[N]` it refuses.

    >>> of_each("ttls", [3, -1], lease_ttl)
    Traceback (most recent call last):
    lbcore.errors.InvalidSetting: ttls[1].ttl: ttl -1: expected a number, 0.1 or more, at most 3600
    """
    made: list[R] = []
    try:
        for item in items:
            made.append(make(item))  # noqa: PERF401 - its length is the position of what is refused
    except InvalidSetting as wrong:
        place = (field, len(made))
        raise InvalidSetting(*(Mistake((*place, *each.path), each.what) for each in wrong.mistakes)) from None
    return made


def check_announcement(announcement: Announcement) -> None:
    """Refuses what Envoy or a gRPC client would refuse. Raises `InvalidSetting` naming the field.

    >>> check_announcement(Announcement("web", Endpoint("db.internal:80")))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lbcore.errors.InvalidSetting: address 'db.internal:80': expected an IP address, ...
    """
    service, endpoint = announcement
    _check_name(service) if isinstance(service, str) else resource_name(service, "service")
    if endpoint.metadata or is_hostname(endpoint.address):  # all that may be wrong with one of which the rest is right
        for mistake in endpoint_mistakes((endpoint,)):
            raise InvalidSetting(Mistake(mistake.path[2:], mistake.what))  # without endpoints[0]
    if endpoint.additional_addresses:
        raise refusal("additional_addresses", endpoint.additional_addresses, "expected none, announce each by itself")
    if endpoint.hostname and (len(endpoint.hostname.encode()) > MAX_HOSTNAME or not endpoint.hostname.isprintable()):
        raise refusal("hostname", endpoint.hostname, f"expected printable text of at most {MAX_HOSTNAME} bytes")
    if endpoint.metadata and (size := _size(endpoint.metadata)) > MAX_METADATA:
        what = f"metadata: {size} bytes as JSON, expected at most {MAX_METADATA}"
        raise InvalidSetting(Mistake(("metadata",), what))


@lru_cache(4096)  # most announcements are of a service that has been named before
def _check_name(service: str) -> None:
    resource_name(service, "service")


def _size(metadata: Mapping[str, object]) -> int:
    return len(msgspec.json.encode(metadata))
