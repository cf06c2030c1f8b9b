"""What the registry writes into etcd.

    PREFIX/leases/LEASE                  a lease; its key is under the etcd lease of the same number, and ends with it
    PREFIX/endpoints/SERVICE/ADDRESS     a registration, or for a minute after its withdrawal what that said

Values are JSON; names and addresses are percent-encoded in keys, so that a slash in a name is none in the key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec

from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint, Health
from lbcore.registration import Key
from lbcore.registry.encoding import EndpointFields, endpoint_fields, endpoint_of
from lbcore.schema import with_fields

__all__ = ["Keys", "LeaseRecord", "Record", "decode_lease", "decode_record", "encode_lease", "encode_record"]

_PLAIN = re.compile(r"[A-Za-z0-9_.:~-]*\Z")


class LeaseRecord(msgspec.Struct, frozen=True, gc=False):
    """A lease. `granted` is the revision at which its key was made, and orders leases."""

    ttl: float
    granted: int


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A registration, or (where `withdrawn`) that it was withdrawn by the write `sequence`.

    `over` is the lease that had the address before and was not asked.
    """

    endpoint: Endpoint
    lease: int
    granted: int
    ttl: float
    sequence: int = 0
    reported: Health | None = None
    drained: bool = False
    withdrawn: bool = False
    over: int = 0

    @property
    def shown(self) -> Endpoint:
        """The endpoint as readers see it."""
        health = self.endpoint.health if self.reported is None else self.reported
        if self.drained:
            health = Health.DRAINING
        return self.endpoint if health is self.endpoint.health else with_fields(self.endpoint, health=health)


class Keys:
    """Names of keys under a prefix.

    >>> keys = Keys("/lbcore/v1")
    >>> keys.endpoint(Key("ns/web", "10.0.0.1:80"))
    b'/lbcore/v1/endpoints/ns%2Fweb/10.0.0.1%3A80'
    >>> keys.read_endpoint(b"/lbcore/v1/endpoints/ns%2Fweb/10.0.0.1%3A80")
    Key(service='ns/web', address='10.0.0.1:80')
    """

    def __init__(self, prefix: str) -> None:
        self.all = f"{prefix}/".encode()
        self._leases = f"{prefix}/leases/".encode()
        self._prefix = f"{prefix}/endpoints/"
        self._endpoints = self._prefix.encode()

    def lease(self, lease: int) -> bytes:
        return self._leases + b"%016x" % lease

    def endpoint(self, key: Key) -> bytes:
        return f"{self._prefix}{_quoted_service(key.service)}/{_quoted(key.address)}".encode()

    def read_lease(self, raw: bytes) -> int | None:
        """The lease of a key; None where it is no lease's."""
        if not raw.startswith(self._leases):
            return None
        try:
            return int(raw[len(self._leases) :], 16)
        except ValueError:
            return None

    def read_endpoint(self, raw: bytes) -> Key | None:
        """The registration of a key; None where it is none's."""
        if not raw.startswith(self._endpoints):
            return None
        service, slash, address = raw[len(self._endpoints) :].decode(errors="replace").partition("/")
        return Key(_unquoted(service), _unquoted(address)) if slash else None


def _quoted(text: str) -> str:
    """Percent-encoded; quick for what most names and addresses are."""
    return text.replace(":", "%3A") if _PLAIN.match(text) else quote(text, safe="")


_quoted_service = lru_cache(4096)(_quoted)  # most registrations are of a service that has been named before


def _unquoted(text: str) -> str:
    plain = text.replace("%3A", ":")
    return unquote(text) if "%" in plain else plain


def encode_lease(lease: LeaseRecord) -> bytes:
    return msgspec.json.encode({"ttl": lease.ttl})


def decode_lease(value: bytes, created: int) -> LeaseRecord:
    """Raises `InvalidSetting`."""
    try:
        return LeaseRecord(float(msgspec.json.decode(value)["ttl"]), created)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError):
        raise InvalidSetting(f"lease {value!r:.100}: expected a JSON object with its ttl") from None


def encode_record(record: Record) -> bytes:
    stored = _Stored(
        lease=record.lease,
        granted=record.granted,
        ttl=record.ttl,
        sequence=record.sequence,
        reported=record.reported,
        drained=record.drained,
        withdrawn=record.withdrawn,
        over=record.over,
        **endpoint_fields(record.endpoint),
    )
    return _encode(stored)


def decode_record(key: Key, value: bytes) -> Record:
    """Raises `InvalidSetting` where somebody else has written there."""
    try:
        stored = _decode(value)
        endpoint = endpoint_of(key.address, stored)
    except (msgspec.MsgspecError, ValueError, RecursionError) as wrong:
        raise InvalidSetting(f"registration {key.address} of {key.service!r} in etcd: {wrong}") from None
    return Record(
        endpoint=endpoint,
        lease=stored.lease,
        granted=stored.granted,
        ttl=stored.ttl,
        sequence=stored.sequence,
        reported=stored.reported,
        drained=stored.drained,
        withdrawn=stored.withdrawn,
        over=stored.over,
    )


class _Stored(EndpointFields, kw_only=True, omit_defaults=True, gc=False):
    """A `Record` as it is in etcd."""

    lease: int
    granted: int
    ttl: float
    sequence: int = 0
    reported: Health | None = None
    drained: bool = False
    withdrawn: bool = False
    over: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Stored).decode
