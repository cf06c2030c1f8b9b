"""A cluster under any sequence of calls agrees with a plain model of it: members, health, counts and possible picks."""

from __future__ import annotations

import gc
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbcore import Cluster, Endpoint, Health, Lease, Maglev, NoEndpointAvailable, RingHash, hash64
from lbcore.policy import Policy
from tests.core.fleets import FULL_SCAN, POLICIES, address
from tests.core.observed import active_requests
from tests.reference.distribution import Settings, distribution
from tests.reference.hash_pick import HashPick, Table
from tests.reference.maglev import MaglevTable
from tests.reference.ring import build_ring
from tests.reference.shares import Share

NUMBERS = st.integers(0, 9)
KEYS = st.one_of(st.text(max_size=6), st.binary(max_size=6), st.integers(0, 2**64 - 1))
MODELLED: dict[str, Policy] = {**POLICIES, "ring_hash": RingHash(minimum_ring_size=64), "maglev": Maglev(table_size=61)}
members = st.builds(
    Endpoint,
    NUMBERS.map(address),
    weight=st.sampled_from([1, 1, 2, 5]),
    priority=st.sampled_from([0, 0, 0, 1, 3]),
    locality=st.sampled_from(["", "eu/a", "eu/b"]),
    health=st.sampled_from([Health.UNKNOWN, Health.HEALTHY, Health.HEALTHY, *Health]),
)


