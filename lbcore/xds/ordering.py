"""Make before break between clusters and the routes that lead to them.

A route is sent only after its client has accepted the clusters that it leads to, and their endpoints; a cluster that
goes stays until the client has accepted the routes, and the removal of listeners, that no longer lead to it. Otherwise
requests fail in between (Envoy answers 503 at once). Nothing is held for any client but the one whose answer is
awaited, and for one that does not answer no longer than `HOLD_LIMIT`. What a client refused is waited for without end:
it then keeps what it has. Source: Envoy xds_protocol.rst ("Eventual consistency considerations").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lbcore.xds.resource_set import ResourceSet
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.subscription import Subscription
from lbcore.xds.wire import NO_CLUSTERS, Resource

__all__ = ["HOLD_LIMIT", "MakeBeforeBreak"]

HOLD_LIMIT = (
    10.0  # seconds; Envoy waits 15 for the first answer to what it asks for (ConfigSource.initial_fetch_timeout)
)


class MakeBeforeBreak:
    """What one client's routes lead to.

    Arguments:
        subscriptions: the client's, by type; read, never modified.
        clock: seconds, from any origin.
    """

    __slots__ = ("_clock", "_deadlines", "_in_use", "_sent", "_subscriptions")

    def __init__(self, subscriptions: Mapping[ResourceType, Subscription[Any]], clock: Callable[[], float]) -> None:
        self._subscriptions = subscriptions
        self._clock = clock
        # The clusters of each route by its name: of the version in use, and of the one sent but not accepted yet.
        self._in_use: dict[str, frozenset[str]] = {}
        self._sent: dict[str, frozenset[str]] = {}
        # Until when something is held: a version of a route, or a cluster.
        self._deadlines: dict[tuple[str, str], float] = {}

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
        of_routes = self._subscriptions.get(ResourceType.ROUTE)
        if of_clusters is None or of_routes is None:
            return False
        parts = [of_clusters] if of_assignments is None else [of_clusters, of_assignments]
        awaited = [
            name
            for name in route.clusters
            if of_clusters.covers(name)
            and clusters.get(name) is not None
            and not all(part.settled(name) for part in parts)
        ]
        refused = of_routes.settled(route.name) and any(part.refused(name) for part in parts for name in awaited)
        return self._holds((route.name, route.version), bool(awaited), without_limit=refused)

    def keep_cluster(self, name: str, routes: ResourceSet) -> bool:
        """Whether the client uses a route to this cluster that is about to be replaced, or to go with its listener."""
        of_routes = self._subscriptions.get(ResourceType.ROUTE)
        if of_routes is None:
            return False
        leaving = [
            route
            for route, clusters in self._in_use.items()
            if name in clusters and of_routes.covers(route) and self._leaves(name, route, routes)
        ]
        refused = any(map(of_routes.refused, leaving))
        return self._holds((name, ""), bool(leaving), without_limit=refused)

    @property
    def next_deadline(self) -> float | None:
        """When the next of the limits passes; None if nothing is held."""
        if not self._deadlines:
            return None
        now = self._clock()
        return min((deadline for deadline in self._deadlines.values() if deadline > now), default=None)

    def _leaves(self, cluster: str, route: str, routes: ResourceSet) -> bool:
        replacement = routes.get(route)
        if replacement is not None:
            return cluster not in replacement.clusters
        of_listeners = self._subscriptions.get(ResourceType.LISTENER)  # a route bears the name of its listener
        return of_listeners is not None and of_listeners.may_use(route)

    def _holds(self, what: tuple[str, str], wanted: bool, *, without_limit: bool) -> bool:
        if not wanted or without_limit:
            self._deadlines.pop(what, None)
            return wanted
        return self._clock() < self._deadlines.setdefault(what, self._clock() + HOLD_LIMIT)
