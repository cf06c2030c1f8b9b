"""Make before break between clusters and the routes that lead to them.

A route that a client has moves to a new cluster only after the client has accepted that cluster and its endpoints; a
cluster that goes stays until the client has accepted the routes that no longer lead to it. Otherwise requests fail in
between (Envoy answers 503 at once). Nothing is held for any client but the one whose answer is awaited.
Source: Envoy xds_protocol.rst ("Eventual consistency considerations").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lbcore.xds.resource_set import ResourceSet
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.subscription import Subscription
from lbcore.xds.wire import NO_CLUSTERS, Resource

__all__ = ["MakeBeforeBreak"]


class MakeBeforeBreak:
    """What one client's routes lead to.

    Arguments:
        subscriptions: the client's, by type; read, never modified.
    """

    def __init__(self, subscriptions: Mapping[ResourceType, Subscription[Any]]) -> None:
        self._subscriptions = subscriptions
        # The clusters of each route by its name: of the version in use, and of the one sent but not accepted yet.
        self._in_use: dict[str, frozenset[str]] = {}
        self._sent: dict[str, frozenset[str]] = {}

    def routes_sent(self, routes: Iterable[Resource]) -> None:
        """The client may use these routes from now on."""
        for route in routes:
            self._in_use[route.name] = self._in_use.get(route.name, NO_CLUSTERS) | route.clusters
            self._sent[route.name] = route.clusters

    def routes_accepted(self) -> None:
        """The client has taken the routes sent, and uses no older ones."""
        self._in_use.update(self._sent)
        self._sent.clear()

    def hold_route(self, route: Resource, clusters: ResourceSet) -> bool:
        """Whether a route leads to a cluster that the client is to have but has not accepted yet."""
        of_clusters = self._subscriptions.get(ResourceType.CLUSTER)
        of_assignments = self._subscriptions.get(ResourceType.ASSIGNMENT)
        return of_clusters is not None and any(
            of_clusters.covers(name)
            and clusters.get(name) is not None
            and not (of_clusters.settled(name) and (of_assignments is None or of_assignments.settled(name)))
            for name in route.clusters
        )

    def keep_cluster(self, name: str, routes: ResourceSet) -> bool:
        """Whether the client uses a route to this cluster that is about to be replaced by one that leads elsewhere."""
        of_routes = self._subscriptions.get(ResourceType.ROUTE)
        return of_routes is not None and any(
            name in clusters
            and of_routes.covers(route)
            and (replacement := routes.get(route)) is not None
            and name not in replacement.clusters
            for route, clusters in self._in_use.items()
        )
