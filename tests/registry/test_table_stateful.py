"""Random histories of agents, delays and silence: the table agrees with the model, and readers with the table."""

from __future__ import annotations

import itertools
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from lbcore.errors import UnknownLease
from lbcore.model import Endpoint
from lbcore.registration import Announcement, Key, Registration, RegistrySettings
from lbcore.registry.table import Table
from tests.reference.registrations import ModelRegistry
from tests.registry.clock import Clock

SERVICES = st.sampled_from(["web", "api"])
ADDRESSES = st.integers(1, 6).map(lambda n: f"10.0.0.{n}:80")
WEIGHTS = st.integers(1, 3)


class Histories(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize(min_leases=st.integers(2, 4), percent=st.sampled_from([0.0, 50.0, 90.0]))
    def begin(self, min_leases: int, percent: float) -> None:
        self.clock = Clock()
        ids = itertools.count(1)
        self.table = Table(
            RegistrySettings(min_leases=min_leases, max_expiry_percent=percent), self.clock, lambda: next(ids)
        )
        self.model = ModelRegistry(percent, min_leases)
        self.read: dict[Key, Registration] = {}
        self.revision = 0

    @rule(target=leases, ttl=st.sampled_from([1.0, 4.0, 16.0]))
    def grant(self, ttl: float) -> int:
        lease = self.table.register(0, ttl, []).lease
        self.model.grant(lease, ttl, self.clock())
        return lease

    @rule(lease=leases, service=SERVICES, address=ADDRESSES, weight=WEIGHTS)
    def register(self, lease: int, service: str, address: str, weight: int) -> None:
        if not self._known(lease):
            return
        endpoint = Endpoint(address, weight=weight)
        written = self.table.register(lease, None, [Announcement(service, endpoint)])
        self.model.hear(lease, self.clock())
        assert bool(written.superseded) is not self.model.register(lease, (service, address), endpoint)

    @rule(lease=leases, service=SERVICES, address=ADDRESSES)
    def deregister(self, lease: int, service: str, address: str) -> None:
        if not self._known(lease):
            return
        written = self.table.deregister(lease, [Key(service, address)])
        assert bool(written.superseded) is not self.model.deregister(lease, (service, address))

    @rule(lease=consumes(leases))
    def revoke(self, lease: int) -> None:
        if self._known(lease):
            self.table.revoke(lease)
            del self.model.leases[lease]

    @rule(lease=leases)
    def heartbeat(self, lease: int) -> None:
        if self._known(lease):
            self.table.heartbeat(lease)
            self.model.hear(lease, self.clock())

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.table.sweep()
        self.model.sweep(self.clock())

    def _known(self, lease: int) -> bool:
        """Both know the lease, or neither does and the table says so."""
        if lease in self.model.leases:
            return True
        try:
            self.table.heartbeat(lease)
        except UnknownLease:
            return False
        raise AssertionError(f"lease {lease} should have ended")

    @invariant()
    def the_table_and_the_model_agree(self) -> None:
        found = {each.key: each for each in self.table.registrations()}
        assert {key: each.endpoint for key, each in found.items()} == self.model.registered()
        assert set(self.table.leases) == set(self.model.leases)
        held = {name for name, lease in self.model.leases.items() if lease.calm_since is not None and lease.entries}
        assert {each.lease for each in found.values() if each.held} == held

    @invariant()
    def a_reader_of_the_changes_knows_what_there_is(self) -> None:
        for change in self.table.take_changes()[0]:
            assert change.revision > self.revision
            self.revision = change.revision
            if change.registration is None:
                del self.read[change.key]
            else:
                self.read[change.key] = change.registration
        assert self.read == {each.key: each for each in self.table.registrations()}


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase


def test_two_writers_in_any_order_end_with_the_newer_one_and_its_last_word() -> None:
    """Two programs claim one address; their requests arrive in any order that keeps what each counted."""
    chance = random.Random(7)
    for _ in range(300):
        table = Table(RegistrySettings(), Clock())
        leases = [table.register(0, None, []).lease for _ in range(2)]
        writes = [(writer, sequence) for writer in range(2) for sequence in range(1, 6)]
        chance.shuffle(writes)  # across writers and, as over two connections, within each
        for writer, sequence in writes:
            announcement = Announcement("web", Endpoint("10.0.0.1:80", weight=100 * writer + sequence))
            table.register(leases[writer], None, [announcement], sequence)
        [found] = table.registrations()
        assert (found.lease, found.endpoint.weight) == (leases[1], 105), writes


def test_a_removal_of_the_older_writer_never_removes_what_the_newer_has() -> None:
    chance = random.Random(8)
    for _ in range(300):
        table = Table(RegistrySettings(), Clock())
        older, newer = (table.register(0, None, []).lease for _ in range(2))
        announcement = Announcement("web", Endpoint("10.0.0.1:80"))
        steps = [(older, 1), (older, 2), (newer, 1)]
        chance.shuffle(steps)
        for lease, sequence in steps:
            if sequence == 2:
                table.deregister(lease, [announcement.key], sequence)
            else:
                table.register(lease, None, [announcement], sequence)
        assert [each.lease for each in table.registrations()] == [newer]
