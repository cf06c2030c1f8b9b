"""Leases and registrations: the rules by which they come, change and go. Pure: no I/O, time by an injected clock.

The invariants it keeps, in whatever order requests arrive:
- Only a request that bears a registration's lease changes or removes it.
- Of two leases that claim one address the one granted later has it, for as long as it lives: a write that was delayed
  never undoes a newer one. Writes under one lease are ordered by the agent's own `sequence`, where it gives one.
- What an agent removes is gone. What merely falls silent goes when its lease runs out, unless most of the service falls
  silent at once (`lbcore.registry.preservation`).
- Revisions only grow.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from lbcore.errors import UnknownLease
from lbcore.model import Endpoint, Health, LoadReport
from lbcore.registration import (
    Announcement,
    Change,
    Key,
    Registration,
    RegistrySettings,
    Report,
)
from lbcore.registry.admission import Weights, check_announcements
from lbcore.registry.preservation import mass_loss
from lbcore.schema import with_fields

__all__ = ["Entry", "Lease", "Table", "Written"]

_MAX_LEASE_ID = 2**63 - 1


class Lease:
    """An agent's claim to be alive."""

    __slots__ = ("counted", "entries", "granted", "heard", "id", "lost", "queued", "stale", "ttl")

    def __init__(self, lease_id: int, ttl: float, granted: int, heard: float, *, stale: bool = False) -> None:
        self.id = lease_id
        self.ttl = ttl
        self.granted = granted  # the revision of its grant, which orders leases
        self.heard = heard
        self.stale = stale
        self.queued: float | None = None  # when the table looks at it next
        self.entries: dict[Key, Entry] = {}
        self.counted: dict[Key, int] = {}  # of what it has not now, the largest sequence: what is late counts no more
        self.lost: set[Key] = set()  # to newer leases; its agent is told with each heartbeat

    @property
    def deadline(self) -> float:
        return self.heard + self.ttl

    def note(self, key: Key, sequence: int) -> None:
        if sequence:
            self.counted[key] = max(sequence, self.counted.get(key, 0))


class Entry:
    """A registration as the table keeps it."""

    __slots__ = ("announced", "drained", "held", "key", "lease", "load", "reported", "revision", "sequence", "shown")

    def __init__(self, key: Key, announced: Endpoint, lease: Lease, sequence: int = 0) -> None:
        self.key = key
        self.announced = announced
        self.shown = announced
        self.lease = lease
        self.sequence = sequence
        self.revision = 0
        self.reported: Health | None = None
        self.drained = False
        self.held = False
        self.load: LoadReport | None = None

    def show(self) -> None:
        """Brings `shown` to what the agent and the operator say of its health."""
        health = self.announced.health if self.reported is None else self.reported
        if self.drained:
            health = Health.DRAINING
        self.shown = self.announced if health is self.announced.health else with_fields(self.announced, health=health)

    def registration(self) -> Registration:
        """As readers see it."""
        return Registration(
            service=self.key.service,
            endpoint=self.shown,
            lease=self.lease.id,
            revision=self.revision,
            stale=self.lease.stale,
            held=self.held,
            load=self.load,
        )


class Written(msgspec.Struct, frozen=True, gc=False):
    """What became of a request.

    Fields:
        lease, ttl: whose it was, and how many seconds the lease lasts from now.
        superseded: keys that it did not change, because a newer lease has them or a later write came first.
    """

    lease: int
    ttl: float
    superseded: tuple[Key, ...] = ()


