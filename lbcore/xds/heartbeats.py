"""When each type's resources are heard of again, so that a client does not forget those that have a TTL.

A beat is due half way through the shortest TTL. Source: Envoy xds_protocol.rst ("TTL").
"""

from __future__ import annotations

from collections.abc import Callable

from lbcore.xds.node import Node
from lbcore.xds.resource_type import ResourceType

__all__ = ["Heartbeats", "knows_ttl"]

_TTL = "xds.config.supports-resource-ttl"
_WRAPPERS = {"xds.config.supports-resource-in-sotw", "xds.config.resource-in-sotw"}  # the latter is what gRPC says


def knows_ttl(node: Node, *, wrapped: bool) -> bool:
    """Whether a client takes TTLs; in state of the world they need a wrapper, which it has to know as well."""
    return _TTL in node.client_features and (not wrapped or not _WRAPPERS.isdisjoint(node.client_features))


class Heartbeats:
    """The times of one stream's beats. `clock` counts seconds."""

    __slots__ = ("_clock", "_due")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[ResourceType, float] = {}

    def sent(self, resource_type: ResourceType, shortest_ttl: float | None) -> None:
        """The client has heard of all that it has, of which the shortest TTL is this."""
        if shortest_ttl is None:
            self._due.pop(resource_type, None)
        else:
            self._due[resource_type] = self._clock() + shortest_ttl / 2

    def heard(self, resource_type: ResourceType, shortest_ttl: float) -> None:
        """The client has heard of some resources; the others are still to be prolonged when they were to be."""
        due = self._clock() + shortest_ttl / 2
        self._due[resource_type] = min(due, self._due.get(resource_type, due))

    def due(self) -> list[ResourceType]:
        """The types whose beat is due."""
        if not self._due:
            return []
        now = self._clock()
        return [resource_type for resource_type, due in self._due.items() if now >= due]

    @property
    def next_time(self) -> float | None:
        """When the next beat is due that is not yet."""
        if not self._due:
            return None
        now = self._clock()
        return min((due for due in self._due.values() if due > now), default=None)
