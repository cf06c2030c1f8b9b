"""Responses put together from parts that are serialised once.

Serialised protobuf messages concatenate (protobuf encoding guide, "Last One Wins"), so a response is the join of its
fields' bytes. Its body is all of it but the nonce, which alone may differ between streams (`lbcore.xds.nonces`).
Field numbers: envoy/service/discovery/v3/discovery.proto.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash
from google.protobuf.message import Message

from lbcore.xds.fields import field_tag, message_field, text_field, varint
from lbcore.xds.messages import duration
from lbcore.xds.resource_type import ResourceType

__all__ = ["NO_CLUSTERS", "Resource", "delta_body", "delta_heartbeat", "sotw_body", "sotw_heartbeat", "with_nonce"]

NO_CLUSTERS: frozenset[str] = frozenset()

_CONTROL_PLANE = "lbcore"
_URL = {each: text_field(1, each.type_url) for each in ResourceType}  # Any.type_url
_WRAPPER = "type.googleapis.com/envoy.service.discovery.v3.Resource"
_NOT_FOUND = 5  # google.rpc.Code


class Resource:
    """One resource, serialised: made of its message, or of the parts of that. Equal content has an equal `version`, in
    any process.

    Fields:
        name: its name in subscriptions.
        version: a hash of `framed` and of the TTL, 16 hexadecimal digits.
        framed: the `Any` as field 2, which is `resources` of DiscoveryResponse and `resource` of Resource alike.
        delta_header: what precedes `framed` in a DeltaDiscoveryResponse.
        clusters: the clusters that it refers to.
        ttl: seconds after which a client that knows TTLs forgets it, unless it hears of it again; None is never.
    """

    __slots__ = ("clusters", "delta_header", "framed", "name", "ttl", "version")

    def __init__(
        self,
        resource_type: ResourceType,
        name: str,
        message: Message | Iterable[bytes],
        clusters: frozenset[str] = NO_CLUSTERS,
        ttl: float | None = None,
    ) -> None:
        parts = [message.SerializeToString(deterministic=True)] if isinstance(message, Message) else [*message]
        value = parts[0] if len(parts) == 1 else b"".join(parts)
        url, tag = _URL[resource_type], field_tag(2, len(value))
        self.name = name
        self.ttl = ttl
        self.framed = b"".join((field_tag(2, len(url) + len(tag) + len(value)), url, tag, value))
        self.version = xxhash.xxh3_64_hexdigest(self.framed if ttl is None else self.framed + _duration(6, ttl))
        names = text_field(3, name) + text_field(1, self.version)
        self.delta_header = field_tag(2, len(names) + len(self.framed)) + names
        self.clusters = clusters

    def heartbeat(self) -> bytes:
        """A `Resource` message without content: the client goes on with the version that it has (xds_protocol.rst)."""
        return text_field(3, self.name) + text_field(1, self.version) + _duration(6, self.ttl or 0.0)

    def timed(self) -> bytes:
        """A `Resource` message with its TTL, where it has one."""
        ttl = _duration(6, self.ttl) if self.ttl else b""
        return b"".join([ttl, text_field(3, self.name), text_field(1, self.version), self.framed])


def sotw_body(
    resource_type: ResourceType,
    version: str,
    resources: Iterable[Resource],
    missing: Iterable[str] = (),
    *,
    timed: bool = False,
) -> bytes:
    """A DiscoveryResponse without its nonce; each name in `missing` is reported as not found (gRFC A88).

    With `timed`, resources that have a TTL are wrapped together with it.
    """
    return b"".join(
        [
            text_field(1, version),
            *(
                _wrapped(resource.timed()) if timed and resource.ttl is not None else resource.framed
                for resource in resources
            ),
            *_sotw_rest(resource_type),
            *(message_field(7, _resource_error(name)) for name in missing),
        ]
    )


def delta_body(
    resource_type: ResourceType,
    version: str,
    resources: Iterable[Resource],
    removed: Iterable[str],
    *,
    timed: bool = False,
) -> bytes:
    """A DeltaDiscoveryResponse without its nonce; `version` is for people, and what a NACK is reported with.

    With `timed`, resources that have a TTL say so.
    """
    return b"".join(
        [
            text_field(1, version),
            *(
                part
                for resource in resources
                for part in (
                    (message_field(2, resource.timed()),)
                    if timed and resource.ttl is not None
                    else (resource.delta_header, resource.framed)
                )
            ),
            *_delta_rest(resource_type, removed),
        ]
    )


def sotw_heartbeat(resource_type: ResourceType, version: str, resources: Iterable[Resource]) -> bytes:
    """A DiscoveryResponse that prolongs the life of resources, without its nonce."""
    beats = (_wrapped(resource.heartbeat()) for resource in resources)
    return b"".join([text_field(1, version), *beats, *_sotw_rest(resource_type)])


def delta_heartbeat(resource_type: ResourceType, resources: Iterable[Resource]) -> bytes:
    """The same as a DeltaDiscoveryResponse."""
    beats = (message_field(2, resource.heartbeat()) for resource in resources)
    return b"".join([*beats, *_delta_rest(resource_type, ())])


def _sotw_rest(resource_type: ResourceType) -> tuple[bytes, ...]:
    return text_field(4, resource_type.type_url), message_field(6, text_field(1, _CONTROL_PLANE))


def _delta_rest(resource_type: ResourceType, removed: Iterable[str]) -> tuple[bytes, ...]:
    removals = (text_field(6, name) for name in removed)
    return text_field(4, resource_type.type_url), *removals, message_field(7, text_field(1, _CONTROL_PLANE))


def _wrapped(resource: bytes) -> bytes:
    """A `Resource` in an `Any`, among the resources of a DiscoveryResponse."""
    return message_field(2, text_field(1, _WRAPPER) + message_field(2, resource))


def with_nonce(body: bytes | memoryview, nonce: str) -> bytes:
    """The whole response; `nonce` has the same number in both kinds."""
    return b"".join((body, field_tag(5, len(nonce)), nonce.encode()))  # in ASCII


def _resource_error(name: str) -> bytes:
    status = b"\x08" + varint(_NOT_FOUND) + text_field(2, f"no resource {name!r}")
    return message_field(1, text_field(1, name)) + message_field(2, status)


def _duration(number: int, seconds: float) -> bytes:
    return message_field(number, duration(seconds).SerializeToString())
