"""The four resource types, in the order in which a change must reach a client: what is referred to before what refers.

Source: Envoy xds_protocol.rst ("Eventual consistency considerations", "Grouping resources into responses").
"""

from __future__ import annotations

import enum

__all__ = ["ResourceType"]


class ResourceType(enum.Enum):
    """A resource type; iterating over the class goes CDS, EDS, LDS, RDS.

    Fields:
        type_url: as it stands in requests, responses and each resource's `Any`.
        whole: a state-of-the-world response lists every resource subscribed to, so one left out is deleted; only such
            a type may be subscribed to by wildcard. Where it is false, a response may hold any part.
    """

    CLUSTER = ("envoy.config.cluster.v3.Cluster", True)
    ASSIGNMENT = ("envoy.config.endpoint.v3.ClusterLoadAssignment", False)
    LISTENER = ("envoy.config.listener.v3.Listener", True)
    ROUTE = ("envoy.config.route.v3.RouteConfiguration", False)

    def __init__(self, message: str, whole: bool) -> None:
        self.type_url = f"type.googleapis.com/{message}"
        self.whole = whole

    # By identity, at the speed of C: members are keys wherever a push passes, and an enumeration hashes them in Python.
    __hash__ = object.__hash__

    @classmethod
    def of(cls, type_url: str) -> ResourceType | None:
        """The type with this URL, None if it is not served here."""
        return _BY_URL.get(type_url)


_BY_URL = {resource_type.type_url: resource_type for resource_type in ResourceType}
