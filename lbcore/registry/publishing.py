"""What is registered, published into the Directory as members of services.

The first change after a pause is published at once; of changes that follow each other quickly one publication tells
all, and one that keeps flapping is held back (`lbcore.registry.damping`), so that it cannot keep all readers busy. What
is much at once is published in parts, between which requests are answered. A service's members are in the order of
their addresses, so that replicas that know the same publish the same.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from lbcore.directory import Directory
from lbcore.membership import Membership
from lbcore.model import Endpoint
from lbcore.registration import Change, RegistrySettings
from lbcore.registry.damping import Damping, usable
from lbcore.waiting import set_within

__all__ = ["SOURCE", "Publisher", "held_reason"]

SOURCE = "registry"
_PAUSE = 9.0  # times as long as a publication took: a tenth of the time at most is for publications
_LOOK = 0.25  # seconds between two looks for what was held back for long enough
_PART = 10_000  # endpoints published at once, or one service: some 10 ms


class Publisher:
    """Keeps the Directory's members as the registry's changes have them. Call `run` once, until it is cancelled."""

    def __init__(
        self, directory: Directory, settings: RegistrySettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._debounce = settings.debounce
        self._damping = Damping(settings.max_flaps, settings.flap_hold, clock)
        self._services: dict[str, _Members] = {}
        self._published: dict[str, Membership] = {}
        self._changed: set[str] = set()
        self._stale = ""
        self._woken = asyncio.Event()

    def replace(self, members: Iterable[tuple[str, Endpoint]]) -> None:
        """Takes these members of services instead of all that there were."""
        self._changed |= self._services.keys()
        self._services.clear()
        self._damping.clear()
        for service, endpoint in members:
            self._members(service).put(endpoint)
        self._changed |= self._services.keys()
        self._woken.set()

    def apply(self, changes: Iterable[Change]) -> None:
        """Takes changes."""
        for change in changes:
            key, members = change.key, self._members(change.key.service)
            said = None if change.registration is None else change.registration.endpoint
            shown = self._damping.shown(key, members.endpoints.get(key.address), said)
            if shown is None:
                members.remove(key.address)
            else:
                members.put(shown)
            self._changed.add(key.service)
        if self._changed:
            self._woken.set()

    @property
    def damped(self) -> Mapping[str, int]:
        """How many endpoints are held back because they flap, by service."""
        return Counter(key.service for key in self._damping.held)

    def mark_stale(self, reason: str) -> None:
        """Says why some of it may be out of date; empty where it is not."""
        if reason != self._stale:
            self._stale = reason
            self._woken.set()

    def publish(self) -> None:
        """Publishes what there is now."""
        self._publish(self._take_changed())

    async def run(self) -> None:
        """Publishes whenever something has changed, for ever."""
        while True:
            await self._until_woken()
            next_window = time.monotonic() + self._debounce
            pause = await self._publish_in_parts(self._take_changed())
            await asyncio.sleep(max(next_window - time.monotonic(), pause))

    async def _publish_in_parts(self, changed: list[str]) -> float:
        """Returns for how many seconds to pause: a publication that took long is followed by a pause that is longer,
        so that most of the time is for requests."""
        while True:
            begun = time.thread_time()  # not by the clock: a process that stood still has not been busy
            part = self._part_of(changed)
            self._publish(part)
            pause = _PAUSE * (time.thread_time() - begun)
            if not changed:
                return pause
            await asyncio.sleep(pause)

    def _take_changed(self) -> list[str]:
        self._woken.clear()
        self._release()
        changed, self._changed = self._changed, set()
        return list(changed)

    def _part_of(self, changed: list[str]) -> list[str]:
        """Takes some services off the list, with about as many endpoints as are to be published at once."""
        part: list[str] = []
        size = 0
        while changed and size < _PART:
            part.append(changed.pop())
            members = self._services.get(part[-1])
            size += len(members.endpoints) if members else 1
        return part

    def _publish(self, changed: Iterable[str]) -> None:
        for service in changed:
            members = self._services.get(service)
            if members is None or not members.endpoints:
                self._services.pop(service, None)
                self._published.pop(service, None)
            else:
                self._published[service] = members.membership()
        self._directory.publish_members(SOURCE, self._published, stale=self._stale)

    async def _until_woken(self) -> None:
        while self._damping.held and not self._woken.is_set():
            await set_within(self._woken, _LOOK)
            if self._release():
                return
        await self._woken.wait()

    def _release(self) -> bool:
        """Shows what was held back for long enough, or without which a service has nothing to use."""
        released = list(self._damping.due())
        for service in {key.service for key in self._damping.held}:
            if not any(map(usable, self._members(service).endpoints.values())):
                released += self._damping.release(service)
        for key, endpoint in released:
            self._members(key.service).put(endpoint)
            self._changed.add(key.service)
        return bool(released)

    def _members(self, service: str) -> _Members:
        members = self._services.get(service)
        if members is None:
            members = self._services[service] = _Members()
        return members


class _Members:
    """The endpoints of one service by address, and the addresses in order."""

    __slots__ = ("endpoints", "order")

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.order: list[str] | None = []  # None where it has to be sorted anew

    def put(self, endpoint: Endpoint) -> None:
        if endpoint.address not in self.endpoints and self.order is not None:
            insort(self.order, endpoint.address)
        self.endpoints[endpoint.address] = endpoint

    def remove(self, address: str) -> None:
        if self.endpoints.pop(address, None) is not None:
            self.order = None

    def membership(self) -> Membership:
        if self.order is None:
            self.order = sorted(self.endpoints)
        return Membership(tuple(map(self.endpoints.__getitem__, self.order)))


def held_reason(by_service: Mapping[str, int]) -> str:
    """Why registrations may be out of date, for people."""
    if not by_service:
        return ""
    some = ", ".join(f"{service} ({count})" for service, count in sorted(by_service.items())[:5])
    more = f" and {len(by_service) - 5} more" if len(by_service) > 5 else ""
    return f"held although their leases ran out, because most of the service fell silent at once: {some}{more}"
