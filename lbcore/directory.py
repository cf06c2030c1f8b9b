"""The hub: every source publishes into the `Directory`, everything that serves watches it.

It holds one immutable `DirectorySnapshot` and replaces it whole, so a reader never sees half of a change. The invariant
it keeps: absence of information (a source that fails) leaves the last good services in place and marks them stale;
information of absence (a source that publishes without them) removes them. The two are never confused.

Not thread-safe: publish and watch from the thread of one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lbcore.errors import InvalidSetting
from lbcore.routing import Listener, listener_clashes
from lbcore.snapshot import ServiceSnapshot

__all__ = ["Directory", "DirectorySnapshot", "ServiceSnapshot"]


@dataclass(frozen=True, kw_only=True)
class DirectorySnapshot:
    """Every service at one moment.

    Fields:
        revision: counts the changes in this process.
        services: by name.
        listeners: for Envoys that take them from here.
        stale: why, by source, for each source whose services may be out of date.
    """

    revision: int = 0
    services: Mapping[str, ServiceSnapshot] = field(default_factory=lambda: MappingProxyType({}))
    listeners: tuple[Listener, ...] = ()
    stale: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Directory:
    """Service name to `ServiceSnapshot`, from any number of sources; readers watch it.

    >>> from lbcore.model import Endpoint
    >>> directory = Directory()
    >>> directory.publish("file", [ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80"),))])
    True
    >>> directory.current.services["web"].endpoints[0].address
    '10.0.0.1:80'
    """

    def __init__(self) -> None:
        self._current = DirectorySnapshot()
        self._published: dict[str, tuple[dict[str, ServiceSnapshot], tuple[Listener, ...]]] = {}
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
        return tuple(sorted(self._published.keys() | self._awaited))

    def await_source(self, source: str) -> None:
        """Holds `synced` back until this source has published for the first time."""
        if source not in self._published:
            self._awaited.add(source)

    def publish(self, source: str, services: Iterable[ServiceSnapshot], listeners: Iterable[Listener] = ()) -> bool:
        """Replaces all that `source` has said before; returns whether anything changed.

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
            if name in before and before[name].version == service.version:
                mine[name] = before[name]
        self._published[source] = (mine, bound)
        first_sync = source in self._awaited
        self._awaited.discard(source)
        stale = {other: why for other, why in self._current.stale.items() if other != source}
        return self._replace(stale, notify=first_sync)

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

    def mark_stale(self, source: str, reason: str) -> None:
        """Says that a source fails: what it has published stays, and shows as possibly out of date."""
        self._replace({**self._current.stale, source: reason}, notify=False)

    async def watch(self) -> AsyncIterator[DirectorySnapshot]:
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

    def _replace(self, stale: Mapping[str, str], *, notify: bool) -> bool:
        services = {name: service for theirs, _ in self._published.values() for name, service in theirs.items()}
        listeners = tuple(listener for _, theirs in self._published.values() for listener in theirs)
        old = self._current
        content_changed = (
            services.keys() != old.services.keys()
            or any(services[name] is not service for name, service in old.services.items())
            or listeners != old.listeners
        )
        if content_changed or stale != old.stale:
            self._current = DirectorySnapshot(
                revision=old.revision + 1,
                services=MappingProxyType(services),
                listeners=listeners,
                stale=MappingProxyType(dict(stale)),
            )
            notify = True
        if notify:
            for changed in self._watches:
                changed.set()
        return content_changed
