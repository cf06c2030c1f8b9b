"""Responses put together from parts that are serialised once.

Serialised protobuf messages concatenate (protobuf encoding guide, "Last One Wins"), so a response is the join of its
fields' bytes. Only its nonce differs between streams: everything else, the body, is one bytes object for all of them.
Field numbers: envoy/service/discovery/v3/discovery.proto.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash
from google.protobuf.message import Message

from lbcore.xds.resource_type import ResourceType

__all__ = ["NO_CLUSTERS", "Resource", "delta_body", "sotw_body", "with_nonce"]

NO_CLUSTERS: frozenset[str] = frozenset()

_CONTROL_PLANE = "lbcore"
_NOT_FOUND = 5  # google.rpc.Code


class Resource:
    """One resource, serialised. Equal content has an equal `version`, in any process.

    Fields:
        name: its name in subscriptions.
        version: a hash of the content, 16 hexadecimal digits.
        framed: the `Any` as field 2, which is `resources` of DiscoveryResponse and `resource` of Resource alike.
        delta_header: what precedes `framed` in a DeltaDiscoveryResponse.
        clusters: the clusters that it refers to.
    """

    __slots__ = ("clusters", "delta_header", "framed", "name", "version")

    def __init__(
        self, resource_type: ResourceType, name: str, message: Message, clusters: frozenset[str] = NO_CLUSTERS
    ) -> None:
        content = message.SerializeToString(deterministic=True)
        self.name = name
        self.version = xxhash.xxh3_64_hexdigest(content)
        self.framed = _field(2, _text(1, resource_type.type_url) + _field(2, content))
        names = _text(3, name) + _text(1, self.version)
        self.delta_header = _tag(2, len(names) + len(self.framed)) + names
        self.clusters = clusters


def sotw_body(
    resource_type: ResourceType, version: str, resources: Iterable[Resource], missing: Iterable[str] = ()
) -> bytes:
    """A DiscoveryResponse without its nonce; each name in `missing` is reported as not found (gRFC A88)."""
    return b"".join(
        [
            _text(1, version),
            *(resource.framed for resource in resources),
            _text(4, resource_type.type_url),
            _field(6, _text(1, _CONTROL_PLANE)),
            *(_field(7, _resource_error(name)) for name in missing),
        ]
    )


def delta_body(resource_type: ResourceType, resources: Iterable[Resource], removed: Iterable[str]) -> bytes:
    """A DeltaDiscoveryResponse without its nonce."""
    return b"".join(
        [
            *(part for resource in resources for part in (resource.delta_header, resource.framed)),
            _text(4, resource_type.type_url),
            *(_text(6, name) for name in removed),
            _field(7, _text(1, _CONTROL_PLANE)),
        ]
    )


def with_nonce(body: bytes, nonce: str) -> bytes:
    """The whole response; `nonce` has the same number in both kinds."""
    return body + _text(5, nonce)


def _resource_error(name: str) -> bytes:
    status = b"\x08" + _varint(_NOT_FOUND) + _text(2, f"no resource {name!r}")
    return _field(1, _text(1, name)) + _field(2, status)


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, payload: bytes) -> bytes:
    return _tag(number, len(payload)) + payload


def _tag(number: int, length: int) -> bytes:
    """Key and length of a length-delimited field (wire type 2) with a number below 16."""
    return bytes((number << 3 | 2,)) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