class Model:
    """The cluster in plain Python."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self.settings = settings
        self.policy = policy
        self.endpoints: tuple[Endpoint, ...] = ()
        self.failed: set[str] = set()

    def update(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.endpoints = endpoints
        self.failed &= {endpoint.address for endpoint in endpoints}

    def possible(self) -> set[str]:
        shares = distribution(self.endpoints, self.settings, self.failed)
        return {name for name, share in shares.items() if share > 0.0}

    def may_fail(self) -> bool:
        return sum(distribution(self.endpoints, self.settings, self.failed).values()) < 1.0 - 1e-9

    def owner(self, key: str | bytes | int) -> Endpoint | None:
        """Where a hashing policy sends the key."""
        picks = HashPick(self.endpoints, self._build, self.settings, self.failed)
        return picks.choose(key if isinstance(key, int) else hash64(key))

    def _build(self, shares: list[Share] | Any) -> Table:
        if isinstance(self.policy, RingHash):
            return build_ring(shares, self.policy.minimum_ring_size, self.policy.maximum_ring_size)
        assert isinstance(self.policy, Maglev)
        return MaglevTable(shares, self.policy.table_size)


class ClusterMachine(RuleBasedStateMachine):
    policy: Policy
    cluster: Cluster
    model: Model

    @initialize(
        policy=st.sampled_from(list(MODELLED)),
        threshold=st.sampled_from([0.0, 50.0, 100.0]),
        factor=st.sampled_from([100, 140]),
        failing=st.sampled_from([False, False, True]),
        seed=st.integers(0, 2**32),
    )
    def begin(self, policy: str, threshold: float, factor: int, failing: bool, seed: int) -> None:
        self.policy = MODELLED[policy]
        self.hashing = isinstance(self.policy, RingHash | Maglev)
        self.cluster = Cluster(
            "model",
            policy=self.policy,
            overprovisioning_factor=factor,
            panic_threshold=threshold,
            fail_traffic_on_panic=failing,
            seed=seed,
        )
        self.model = Model(Settings(factor, threshold, failing), self.policy)
        self.leases: list[tuple[Lease, str]] = []

    # Membership and health

    @rule(endpoints=st.lists(members, max_size=8, unique_by=lambda endpoint: endpoint.address))
    def replace(self, endpoints: list[Endpoint]) -> None:
        self._update(tuple(endpoints))

    @rule(endpoint=members)
    def add_or_change(self, endpoint: Endpoint) -> None:
        others = [each for each in self.model.endpoints if each.address != endpoint.address]
        self._update((*others, endpoint))

    @precondition(lambda self: self.model.endpoints)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        removed = data.draw(st.sampled_from(self.model.endpoints))
        self._update(tuple(each for each in self.model.endpoints if each is not removed))

    @rule()
    def repeat(self) -> None:
        assert self.cluster.update(self.model.endpoints) is False

    @precondition(lambda self: self.model.endpoints)
    @rule(data=st.data(), healthy=st.booleans())
    def check(self, data: st.DataObject, healthy: bool) -> None:
        name = data.draw(st.sampled_from(self.model.endpoints)).address
        self.cluster.set_health(name, healthy)
        (self.model.failed.discard if healthy else self.model.failed.add)(name)

    def _update(self, endpoints: tuple[Endpoint, ...]) -> None:
        assert self.cluster.update(endpoints) is (endpoints != self.model.endpoints)
        self.model.update(endpoints)

    # Picks

    @rule(key=st.one_of(st.none(), KEYS))
    def pick(self, key: str | bytes | int | None) -> None:
        self._judge(key, lambda: self.cluster.pick(key))

    @rule(key=st.one_of(st.none(), KEYS))
    def acquire(self, key: str | bytes | int | None) -> None:
        least = self._least_loaded()
        lease = self._judge(key, lambda: self.cluster.acquire(key))
        if lease is None:
            return
        name = lease.endpoint.address
        assert least is None or name in least
        self.leases.append((lease, name))

    @rule(count=st.integers(0, 40))
    def pick_many(self, count: int) -> None:
        for index in self.cluster.pick_many(count).tolist():
            if index == -1:
                assert self.model.may_fail()
            else:
                assert self.cluster.endpoints[index].address in self.model.possible()

    @rule(keys=st.lists(KEYS, max_size=10))
    def pick_many_keys(self, keys: list[str | bytes | int]) -> None:
        picked = self.cluster.pick_many(keys).tolist()
        assert len(picked) == len(keys)
        if self.hashing:
            endpoints = [self.cluster.endpoints[index] if index >= 0 else None for index in picked]
            assert endpoints == [self.model.owner(key) for key in keys]

    @rule(key=KEYS, k=st.integers(1, 12))
    def rank(self, key: str | bytes | int, k: int) -> None:
        try:
            ranked = self.cluster.rank(key, k)
        except NoEndpointAvailable:
            assert self.model.may_fail()
            return
        names = [endpoint.address for endpoint in ranked]
        assert len(set(names)) == len(names) <= k
        assert set(names) <= {endpoint.address for endpoint in self.model.endpoints}
        if self.hashing:
            assert ranked[0] == self.model.owner(key)

    def _judge(self, key: str | bytes | int | None, call: Callable[[], Any]) -> Any:
        """Makes the call and holds its endpoint, or its refusal, to the model; None where it was refused."""
        try:
            result = call()
        except NoEndpointAvailable:
            assert self.model.may_fail()
            if self.hashing and key is not None:
                assert self.model.owner(key) is None
            return None
        endpoint = result if isinstance(result, Endpoint) else result.endpoint
        if self.hashing and key is not None:
            assert endpoint == self.model.owner(key)
        assert endpoint.address in self.model.possible()
        assert any(endpoint is each for each in self.cluster.endpoints)
        return result

    def _least_loaded(self) -> set[str] | None:
        """Where a full scan may go, while all endpoints are one group of equal weights."""
        possible = self.model.possible()
        group = {endpoint for endpoint in self.model.endpoints if endpoint.address in possible}
        if self.policy != FULL_SCAN or len({(each.weight, each.priority, each.health) for each in group}) != 1:
            return None
        counts = {name: count for name, count in active_requests(self.cluster).items() if name in possible}
        return {name for name, count in counts.items() if count == min(counts.values())}

    # The end of requests

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), times=st.integers(1, 2), ok=st.booleans())
    def finish(self, data: st.DataObject, times: int, ok: bool) -> None:
        lease, _ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        for _ in range(times):
            lease.done(ok)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        del self.leases[data.draw(st.integers(0, len(self.leases) - 1))]
        gc.collect(0)

    @precondition(lambda self: self.leases)
    @rule(failing=st.booleans())
    def leave_with(self, failing: bool) -> None:
        lease, name = self.leases.pop()
        try:
            with lease as endpoint:
                assert endpoint.address == name
                if failing:
                    raise ConnectionError
        except ConnectionError:
            assert failing

    @rule()
    def tick(self) -> None:
        self.cluster.tick()

    # What always holds

    @invariant()
    def members_are_those_last_given(self) -> None:
        if hasattr(self, "model"):
            assert self.cluster.endpoints == self.model.endpoints

    @invariant()
    def counts_are_those_of_the_open_leases(self) -> None:
        if not hasattr(self, "model"):
            return
        open_leases = Counter(name for _, name in self.leases)
        counted = active_requests(self.cluster)
        assert counted == {endpoint.address: open_leases[endpoint.address] for endpoint in self.model.endpoints}
        assert self.cluster.stats().active == len(self.leases)


ClusterMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCluster = ClusterMachine.TestCase


def test_the_model_reaches_every_kind_of_answer() -> None:
    """Guards the machine itself: with its settings, picks are refused, forced and free."""
    kinds = set()
    for threshold, failing in itertools.product([0.0, 50.0], [False, True]):
        for state in (Health.HEALTHY, Health.UNHEALTHY, Health.DEGRADED):
            model = Model(Settings(140, threshold, failing), POLICIES["random"])
            model.update((Endpoint(address(0), health=state), Endpoint(address(1), health=state, priority=1)))
            kinds.add((model.may_fail(), len(model.possible())))
    assert {(True, 0), (False, 1), (False, 2)} <= kinds
