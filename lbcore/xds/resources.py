"""The Directory's content as xDS resources: one `Catalog` for each snapshot, made from the one before it.

Only what changed is encoded again, and only when a client asks for it: an unchanged service (the same object in both
snapshots) keeps all of its resources, a changed one keeps those that its change does not touch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Protocol

from lbcore._core import EncodedEndpoints
from lbcore.access import Permit
from lbcore.directory import DirectorySnapshot, ServiceSnapshot
from lbcore.model import Locality
from lbcore.routing import Listener
from lbcore.xds.addresses import is_unix
from lbcore.xds.assignments import Frames, assignment, encoded_endpoints, same_assignment
from lbcore.xds.client_kind import ClientKind
from lbcore.xds.clusters import envoy_cluster, grpc_cluster, same_clusters
from lbcore.xds.lint import Unfit
from lbcore.xds.listeners import api_listener, envoy_listener
from lbcore.xds.nearness import NOWHERE, viewpoint
from lbcore.xds.resource_set import ResourceSet
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.routes import HashOfServices, listener_routes, service_route
from lbcore.xds.wire import Resource

__all__ = ["Catalog"]

logger = logging.getLogger(__name__)


_ENDPOINTS = ("endpoints", "ip_endpoints")


class ServiceResources:
    """All that clients get of one service; each resource is encoded when first asked for."""

    of_service = True

    def __init__(self, service: ServiceSnapshot, previous: ServiceResources | None = None) -> None:
        self.service = service
        self._seen_from: dict[tuple[bool, Locality], Resource] = {}
        # What of the endpoints was serialised before; an update that nobody asked for is skipped.
        self._previous_endpoints: dict[str, EncodedEndpoints] = {}
        self._previous_frames: Frames | None = None
        self._last_good: dict[str, Resource] = {}
        if previous is None:
            return
        self._last_good = _last_good(previous)
        known = {name: previous.__dict__[name] for name in _ENDPOINTS if name in previous.__dict__}
        self._previous_endpoints = previous._previous_endpoints | known
        self._previous_frames = previous.__dict__.get("frames", previous._previous_frames)
        kept: list[str] = []
        if service.route == previous.service.route:
            kept += ["listener", "route"] if service.hash_on == previous.service.hash_on else ["listener"]
        if same_clusters(service, previous.service):
            kept += ["envoy_cluster", "grpc_cluster"]
        if same_assignment(service, previous.service):
            kept += ["assignment", "ip_assignment", *_ENDPOINTS]
            self._seen_from.update(previous._seen_from)
        self.__dict__.update({name: previous.__dict__[name] for name in kept if name in previous.__dict__})

    @cached_property
    def envoy_cluster(self) -> Resource | None:
        return _fit(lambda: envoy_cluster(self.service), self._last_good.get("envoy_cluster"))

    @cached_property
    def grpc_cluster(self) -> Resource | None:
        return _fit(lambda: grpc_cluster(self.service), self._last_good.get("grpc_cluster"))

    @cached_property
    def assignment(self) -> Resource:
        return assignment(self.service, self.endpoints, self.frames)

    @cached_property
    def ip_assignment(self) -> Resource:
        if self._has_unix_sockets:
            return assignment(self.service, self.ip_endpoints, Frames.of(self.service, self.ip_endpoints))
        return self.assignment

    def assignment_seen_from(self, locality: Locality, *, unix_sockets: bool) -> Resource:
        """The assignment for clients in this locality, who may see the nearest endpoints first."""
        near = viewpoint(locality, self.places) if self.service.nearest_first else NOWHERE
        if near == NOWHERE:
            return self.assignment if unix_sockets else self.ip_assignment
        key = (unix_sockets, near)
        if key not in self._seen_from:
            endpoints = self.endpoints if unix_sockets or not self._has_unix_sockets else self.ip_endpoints
            self._seen_from[key] = assignment(self.service, endpoints, Frames.of(self.service, endpoints, near))
        return self._seen_from[key]

    @cached_property
    def endpoints(self) -> EncodedEndpoints:
        """All of them, serialised."""
        return encoded_endpoints(self.service, self._previous_endpoints.get("endpoints"), unix_sockets=True)

    @cached_property
    def frames(self) -> Frames:
        """What surrounds the endpoints of each group, for clients anywhere."""
        return Frames.of(self.service, self.endpoints, previous=self._previous_frames)

    @cached_property
    def ip_endpoints(self) -> EncodedEndpoints:
        """Those that have an IP, serialised."""
        return encoded_endpoints(self.service, self._previous_endpoints.get("ip_endpoints"), unix_sockets=False)

    @cached_property
    def _has_unix_sockets(self) -> bool:
        return any(is_unix(endpoint.address) for endpoint in self.service.endpoints)

    @cached_property
    def places(self) -> frozenset[Locality]:
        return frozenset(endpoint.locality for endpoint in self.service.endpoints)

    @property
    def nearest_first(self) -> bool:
        """Whether the assignment depends on who looks."""
        return self.service.nearest_first

    @property
    def destinations(self) -> frozenset[str]:
        """The services that its listener and its route lead to."""
        return frozenset(self.service.route.services if self.service.route else ()) or frozenset((self.service.name,))

    @cached_property
    def listener(self) -> Resource | None:
        return _fit(lambda: api_listener(self.service), self._last_good.get("listener"))

    @cached_property
    def route(self) -> Resource | None:
        return _fit(lambda: service_route(self.service), self._last_good.get("route"))


class ListenerResources:
    """What Envoys get of one listener; `hash_on` is what the services of its routes say, for routes that do not."""

    of_service = False
    nearest_first = False
    places: frozenset[Locality] = frozenset()

    def __init__(self, listener: Listener, hash_on: HashOfServices, previous: ListenerResources | None = None) -> None:
        self.source = listener
        self.hash_on = hash_on
        self._last_good: dict[str, Resource] = _last_good(previous) if previous else {}
        if previous and previous.source == listener and "listener" in previous.__dict__:
            self.__dict__["listener"] = previous.__dict__["listener"]

    @property
    def destinations(self) -> frozenset[str]:
        """The services that its routes lead to."""
        return frozenset(name for route in self.source.routes for name in route.destinations)

    @cached_property
    def listener(self) -> Resource | None:
        return _fit(lambda: envoy_listener(self.source), self._last_good.get("listener"))

    @cached_property
    def route(self) -> Resource | None:
        return _fit(lambda: listener_routes(self.source, self.hash_on), self._last_good.get("route"))


_LINTED = ("envoy_cluster", "grpc_cluster", "listener", "route")


def _last_good(previous: ServiceResources | ListenerResources) -> dict[str, Resource]:
    """What clients may have of what was before."""
    made = {name: previous.__dict__[name] for name in _LINTED if previous.__dict__.get(name) is not None}
    return {**previous._last_good, **made}


def _fit(make: Callable[[], Resource], last_good: Resource | None) -> Resource | None:
    """A resource that no client refuses: the last good one where the new one would be refused, if there is one."""
    try:
        return make()
    except Unfit as wrong:
        logger.error("%s; %s", wrong, "the last good one stays" if last_good else "there is none until it is mended")
        return last_good


class Member(Protocol):
    """A service or a listener with its resources, each an attribute; see `_VIEWS`."""

    of_service: bool

    @property
    def nearest_first(self) -> bool:
        """Whether its assignment depends on who looks."""

    @property
    def places(self) -> frozenset[Locality]:
        """Where its endpoints are."""

    @property
    def destinations(self) -> frozenset[str]:
        """The services that its listener and its routes lead to."""


class Catalog:
    """Every resource set that clients may see, for one snapshot of the Directory.

    `ClientKind.EITHER` has the routes of listeners and of services in one table; where both bear a name, the service's.
    """

    def __init__(self, snapshot: DirectorySnapshot, previous: Catalog | None = None) -> None:
        services = _service_resources(snapshot.services, previous._services if previous else {})
        listeners = _listener_resources(snapshot, previous._listeners if previous else {})
        self._take(services, listeners, previous)

    @classmethod
    def of(
        cls, services: Mapping[str, Member], listeners: Mapping[str, Member], previous: Catalog | None = None
    ) -> Catalog:
        """A catalog of resources that are made already."""
        catalog = cls.__new__(cls)
        catalog._take(services, listeners, previous)
        return catalog

    def _take(self, services: Mapping[str, Any], listeners: Mapping[str, Any], previous: Catalog | None) -> None:
        self._services, self._listeners = services, listeners
        self._either: Mapping[str, Member] = {**self._listeners, **self._services}
        self._sets: dict[tuple[ResourceType, ClientKind], ResourceSet] = {}
        self._seen_from: dict[tuple[bool, Locality], ResourceSet] = {}
        touched = {table: _touched(getattr(previous, table, {}), getattr(self, table)) for table in _TABLES}
        for (resource_type, kind), (table, attribute) in _VIEWS.items():
            old: Mapping[str, Member] = getattr(previous, table) if previous else {}
            new: Mapping[str, Member] = getattr(self, table)
            changed = _changed(touched[table], old, new, attribute)
            resources = ResourceSet(resource_type, new, attrgetter(attribute), changed)
            if previous:
                resources.carry_over(previous._sets[resource_type, kind])
            self._sets[resource_type, kind] = resources
        self._touched_services = touched["_services"]
        self._permitted: dict[_PermittedKey, ResourceSet] = {}
        self._permitted_before = previous._permitted if previous else {}

    @property
    def services(self) -> Mapping[str, ServiceResources]:
        """The services by name."""
        return self._services

    @property
    def listeners(self) -> Mapping[str, ListenerResources]:
        """The listeners by name."""
        return self._listeners

    def resources(
        self,
        resource_type: ResourceType,
        kind: ClientKind,
        locality: Locality = NOWHERE,
        permit: Permit | None = None,
    ) -> ResourceSet:
        """All resources of a type for a kind of client in a locality, as far as it may see them; None: all."""
        if resource_type is ResourceType.ASSIGNMENT and locality.region and self._by_nearness:
            near = viewpoint(locality, self._by_nearness)
            everything = self._assignments_seen_from(kind, near)
        else:
            near, everything = NOWHERE, self._sets[resource_type, kind]
        if permit is None or permit.unlimited:
            return everything
        key = (resource_type, kind, near, permit)
        known = self._permitted.get(key)
        if known is None:
            wanted = partial(_visible, permit, resource_type)
            known = self._permitted[key] = everything.part(wanted, self._permitted_before.get(key))
        return known

    @cached_property
    def _by_nearness(self) -> frozenset[Locality]:
        """The localities of endpoints whose priorities depend on who looks."""
        nearest_first = [each for each in self._services.values() if each.nearest_first]
        return frozenset(place for each in nearest_first for place in each.places)

    def _assignments_seen_from(self, kind: ClientKind, locality: Locality) -> ResourceSet:
        unix_sockets = kind is not ClientKind.GRPC
        known = self._seen_from.get((unix_sockets, locality))
        if known is None:

            def seen(member: Any) -> Resource:
                resource: Resource = member.assignment_seen_from(locality, unix_sockets=unix_sockets)
                return resource

            known = ResourceSet(ResourceType.ASSIGNMENT, self._services, seen, self._touched_services)
            self._seen_from[unix_sockets, locality] = known
        return known


_PermittedKey = tuple[ResourceType, ClientKind, Locality, Permit]
_TABLES = ("_services", "_listeners", "_either")
_VIEWS = {
    (ResourceType.CLUSTER, ClientKind.ENVOY): ("_services", "envoy_cluster"),
    (ResourceType.CLUSTER, ClientKind.GRPC): ("_services", "grpc_cluster"),
    (ResourceType.ASSIGNMENT, ClientKind.ENVOY): ("_services", "assignment"),
    (ResourceType.ASSIGNMENT, ClientKind.GRPC): ("_services", "ip_assignment"),
    (ResourceType.ASSIGNMENT, ClientKind.EITHER): ("_services", "assignment"),
    (ResourceType.LISTENER, ClientKind.ENVOY): ("_listeners", "listener"),
    (ResourceType.LISTENER, ClientKind.GRPC): ("_services", "listener"),
    (ResourceType.ROUTE, ClientKind.ENVOY): ("_listeners", "route"),
    (ResourceType.ROUTE, ClientKind.GRPC): ("_services", "route"),
    (ResourceType.ROUTE, ClientKind.EITHER): ("_either", "route"),
}


def _visible(permit: Permit, resource_type: ResourceType, name: str, member: Any) -> bool:
    """Whether the client may see a resource: it must name no service that does not exist for the client."""
    if resource_type in (ResourceType.LISTENER, ResourceType.ROUTE):
        return all(map(permit.sees, member.destinations)) and (not member.of_service or permit.sees(name))
    return permit.sees(name)


def _service_resources(
    services: Mapping[str, ServiceSnapshot], old: Mapping[str, ServiceResources]
) -> Mapping[str, ServiceResources]:
    return {
        name: known if (known := old.get(name)) and known.service is service else ServiceResources(service, known)
        for name, service in services.items()
    }


def _listener_resources(
    snapshot: DirectorySnapshot, old: Mapping[str, ListenerResources]
) -> Mapping[str, ListenerResources]:
    resources: dict[str, ListenerResources] = {}
    for listener in snapshot.listeners:
        routed = {name for route in listener.routes for name in route.destinations} & snapshot.services.keys()
        hash_on = {name: snapshot.services[name].hash_on for name in routed}
        known = old.get(listener.name)
        if known is None or known.source != listener or known.hash_on != hash_on:
            known = ListenerResources(listener, hash_on, known)
        resources[listener.name] = known
    return resources


def _touched(old: Mapping[str, Member], new: Mapping[str, Member]) -> frozenset[str]:
    """The names that are new, gone, or another object."""
    return frozenset(name for name in old.keys() | new.keys() if old.get(name) is not new.get(name))


def _changed(
    touched: frozenset[str], old: Mapping[str, Member], new: Mapping[str, Member], attribute: str
) -> frozenset[str]:
    """The names whose resource is another one. One that was never encoded counts as changed: no client has it."""
    return frozenset(name for name in touched if _encoded(old, name, attribute) is not _encoded(new, name, attribute))


def _encoded(members: Mapping[str, Member], name: str, attribute: str) -> object:
    """The resource, if it has been encoded; else something that is like nothing."""
    member = members.get(name)
    return object() if member is None else member.__dict__.get(attribute, object())
