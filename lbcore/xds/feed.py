"""Resources on their way to another process, which serves them without knowing what they are made of.

One process builds; what has changed between two catalogs travels as serialised resources, and is put together to the
same catalog elsewhere. A resource that is the same keeps its object there too, so that nobody is sent it again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from lbcore.model import Locality
from lbcore.xds.nearness import NOWHERE, viewpoint
from lbcore.xds.resources import Catalog, ListenerResources, ServiceResources
from lbcore.xds.wire import Resource

__all__ = ["Change", "FedCatalog", "change_between"]

logger = logging.getLogger(__name__)

_OF_SERVICE = ("envoy_cluster", "grpc_cluster", "assignment", "ip_assignment", "listener", "route")
_OF_LISTENER = ("listener", "route")


class FedMember:
    """The resources of a service or a listener, made elsewhere; each is an attribute, as of what they were made by."""

    def __init__(self, made: ServiceResources | ListenerResources) -> None:
        self.of_service = made.of_service
        self.destinations = made.destinations
        self.nearest_first = made.nearest_first
        self.places = made.places
        attributes = _OF_SERVICE if self.of_service else _OF_LISTENER
        self.__dict__.update({name: getattr(made, name) for name in attributes})
        self.seen_from: dict[tuple[bool, Locality], Resource] = {}
        if isinstance(made, ServiceResources) and self.nearest_first:
            for near in _viewpoints(self.places):
                for sockets in (True, False):
                    self.seen_from[sockets, near] = made.assignment_seen_from(near, unix_sockets=sockets)

    def assignment_seen_from(self, locality: Locality, *, unix_sockets: bool) -> Resource:
        """As `ServiceResources` has it."""
        near = viewpoint(locality, self.places) if self.nearest_first else NOWHERE
        everywhere: Resource = self.__dict__["assignment" if unix_sockets else "ip_assignment"]
        return self.seen_from.get((unix_sockets, near), everywhere)

    def keep(self, previous: FedMember) -> None:
        """Takes over the objects of what is as it was."""
        _keep(self.__dict__, previous.__dict__)
        _keep(self.seen_from, previous.seen_from)


def _keep(now: dict, before: dict) -> None:  # type: ignore[type-arg]  # of names or viewpoints to resources
    for key, resource in now.items():
        known = before.get(key)
        if isinstance(resource, Resource) and isinstance(known, Resource) and known.version == resource.version:
            now[key] = known


def _viewpoints(places: frozenset[Locality]) -> set[Locality]:
    """Every viewpoint that there can be, of clients anywhere."""
    elsewhere = "\x00"  # in no locality that a client may name
    clients = set(places)
    clients |= {Locality(place.region, place.zone, elsewhere) for place in places}
    clients |= {Locality(place.region, elsewhere) for place in places}
    return {viewpoint(client, places) for client in clients} - {NOWHERE}


@dataclass
class Change:
    """From one catalog to the next: what is new or different, and what is gone."""

    services: dict[str, FedMember] = field(default_factory=dict)
    listeners: dict[str, FedMember] = field(default_factory=dict)
    gone_services: frozenset[str] = frozenset()
    gone_listeners: frozenset[str] = frozenset()


def change_between(before: Catalog | None, now: Catalog) -> Change:
    """What turns one catalog into the other; None is one with nothing in it.

    What cannot be made stays out, and is logged: whoever has a good one keeps it.
    """
    old_services: Mapping[str, object] = before.services if before else {}
    old_listeners: Mapping[str, object] = before.listeners if before else {}
    return Change(
        _fed(now.services, old_services),
        _fed(now.listeners, old_listeners),
        frozenset(old_services.keys() - now.services.keys()),
        frozenset(old_listeners.keys() - now.listeners.keys()),
    )


def _fed(now: Mapping[str, ServiceResources | ListenerResources], before: Mapping[str, object]) -> dict[str, FedMember]:
    fed: dict[str, FedMember] = {}
    for name, member in now.items():
        if before.get(name) is not member:
            try:
                fed[name] = FedMember(member)
            except Exception:
                logger.exception("the resources of %r cannot be made: the last good ones stay", name)
    return fed


class FedCatalog:
    """The newest catalog, as changes make it."""

    def __init__(self) -> None:
        self.current: Catalog | None = None
        self._services: dict[str, FedMember] = {}
        self._listeners: dict[str, FedMember] = {}

    def apply(self, change: Change) -> Catalog:
        """The catalog after a change."""
        self._services = _applied(self._services, change.services, change.gone_services)
        self._listeners = _applied(self._listeners, change.listeners, change.gone_listeners)
        self.current = Catalog.of(self._services, self._listeners, self.current)
        return self.current


def _applied(old: dict[str, FedMember], new: dict[str, FedMember], gone: frozenset[str]) -> dict[str, FedMember]:
    for name, member in new.items():
        if name in old:
            member.keep(old[name])
    return {name: member for name, member in {**old, **new}.items() if name not in gone}
