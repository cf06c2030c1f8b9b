"""What a server knows of the registry in etcd: leases and registrations as of one revision, and what changed.

A registration whose lease's key is gone is `held`: it stays what it was until the servers have judged it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from lbcore.errors import InvalidSetting
from lbcore.etcd.following import Pair, Step
from lbcore.model import Endpoint, LoadReport
from lbcore.registration import Announcement, Change, Key, Registration, check_announcement
from lbcore.registry.admission import Weights
from lbcore.registry.etcd.records import Keys, LeaseRecord, Record, decode_lease, decode_record
from lbcore.registry.etcd.transactions import Write
from lbcore.registry.table import same

__all__ = ["View"]

logger = logging.getLogger(__name__)


class View:
    """Takes the steps of a follower of `keys.all`."""

    def __init__(self, keys: Keys) -> None:
        self.revision = 0
        self.leases: dict[int, LeaseRecord] = {}
        self.records: dict[Key, Record] = {}
        self.weights = Weights()
        self.loads: dict[Key, LoadReport] = {}  # kept by SharedLoads
        self._keys = keys
        self._modified: dict[Key, int] = {}
        self._keys_of: defaultdict[int, set[Key]] = defaultdict(set)
        self._lost: dict[int, set[Key]] = {}  # by lease, what newer ones took over from it
        self._leases_of: defaultdict[str, dict[int, int]] = defaultdict(dict)  # by service and lease, its registrations
        self._expected: dict[bytes, _Expected] = {}  # what this server writes, and will read back

    def apply(self, step: Step) -> list[Change]:
        """Takes a step, whole; returns what readers see of it."""
        self.revision = step.revision
        seen: dict[Key, None] = {}
        for raw, pair in step.changes.items():
            expected = self._expected.pop(raw, None)
            if expected is not None and pair is not None and pair.value == expected.value:
                if self._take_record(expected.key, expected.record, pair.modified):
                    seen[expected.key] = None
            elif (lease := self._keys.read_lease(raw)) is not None:
                self._take_lease(lease, pair)
                seen |= dict.fromkeys(self._keys_of.get(lease, ()))
            elif (key := self._keys.read_endpoint(raw)) is not None:
                modified = 0 if pair is None else pair.modified
                if self._take_record(key, _meant(key, pair), modified):
                    seen[key] = None
        return [Change(self.revision, key, self.registration(key)) for key in seen]

    def expect(self, write: Write, key: Key, record: Record) -> None:
        """Says what is being written means, so that it need not be decoded and checked when it is read back."""
        assert write.value is not None
        self._expected[write.key] = _Expected(write.value, key, record)

    def expect_no_more(self, writes: Iterable[Write]) -> None:
        """Those were not made."""
        for write in writes:
            self._expected.pop(write.key, None)

    def registration(self, key: Key) -> Registration | None:
        """As readers see it; None where there is none."""
        record = self.records.get(key)
        if record is None or record.withdrawn:
            return None
        return Registration(
            service=key.service,
            endpoint=record.shown,
            lease=record.lease,
            revision=self._modified[key],
            held=record.lease not in self.leases,
            load=self.loads.get(key),
        )

    def registrations(self, service: str = "") -> Iterator[Registration]:
        """All registrations, or those of one service."""
        for key in self.records:
            if (not service or key.service == service) and (found := self.registration(key)) is not None:
                yield found

    def lives(self, lease: int, granted: int) -> bool:
        """Whether a lease that was granted at that revision is alive, as far as is known."""
        return lease in self.leases or granted > self.revision

    def announced(self, key: Key) -> Endpoint | None:
        """What is announced under a key."""
        record = self.records.get(key)
        return None if record is None or record.withdrawn else record.endpoint

    def announced_for(self, service: str) -> Iterator[Endpoint]:
        """What is announced for a service."""
        leases = self._leases_of.get(service, ())
        keys = (key for lease in leases for key in self._keys_of[lease] if key.service == service)
        return (self.records[key].endpoint for key in keys)

    def known(self, key: Key) -> tuple[Record | None, int]:
        """What is in etcd under a key, and the revision of its last change; 0 where there is no such key."""
        return self.records.get(key), self._modified.get(key, 0)

    def keys_of(self, lease: int) -> set[Key]:
        """What is registered under a lease."""
        return set(self._keys_of.get(lease, ()))

    def lost(self, lease: int) -> set[Key]:
        """What a lease had and newer ones have now."""
        return set(self._lost.get(lease, ()))

    def leases_in(self, service: str) -> set[int]:
        """The leases that have registrations of a service."""
        return set(self._leases_of.get(service, ()))

    def run_out(self) -> dict[int, float]:
        """The leases that are gone and have registrations still, each with its time to live."""
        return {
            lease: self.records[next(iter(keys))].ttl
            for lease, keys in self._keys_of.items()
            if lease not in self.leases
        }

    def _take_lease(self, lease: int, pair: Pair | None) -> None:
        self.leases.pop(lease, None)
        if pair is not None:
            try:
                self.leases[lease] = decode_lease(pair.value, pair.created)
            except InvalidSetting as wrong:
                logger.error("%s", wrong)

    def _take_record(self, key: Key, record: Record | None, modified: int) -> bool:
        """Takes a registration's new value; returns whether readers may see a change.

        `modified` is 0 where there is no such key any more. A key without a record is no registration.
        """
        before = self.records.pop(key, None)
        if before is not None:
            self._forget(key, before)
        if modified:
            self._modified[key] = modified
        else:
            self._modified.pop(key, None)
        if record is not None:
            self.records[key] = record
            self._remember(key, record)
        if record is None or record.withdrawn:
            self.loads.pop(key, None)
            return before is not None and not before.withdrawn
        if before is None or before.withdrawn or before.lease != record.lease:
            return True
        return not same(before.shown, record.shown)  # else only the order of later writes has changed

    def _remember(self, key: Key, record: Record) -> None:
        if record.over:
            self._lost.setdefault(record.over, set()).add(key)
        if record.withdrawn:
            return
        self.weights.add(key.service, record.endpoint)
        self._keys_of[record.lease].add(key)
        leases = self._leases_of[key.service]
        leases[record.lease] = leases.get(record.lease, 0) + 1

    def _forget(self, key: Key, record: Record) -> None:
        if record.over:
            _discard(self._lost, record.over, key)
        if record.withdrawn:
            return
        self.weights.remove(key.service, record.endpoint)
        _discard(self._keys_of, record.lease, key)
        leases = self._leases_of[key.service]
        leases[record.lease] -= 1
        if not leases[record.lease]:
            del leases[record.lease]


class _Expected(msgspec.Struct, frozen=True, gc=False):
    value: bytes
    key: Key
    record: Record


def _meant(key: Key, pair: Pair | None) -> Record | None:
    """What a value says; None where it is no registration that may be shown."""
    if pair is None:
        return None
    try:
        record = decode_record(key, pair.value)
        check_announcement(Announcement(key.service, record.endpoint))
    except InvalidSetting as wrong:
        logger.error("%s", wrong)
        return None
    return record


def _discard(sets: dict[int, set[Key]], lease: int, key: Key) -> None:
    sets[lease].discard(key)
    if not sets[lease]:
        del sets[lease]
