"""How far each client is: what it was sent of each type, and what it made of it. What CSDS and `lbcore nodes` show.

Source: Envoy csds.proto (ConfigStatus), gRFC A40.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lbcore.xds.node import Node
from lbcore.xds.resource_type import ResourceType

__all__ = ["ClientStatus", "ConfigStatus", "Refusal", "ResourceStatus", "TypeStatus", "listed"]


class ConfigStatus(enum.IntEnum):
    """As csds.proto numbers them."""

    SYNCED = 1  # sent and accepted
    NOT_SENT = 2  # asked for; there is no such resource, or it waits for another
    STALE = 3  # sent and not answered yet
    ERROR = 4  # sent and refused


class ResourceStatus(NamedTuple):
    """One resource of one client; `version` is the one it was sent last, empty if none."""

    name: str
    version: str
    status: ConfigStatus


class Refusal(NamedTuple):
    """The NACK that a client sent last for a type and has not made up for; `at` in seconds since 1970."""

    version: str
    nonce: str
    message: str
    at: float


class Resources(Protocol):
    """A subscription, as far as it is shown."""

    def statuses(self) -> Iterator[ResourceStatus]:
        """Each resource that the client is subscribed to."""


class _Listed(NamedTuple):
    each: tuple[ResourceStatus, ...]

    def statuses(self) -> Iterator[ResourceStatus]:
        return iter(self.each)


def listed(resources: Resources) -> Resources:
    """The same as a value, as they are now."""
    return _Listed(tuple(resources.statuses()))


@dataclass(slots=True)
class TypeStatus:
    """One type of one client: when it was sent something last, in seconds since 1970, and what it refused."""

    resources: Resources
    sent_at: float = 0.0
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """One stream of a client; `method` and `peer` are the gRPC method and the address that it comes from."""

    node: Node
    method: str
    peer: str
    types: Mapping[ResourceType, TypeStatus] = field(default_factory=dict)
