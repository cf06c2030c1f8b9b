"""The hub: every source publishes into the `Directory`, everything that serves watches it.

It holds one immutable `DirectorySnapshot` and replaces it whole, so a reader never sees half of a change. The invariant
it keeps: absence of information (a source that fails) leaves the last good services in place and marks them stale;
information of absence (a source that publishes without them) removes them. The two are never confused.

A source publishes services whole (`publish`: one source for each), or who belongs to services that others may define
(`publish_members`: any number of sources). `lbcore.membership` says how the two join. What active checks find goes over
the result (`lay_over`, `lbcore.findings`); sources and checks know nothing of each other.

Not thread-safe: publish and watch from the thread of one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from lbcore.errors import InvalidSetting
from lbcore.findings import Findings, checked
from lbcore.loads import Loads
from lbcore.membership import Membership, joined
from lbcore.routing import Listener, listener_clashes
from lbcore.snapshot import ServiceSnapshot

__all__ = ["Directory", "DirectorySnapshot", "ServiceSnapshot"]

logger = logging.getLogger(__name__)

_NO_MEMBERS: Mapping[str, Membership] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class DirectorySnapshot:
    """Every service at one moment.

    Fields:
        revision: counts the changes in this process.
        services: by name, with the health to act upon.
        said: the same services with the health that their sources say.
        findings: what checks have found, by service; only of those that are checked.
        listeners: for Envoys that take them from here.
        stale: why, by source, for each source whose services may be out of date.
        sourced: by service, the source of its members.
    """

    revision: int = 0
    services: Mapping[str, ServiceSnapshot] = field(default_factory=lambda: MappingProxyType({}))
    said: Mapping[str, ServiceSnapshot] = field(default_factory=lambda: MappingProxyType({}))
    findings: Mapping[str, Findings] = field(default_factory=lambda: MappingProxyType({}))
    listeners: tuple[Listener, ...] = ()
    stale: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sourced: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Directory:
    """Service name to `ServiceSnapshot`, from any number of sources; readers watch it.

    `loads` is what callers report of the services' traffic: it changes by the second and so is no part of a snapshot.

    >>> from lbcore.model import Endpoint
    >>> directory = Directory()
    >>> directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80"),))])
    True
    >>> directory.current.services["web"].endpoints[0].address
    '10.0.0.1:80'
    """

    def __init__(self) -> None:
        self.loads = Loads()
        self._current = DirectorySnapshot()
        self._published: dict[str, tuple[dict[str, ServiceSnapshot], tuple[Listener, ...]]] = {}
        self._sourced: dict[str, str] = {}  # by service, the source without whose members it is not whole
        self._members: dict[str, Mapping[str, Membership]] = {}
        self._bare: dict[str, ServiceSnapshot] = {}  # by name, services that nobody defines, without their members
        self._findings: dict[str, Findings] = {}
        self._awaited: set[str] = set()
        self._watches: set[asyncio.Event] = set()

    @property
    def current(self) -> DirectorySnapshot:
        """The newest snapshot; empty until the first source has published."""
        return self._current

    @property
    def synced(self) -> bool:
        """Whether every awaited source has published once. Until then nothing may be answered from here."""
        return not self._awaited

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that has published or is awaited, by name."""
        return tuple(sorted(self._published.keys() | self._members.keys() | self._awaited))

    def await_source(self, source: str) -> None:
        """Holds `synced` back until this source has published for the first time."""
        if source not in self._published and source not in self._members:
            self._awaited.add(source)

    def stop_awaiting(self, source: str) -> bool:
        """Lets `synced` go on without a source that has not been heard from; what waits for its members stays out.

        Returns whether it was awaited.
        """
        awaited = source in self._awaited
        if awaited:
            self._awaited.discard(source)
            self._replace(self._current.stale, frozenset(), notify=True)
        return awaited

    def publish(
        self,
        source: str,
        services: Iterable[ServiceSnapshot],
        listeners: Iterable[Listener] = (),
        *,
        sourced: Mapping[str, str] | None = None,
    ) -> bool:
        """Replaces all services that `source` has defined before; returns whether anything changed.

        Args:
            source: its name.
            services: whole, or to be joined with members.
            listeners: for Envoys.
            sourced: by service, the source of its members. Until that has published, the service stays as it was last,
                or out of the directory if it is new: members that are not known yet are not members that are gone.

        Raises `InvalidSetting` for a service that another source already has, or that is there twice, and for listeners
        of the same name or address; then nothing changes.
        """
        mine, bound = self._named(source, services), tuple(listeners)
        others = [listener for other, (_, theirs) in self._published.items() if other != source for listener in theirs]
        if clashes := tuple(listener_clashes([*others, *bound])):
            raise InvalidSetting(*(mistake.what for mistake in clashes))
        before = self._published.get(source, ({}, ()))[0]
        # An unchanged service keeps its object, so that readers can skip it by identity. Versions tell what is
        # unchanged; equality does not, because 1 == True in metadata.
        for name, service in mine.items():
            if name in before and before[name].says_the_same_as(service):
                mine[name] = before[name]
        self._published[source] = (mine, bound)
        was_sourced = self._sourced
        self._sourced = {name: of for name, of in was_sourced.items() if name not in before} | dict(sourced or {})
        changed = _different(before, mine) | {
            name for name in mine.keys() | before.keys() if was_sourced.get(name) != self._sourced.get(name)
        }
        return self._heard_from(source, changed)

    def publish_members(self, source: str, members: Mapping[str, Membership], *, stale: str = "") -> bool:
        """Replaces all that `source` has said of who belongs to which service; returns whether anything changed.

        `stale` says why some of it may be out of date, where it may. A service that nobody defines exists as long as it
        has members, with default settings. Members that contradict a service's definition leave it as it was last.
        """
        before, mine = self._members.get(source, _NO_MEMBERS), dict(members)
        self._members[source] = mine
        # A service that waits for its source may be whole now even where the source has no members for it.
        waited = {name for name, of in self._sourced.items() if of == source and name not in self._current.services}
        return self._heard_from(source, _different(before, mine) | waited, stale)

    def lay_over(self, service: str, findings: Findings | None) -> bool:
        """Replaces what checks have found of a service, which need not be there; None: it is not checked any more.

        Returns whether the health to act upon has changed.
        """
        if findings is None:
            self._findings.pop(service, None)
        else:
            self._findings[service] = findings
        return self._replace(self._current.stale, {service}, notify=False)

    def forget(self, source: str) -> bool:
        """Ends a source: all that it has published goes, and it is not awaited any more. Returns whether that changed
        anything."""
        defined = self._published.pop(source, ({}, ()))[0]
        members = self._members.pop(source, _NO_MEMBERS)
        self._sourced = {name: of for name, of in self._sourced.items() if name not in defined}
        return self._heard_from(source, defined.keys() | members.keys())

    def _heard_from(self, source: str, changed: Set[str], reason: str = "") -> bool:
        first_sync = source in self._awaited
        self._awaited.discard(source)
        stale = {other: why for other, why in self._current.stale.items() if other != source}
        if reason:
            stale[source] = reason
        return self._replace(stale, changed, notify=first_sync)

    def _named(self, source: str, services: Iterable[ServiceSnapshot]) -> dict[str, ServiceSnapshot]:
        named: dict[str, ServiceSnapshot] = {}
        for service in services:
            if service.name in named:
                raise InvalidSetting(f"service {service.name!r} of source {source!r}: expected each name once")
            named[service.name] = service
        for other, (theirs, _) in self._published.items():
            if other != source and (clash := named.keys() & theirs.keys()):
                raise InvalidSetting(f"service {min(clash)!r} of source {source!r}: source {other!r} already has it")
        return named

    def _joined(self, name: str) -> ServiceSnapshot | None:
        """The service as its sources have it together; None where there is none."""
        last = self._current.said.get(name)
        definition = next((mine[name] for mine, _ in self._published.values() if name in mine), None)
        if self._sourced.get(name, "") in self._members or name not in self._sourced:
            memberships = [members[name] for members in self._members.values() if name in members]
        else:
            return last
        if not any(memberships):
            return definition
        try:
            service = joined(definition or self._undefined(name), memberships)
        except InvalidSetting as wrong:
            logger.error("service %r stays as it was: its members do not fit: %s", name, wrong)
            return last
        return last if last is not None and last.says_the_same_as(service) else service

    def _undefined(self, name: str) -> ServiceSnapshot:
        """A service with default settings; made once, because that takes longer than to join a few members."""
        if name not in self._bare:
            self._bare[name] = ServiceSnapshot(name=name)
        return self._bare[name]

    def _effective(self, said: ServiceSnapshot, last: ServiceSnapshot | None, *, of_same: bool) -> ServiceSnapshot:
        """The service with the health to act upon; the last one, perhaps of the same, where nothing has changed."""
        findings = self._findings.get(said.name)
        before = last.endpoints if last is not None and of_same else None
        service = said if findings is None else checked(said, findings, before)
        return last if last is not None and last.says_the_same_as(service) else service

    def mark_stale(self, source: str, reason: str) -> None:
        """Says that a source fails: what it has published stays, and shows as possibly out of date."""
        self._replace({**self._current.stale, source: reason}, frozenset(), notify=False)

    async def watch(self) -> AsyncGenerator[DirectorySnapshot, None]:
        """Yields the current snapshot as soon as the directory is synced, then the newest one after each change.

        A slow reader skips what lies between: it always gets the newest.
        """
        changed = asyncio.Event()
        self._watches.add(changed)
        seen: DirectorySnapshot | None = None
        try:
            while True:
                if self.synced and self._current is not seen:
                    seen = self._current
                    yield seen
                else:
                    changed.clear()
                    await changed.wait()
        finally:
            self._watches.discard(changed)

    def _replace(self, stale: Mapping[str, str], changed: Set[str], *, notify: bool) -> bool:
        old = self._current
        said, services = dict(old.said), dict(old.services)
        for name in changed:
            service = self._joined(name)
            if service is None:
                said.pop(name, None)
                services.pop(name, None)
                self._bare.pop(name, None)
            else:
                said[name] = service
                last = old.services.get(name)
                services[name] = self._effective(service, last, of_same=service is old.said.get(name))
        listeners = tuple(listener for _, theirs in self._published.values() for listener in theirs)
        content_changed = (
            services.keys() != old.services.keys()
            or any(services[name] is not old.services[name] for name in changed & services.keys())
            or listeners != old.listeners
            or self._sourced != old.sourced
        )
        if content_changed or stale != old.stale or self._findings != old.findings:
            self._current = DirectorySnapshot(
                revision=old.revision + 1,
                services=MappingProxyType(services),
                said=MappingProxyType(said),
                findings=MappingProxyType(dict(self._findings)),
                listeners=listeners,
                stale=MappingProxyType(dict(stale)),
                sourced=MappingProxyType(dict(self._sourced)),
            )
            notify = True
        if notify:
            for event in self._watches:
                event.set()
        return content_changed


def _different(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """The names whose objects are not the same in both."""
    return {name for name in before.keys() | after.keys() if before.get(name) is not after.get(name)}