class Table:
    """All leases and registrations. Not thread-safe.

    `clock()` is in seconds and never goes back; `lease_ids` makes ids that have not been used.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        clock: Callable[[], float],
        lease_ids: Callable[[], int] = lambda: random.SystemRandom().randint(1, _MAX_LEASE_ID),
    ) -> None:
        self.revision = 0
        self.leases: dict[int, Lease] = {}
        self.entries: dict[Key, Entry] = {}
        self._settings = settings
        self._clock = clock
        self._lease_ids = lease_ids
        self._deadlines: list[tuple[float, int]] = []  # a heap; a lease that was heard of since stands too early in it
        self._held: dict[int, float] = {}  # by lease that has run out, since when its silence is no part of a mass loss
        self._leases_of: dict[str, dict[int, int]] = {}  # by service and lease, its registrations
        self._weights = Weights()
        self._changes: list[Change] = []
        self._ended: list[int] = []

    def take_changes(self) -> tuple[list[Change], list[int]]:
        """What has changed since this was last asked, in order, and the leases that have ended."""
        taken = self._changes, self._ended
        self._changes, self._ended = [], []
        return taken

    def registrations(self, service: str = "") -> Iterator[Registration]:
        """All registrations, or those of one service."""
        return (entry.registration() for key, entry in self.entries.items() if not service or key.service == service)

    @property
    def held(self) -> dict[str, int]:
        """How many leases are held, by service."""
        counts: dict[str, int] = {}
        for lease_id in self._held:
            for service in _services(self.leases[lease_id]):
                counts[service] = counts.get(service, 0) + 1
        return counts

    def register(
        self, lease_id: int, ttl: float | None, announcements: Sequence[Announcement], sequence: int = 0
    ) -> Written:
        """Announces endpoints under a lease; 0 grants a new one. Counts as a heartbeat.

        Raises `InvalidSetting` naming the field, `UnknownLease`; then nothing has changed.
        """
        lifetime = self._settings.ttl(ttl)
        check_announcements(announcements, self._announced, self._weights)
        lease = self._heard(lease_id) if lease_id else self._grant(lifetime)
        if lease_id and ttl is not None:
            lease.ttl = lifetime
        superseded = [each.key for each in announcements if not self._put(lease, each, sequence)]
        self._queue(lease)
        return Written(lease.id, lease.ttl, tuple(superseded))

    def heartbeat(self, lease_id: int, reports: Iterable[Report] = (), sequence: int = 0) -> Written:
        """Keeps a lease, and takes what it says of its endpoints. Raises `UnknownLease`."""
        lease = self._heard(lease_id)
        superseded = {report.key for report in reports if not self._report(lease, report, sequence)}
        return Written(lease.id, lease.ttl, tuple(superseded | lease.lost))

    def deregister(self, lease_id: int, keys: Iterable[Key], sequence: int = 0) -> Written:
        """Removes registrations of a lease. Raises `UnknownLease`."""
        lease = self._known(lease_id)
        superseded = []
        for key in keys:
            entry = lease.entries.get(key)
            if entry is None or (sequence and sequence < entry.sequence):
                superseded.append(key)
            else:
                self._remove(entry)
            lease.lost.discard(key)
            lease.note(key, sequence)
        return Written(lease.id, lease.ttl, tuple(superseded))

    def revoke(self, lease_id: int) -> Written:
        """Ends a lease and removes all that is under it. Raises `UnknownLease`."""
        lease = self._known(lease_id)
        self._end(lease)
        return Written(lease.id, 0.0)

    def drain(self, lease_id: int, key: Key, drained: bool) -> Written:
        """Takes an endpoint out of rotation, whatever its agent reports, or back. Raises `UnknownLease`."""
        lease = self._known(lease_id)
        entry = lease.entries.get(key)
        if entry is None:
            return Written(lease.id, lease.ttl, (key,))
        entry.drained = drained
        self._refresh(entry)
        return Written(lease.id, lease.ttl)

    def restore(self, lease_id: int, ttl: float, granted: int) -> Lease:
        """A lease of before a restart: stale, and with its whole time to live ahead of it."""
        lease = self.leases[lease_id] = Lease(lease_id, ttl, granted, self._clock(), stale=True)
        self._queue(lease)
        return lease

    def restore_entry(self, entry: Entry) -> None:
        """A registration of before a restart, under its restored lease."""
        entry.show()
        self._insert(entry)

    def forgive(self, seconds: float) -> None:
        """Gives every lease so much more time: it was the registry that did not listen."""
        for lease in self.leases.values():
            lease.heard += seconds

    def sweep(self) -> None:
        """Ends the leases that have run out and are not held. To be called a few times a second."""
        now = self._clock()
        losing: dict[str, bool] = {}
        for lease_id, calm_since in list(self._held.items()):
            lease = self.leases[lease_id]
            if self._is_part_of_mass_loss(lease, now, losing):
                self._held[lease_id] = now
            elif now - calm_since >= lease.ttl:  # the others are back, and it had as long as a lease lasts to follow
                self._end(lease)
        for lease in self._run_out(now):
            if self._is_part_of_mass_loss(lease, now, losing):
                self._held[lease.id] = now
                self._mark(lease, held=True)
            else:
                self._end(lease)

    def _run_out(self, now: float) -> list[Lease]:
        found = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, lease_id = heapq.heappop(self._deadlines)
            lease = self.leases.get(lease_id)
            if lease is None or lease.queued != deadline:
                continue
            lease.queued = None
            if lease.deadline > now:
                self._queue(lease)
            else:
                found.append(lease)
        return found

    def _is_part_of_mass_loss(self, lease: Lease, now: float, known: dict[str, bool]) -> bool:
        for service in _services(lease):
            if service not in known:
                silences = ((now - each.heard) / each.ttl for each in self._leases_in(service))
                known[service] = mass_loss(silences, self._settings.max_expiry_percent, self._settings.min_leases)
            if known[service]:
                return True
        return False

    def _end(self, lease: Lease) -> None:
        for entry in list(lease.entries.values()):
            self._remove(entry)
        self._held.pop(lease.id, None)
        self._ended.append(lease.id)
        del self.leases[lease.id]

    def _mark(self, lease: Lease, *, held: bool) -> None:
        for entry in lease.entries.values():
            entry.held = held
            self._record(entry)

    def _grant(self, ttl: float) -> Lease:
        self.revision += 1
        lease_id = self._lease_ids()
        lease = Lease(lease_id, ttl, self.revision, self._clock())
        self.leases[lease_id] = lease
        return lease

    def _known(self, lease_id: int) -> Lease:
        lease = self.leases.get(lease_id)
        if lease is None:
            raise UnknownLease(f"lease {lease_id}: unknown here, or it has run out")
        return lease

    def _heard(self, lease_id: int) -> Lease:
        lease = self._known(lease_id)
        lease.heard = self._clock()
        self._queue(lease)
        if lease.stale or lease_id in self._held:
            lease.stale = False
            self._held.pop(lease_id, None)
            self._mark(lease, held=False)
        return lease

    def _queue(self, lease: Lease) -> None:
        if lease.queued is None or lease.deadline < lease.queued:
            lease.queued = lease.deadline
            heapq.heappush(self._deadlines, (lease.deadline, lease.id))

    def _put(self, lease: Lease, announcement: Announcement, sequence: int) -> bool:
        """Registers an endpoint; returns False where something newer has the address."""
        key, endpoint = announcement.key, announcement.endpoint
        if sequence and sequence < lease.counted.get(key, 0):
            return False
        entry = self.entries.get(key)
        if entry is None:
            self._insert(Entry(key, endpoint, lease, sequence))
        elif entry.lease is lease:
            if sequence and sequence < entry.sequence:
                return False
            self._weights.remove(entry.key.service, entry.announced)
            entry.announced, entry.sequence, entry.reported = endpoint, sequence, None
            self._weights.add(entry.key.service, entry.announced)
        elif entry.lease.granted > lease.granted and not entry.held:
            lease.note(key, sequence)
            return False
        else:
            self._forget(entry)
            entry.lease.lost.add(key)
            self._insert(Entry(key, endpoint, lease, sequence))
        lease.lost.discard(key)
        self._refresh(self.entries[key])
        return True

    def _report(self, lease: Lease, report: Report, sequence: int) -> bool:
        entry = lease.entries.get(report.key)
        if entry is None or (sequence and sequence < entry.sequence):
            return False
        entry.sequence = max(sequence, entry.sequence)
        if report.load is not None:
            entry.load = report.load
        if report.health is not None and report.health is not entry.reported:
            entry.reported = report.health
            self._refresh(entry)
        return True

    def _refresh(self, entry: Entry) -> None:
        """Records a change where there is one to see."""
        before = entry.shown if entry.revision else None
        entry.show()
        if before is None or not same(before, entry.shown):
            self._record(entry)

    def _record(self, entry: Entry) -> None:
        self.revision += 1
        entry.revision = self.revision
        self._changes.append(Change(self.revision, entry.key, entry.registration()))

    def _insert(self, entry: Entry) -> None:
        self.entries[entry.key] = entry
        entry.lease.entries[entry.key] = entry
        leases = self._leases_of.setdefault(entry.key.service, {})
        leases[entry.lease.id] = leases.get(entry.lease.id, 0) + 1
        self._weights.add(entry.key.service, entry.announced)

    def _forget(self, entry: Entry) -> None:
        service = entry.key.service
        del self.entries[entry.key]
        del entry.lease.entries[entry.key]
        entry.lease.note(entry.key, entry.sequence)
        leases = self._leases_of[service]
        leases[entry.lease.id] -= 1
        if not leases[entry.lease.id]:
            del leases[entry.lease.id]
        if not leases:
            del self._leases_of[service]
        self._weights.remove(entry.key.service, entry.announced)

    def _remove(self, entry: Entry) -> None:
        self._forget(entry)
        self.revision += 1
        self._changes.append(Change(self.revision, entry.key, None))

    def _announced(self, service: str) -> Iterator[Endpoint]:
        return (
            entry.announced
            for lease in self._leases_in(service)
            for entry in lease.entries.values()
            if entry.key.service == service
        )

    def _leases_in(self, service: str) -> Iterator[Lease]:
        return (self.leases[lease_id] for lease_id in self._leases_of.get(service, ()))


def _services(lease: Lease) -> set[str]:
    return {key.service for key in lease.entries}


def same(one: Endpoint, other: Endpoint) -> bool:
    """Whether two endpoints are the same to a reader; 1 and True in metadata are not."""
    return one is other or (one == other and repr(one.metadata) == repr(other.metadata))
