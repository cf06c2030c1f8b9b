"""Maglev gives the same endpoint as Envoy's table for the same hash, slot for slot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Maglev, hash64
from tests.core.fleets import address, fleet
from tests.reference.hashing import MASK_64
from tests.reference.maglev import MaglevTable
from tests.reference.shares import flat_shares

PRIMES = [2, 3, 5, 7, 17, 101, 251, 1021, 2039]


def assert_equal_tables(endpoints: Sequence[Endpoint], policy: Maglev) -> None:
    """Asks for every slot."""
    table = MaglevTable(flat_shares(endpoints), policy.table_size, policy.use_hostname_for_hashing)
    cluster = Cluster("maglev", endpoints, policy=policy)
    assert [cluster.pick(slot) for slot in range(policy.table_size)] == table.slots


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_the_default_table_is_envoys(count: int) -> None:
    assert_equal_tables(fleet(count), Maglev())


@pytest.mark.parametrize("count", [2, 10, 100])
def test_weights_from_1_to_100_fill_envoys_table(count: int) -> None:
    assert_equal_tables(fleet(count, range(1, 101)), Maglev(table_size=2039))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.sampled_from(PRIMES))
def test_any_weights_and_sizes_fill_envoys_table(weights: list[int], size: int) -> None:
    assert_equal_tables(fleet(len(weights), weights), Maglev(table_size=size))


@pytest.mark.parametrize("size", [65537, 1021])
def test_a_hash_beyond_the_table_takes_the_slot_of_its_remainder(size: int) -> None:
    table = MaglevTable(flat_shares(fleet(10)), size)
    cluster = Cluster("maglev", fleet(10), policy=Maglev(table_size=size))
    keys = [hash64(f"user-{number}") for number in range(2_000)] + [MASK_64, MASK_64 - 1, 2**63, size, size - 1]
    assert [cluster.pick(key) for key in keys] == [table.slots[key % size] for key in keys]


def test_text_keys_are_placed_by_xxh64() -> None:
    cluster = Cluster("maglev", fleet(9), policy=Maglev())
    keys = [f"user-{number}" for number in range(200)]
    assert [cluster.pick(key) for key in keys] == [cluster.pick(hash64(key)) for key in keys]


@pytest.mark.parametrize("use_hostname", [False, True])
def test_hostnames_place_endpoints_only_where_asked(use_hostname: bool) -> None:
    endpoints = [Endpoint(address(i), hostname=f"h{i}.example" if i else "") for i in range(5)]
    assert_equal_tables(endpoints, Maglev(table_size=1021, use_hostname_for_hashing=use_hostname))


def test_ipv6_unix_addresses_and_hash_keys_are_placed_as_envoy_writes_them() -> None:
    endpoints = [
        Endpoint("[2001:db8::1]:80"),
        Endpoint("unix:/run/a.sock"),
        Endpoint(address(1), metadata={"hash_key": "stable"}),
        Endpoint(address(2), metadata={"hash_key": 5}),
    ]
    assert_equal_tables(endpoints, Maglev(table_size=1021))


@given(st.permutations(range(9)))
def test_the_order_of_endpoints_does_not_matter(order: list[int]) -> None:
    ordered = Cluster("maglev", fleet(9), policy=Maglev(table_size=251))
    shuffled = Cluster("maglev", [fleet(9)[i] for i in order], policy=Maglev(table_size=251))
    assert [ordered.pick(slot) for slot in range(251)] == [shuffled.pick(slot) for slot in range(251)]


def test_endpoints_of_one_hash_key_keep_the_order_of_the_cluster() -> None:
    twins = [Endpoint(address(i), metadata={"hash_key": "same"}) for i in (3, 1, 2)]
    assert_equal_tables(twins, Maglev(table_size=101))


def test_more_endpoints_than_slots_leave_some_without_keys() -> None:
    assert_equal_tables(fleet(50), Maglev(table_size=17))
