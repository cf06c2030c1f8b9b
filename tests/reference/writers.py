"""Who has an address, when several writers claim it and what they send arrives late: in plain Python.

The rules are those of docs/registry.md. Each writer numbers what it sends; of one writer the newest number counts, of
two the one whose lease was granted later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lbcore.model import Endpoint, Health
from lbcore.registration import Key

__all__ = ["ModelWriters", "Shown"]

Shown = tuple[int, Endpoint]  # the lease that has it, and the endpoint as readers see it


@dataclass
class _Record:
    lease: int
    endpoint: Endpoint
    reported: Health | None = None
    drained: bool = False

    def shown(self) -> Endpoint:
        health = Health.DRAINING if self.drained else self.reported
        return self.endpoint if health is None else replace(self.endpoint, health=health)


@dataclass
class ModelWriters:
    """Every method returns whether it did what was asked; `None` where the lease is unknown and nothing changes.

    `forgets`: what is known of a writer's numbers is kept with the address alone, and lost when another one takes it
    (or an operator clears it); else it is kept as long as the writer's lease.
    """

    forgets: bool
    grants: dict[int, int] = field(default_factory=dict)  # by living lease, when it was granted
    records: dict[Key, _Record] = field(default_factory=dict)
    newest: dict[tuple[int, Key], int] = field(default_factory=dict)  # the largest number that counted
    granted: int = 0

    def grant(self, lease: int) -> None:
        self.granted += 1
        self.grants[lease] = self.granted

    def announce(self, lease: int, key: Key, endpoint: Endpoint, number: int) -> bool | None:
        if lease not in self.grants:
            return None
        if self._is_late(lease, key, number):
            return False
        record = self.records.get(key)
        if record is not None and record.lease != lease and self.grants[record.lease] > self.grants[lease]:
            if not self.forgets:
                self._note(lease, key, number)
            return False
        drained = record is not None and record.lease == lease and record.drained
        self.records[key] = _Record(lease, endpoint, drained=drained)
        self._note(lease, key, number)
        self._forget_others(lease, key)
        return True

    def report(self, lease: int, key: Key, health: Health, number: int) -> bool | None:
        if lease not in self.grants:
            return None
        record = self.records.get(key)
        if record is None or record.lease != lease or self._is_late(lease, key, number):
            return False
        record.reported = health
        self._note(lease, key, number)
        return True

    def withdraw(self, lease: int, key: Key, number: int) -> bool | None:
        if lease not in self.grants:
            return None
        record = self.records.get(key)
        others = record is not None and record.lease != lease
        late = self._is_late(lease, key, number)
        if not (others and self.forgets):
            self._note(lease, key, number)
            self._forget_others(lease, key)
        if record is None or others or late:
            return False
        del self.records[key]
        return True

    def clear(self, lease: int, key: Key) -> bool | None:
        """As an operator removes it, without a number."""
        if lease not in self.grants:
            return None
        record = self.records.get(key)
        if record is None or record.lease != lease:
            return False
        del self.records[key]
        if self.forgets:
            self.newest.pop((lease, key), None)
        return True

    def drain(self, lease: int, key: Key, drained: bool) -> bool | None:
        if lease not in self.grants:
            return None
        record = self.records.get(key)
        if record is None or record.lease != lease:
            return False
        record.drained = drained
        return True

    def end(self, lease: int) -> None:
        """It is revoked, or has run out."""
        del self.grants[lease]
        self.records = {key: record for key, record in self.records.items() if record.lease != lease}
        self.newest = {(of, at): each for (of, at), each in self.newest.items() if of != lease}

    def shown(self) -> dict[Key, Shown]:
        return {key: (record.lease, record.shown()) for key, record in self.records.items()}

    def _is_late(self, lease: int, key: Key, number: int) -> bool:
        return number < self.newest.get((lease, key), 0)

    def _forget_others(self, lease: int, key: Key) -> None:
        if self.forgets:
            self.newest = {(of, at): each for (of, at), each in self.newest.items() if at != key or of == lease}

    def _note(self, lease: int, key: Key, number: int) -> None:
        self.newest[lease, key] = max(number, self.newest.get((lease, key), 0))
