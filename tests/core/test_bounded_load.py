"""Bounded loads: an overloaded endpoint's keys go where Envoy's probe sends them, request by request."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Health, Lease, LocalityWeighted, Maglev, Rendezvous, RingHash
from lbcore.policy import Policy
from tests.core.fleets import address, fleet
from tests.core.layouts import in_states
from tests.reference.bounded_load import choose_bounded
from tests.reference.hash_pick import Table
from tests.reference.maglev import MaglevTable
from tests.reference.ring import build_ring
from tests.reference.shares import Share, flat_shares, locality_shares

Build = Callable[[Sequence[Share]], Table]
factors = st.sampled_from([100, 101, 120, 150, 200, 1000])
fleets = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def assert_follows_the_probe(
    endpoints: Sequence[Endpoint], policy: Policy, build: Build, factor: int, seed: int
) -> None:
    """Two hundred requests of few keys begin and end at random; each goes where the specification says."""
    draw = random.Random(seed)
    shares = flat_shares(endpoints)
    table = build(shares)
    cluster = Cluster("bounded", endpoints, policy=policy)
    leases: list[Lease] = []
    active: Counter[str] = Counter()
    for _ in range(200):
        if leases and draw.random() < 0.3:
            lease = leases.pop(draw.randrange(len(leases)))
            lease.done()
            active[lease.endpoint.address] -= 1
            continue
        key = draw.choice([1, 2**33 + 5, draw.getrandbits(64)])
        expected = choose_bounded(table.choose(key), shares, key, active, factor)
        assert cluster.pick(key) == expected
        lease = cluster.acquire(key)
        assert lease.endpoint == expected
        leases.append(lease)
        active[expected.address] += 1


@given(fleets, factors, st.integers(0, 2**32))
def test_over_a_ring_every_request_goes_where_envoys_goes(weights: list[int], factor: int, seed: int) -> None:
    policy = RingHash(minimum_ring_size=64, hash_balance_factor=factor)
    assert_follows_the_probe(fleet(len(weights), weights), policy, lambda shares: build_ring(shares, 64), factor, seed)


@given(fleets, factors, st.integers(0, 2**32))
def test_over_a_maglev_table_every_request_goes_where_envoys_goes(weights: list[int], factor: int, seed: int) -> None:
    policy = Maglev(table_size=251, hash_balance_factor=factor)
    assert_follows_the_probe(
        fleet(len(weights), weights), policy, lambda shares: MaglevTable(shares, 251), factor, seed
    )


@given(st.integers(0, 2**64 - 1), factors)
def test_where_all_are_overloaded_the_least_overloaded_serves(key: int, factor: int) -> None:
    """A locality with nobody healthy takes its share along: the others' shares do not sum to 1."""
    here = [Endpoint(address(i), locality="here", weight=1 + i % 2) for i in range(4)]
    down = Endpoint(address(9), locality="down", health=Health.UNHEALTHY)
    weights = {"here": 1, "down": 99}
    policy = Maglev(table_size=251, hash_balance_factor=factor)
    cluster = Cluster("bounded", policy=policy, locality_policy=LocalityWeighted(), panic_threshold=0.0)
    cluster.update([*here, down], locality_weights=weights)
    shares = locality_shares([here, []], [1, 99])
    table = MaglevTable(shares, 251)
    leases: list[Lease] = []
    active: Counter[str] = Counter()
    for _ in range(30):
        expected = choose_bounded(table.choose(key), shares, key, active, factor)
        leases.append(cluster.acquire(key))
        assert leases[-1].endpoint == expected
        active[expected.address] += 1


@given(fleets, factors, st.integers(1, 150))
def test_over_rendezvous_nobody_exceeds_the_bound(weights: list[int], factor: int, requests: int) -> None:
    endpoints = fleet(len(weights), weights)
    cluster = Cluster("bounded", endpoints, policy=Rendezvous(hash_balance_factor=factor))
    leases = [cluster.acquire("hot key") for _ in range(requests)]
    counts = Counter(lease.endpoint.address for lease in leases)
    total = (requests * factor + 99) // 100
    for endpoint, share in flat_shares(endpoints):
        assert counts[endpoint.address] <= max(1, math.ceil(total * share))


@pytest.mark.parametrize("policy", [RingHash, Maglev])
@pytest.mark.parametrize("factor", [100, 125, 200])
def test_a_hot_key_loads_nobody_beyond_envoys_bound(policy: Callable[..., Policy], factor: int) -> None:
    cluster = Cluster("bounded", fleet(10), policy=policy(hash_balance_factor=factor))
    leases = [cluster.acquire("hot key") for _ in range(300)]
    counts = Counter(lease.endpoint.address for lease in leases)
    assert max(counts.values()) <= math.ceil((300 * factor + 99) // 100 / 10) + 1


@pytest.mark.parametrize("policy", [RingHash, Maglev, Rendezvous])
def test_without_load_keys_go_where_they_go_unbounded(policy: Callable[..., Policy]) -> None:
    bounded = Cluster("bounded", fleet(9), policy=policy(hash_balance_factor=120))
    free = Cluster("free", fleet(9), policy=policy())
    keys = list(range(0, 2**64, 2**56))
    assert bounded.pick_many(keys).tolist() == free.pick_many(keys).tolist()


@pytest.mark.parametrize("policy", [RingHash, Maglev, Rendezvous])
def test_once_the_load_is_gone_keys_return_home(policy: Callable[..., Policy]) -> None:
    cluster = Cluster("bounded", fleet(9), policy=policy(hash_balance_factor=100))
    home = cluster.pick("hot key")
    leases = [cluster.acquire("hot key") for _ in range(50)]
    assert cluster.pick("hot key") != home or {lease.endpoint for lease in leases} != {home}
    for lease in leases:
        lease.done()
    assert cluster.pick("hot key") == home


def test_requests_at_another_priority_count_towards_the_total() -> None:
    policy = Maglev(table_size=251, hash_balance_factor=100)
    cluster = Cluster("bounded", [*in_states(2, 0, 0), *in_states(2, 0, 0, 1, first=2)], policy=policy)
    elsewhere = [cluster.acquire(key) for key in range(40)]
    cluster.update([*in_states(0, 0, 2), *in_states(2, 0, 0, 1, first=2)])
    key = next(key for key in range(100) if cluster.pick(key).address == address(2))
    assert {cluster.acquire(key).endpoint.address for _ in range(10)} == {address(2)}
    assert len(elsewhere) == 40


@pytest.mark.parametrize("policy", [RingHash, Maglev, Rendezvous])
def test_ranks_under_load_are_distinct_and_complete(policy: Callable[..., Policy]) -> None:
    cluster = Cluster("bounded", fleet(6), policy=policy(hash_balance_factor=100))
    leases = [cluster.acquire("hot key") for _ in range(20)]
    ranked = cluster.rank("hot key", 6)
    assert ranked[0] == cluster.pick("hot key")
    assert len({endpoint.address for endpoint in ranked}) == 6
    assert len(leases) == 20
