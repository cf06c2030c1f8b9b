"""RingHash gives the same endpoint as Envoy's ring for the same hash, point for point."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, RingHash, hash64
from tests.core.fleets import address, fleet
from tests.reference.hashing import MASK_64, murmur_hash_2, xxh64
from tests.reference.ring import Ring, build_ring
from tests.reference.shares import flat_shares

FUNCTIONS = {"xx_hash": xxh64, "murmur_hash_2": murmur_hash_2}


def reference(endpoints: Sequence[Endpoint], policy: RingHash) -> Ring:
    return build_ring(
        flat_shares(endpoints),
        policy.minimum_ring_size,
        policy.maximum_ring_size,
        FUNCTIONS[policy.hash_function],
        policy.use_hostname_for_hashing,
    )


def assert_equal_rings(endpoints: Sequence[Endpoint], policy: RingHash) -> None:
    """Asks on, just before and just after every point, and at both ends."""
    ring = reference(endpoints, policy)
    around = {position + step & MASK_64 for position in ring.positions for step in (-1, 0, 1)} | {0, MASK_64}
    cluster = Cluster("ring", endpoints, policy=policy)
    differing = [key for key in around if cluster.pick(key) != ring.choose(key)]
    assert not differing, f"{len(differing)} of {len(around)} keys differ, {differing[0]} for one"


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_equal_weights_make_envoys_ring(count: int, function: str) -> None:
    assert_equal_rings(fleet(count), RingHash(hash_function=function))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 10, 100])
def test_weights_from_1_to_100_make_envoys_ring(count: int) -> None:
    assert_equal_rings(fleet(count, range(1, 101)), RingHash(maximum_ring_size=20_000))


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=20),
    st.integers(1, 600),
    st.integers(0, 600),
    st.sampled_from(list(FUNCTIONS)),
)
def test_any_weights_and_sizes_make_envoys_ring(weights: list[int], minimum: int, more: int, function: str) -> None:
    policy = RingHash(minimum_ring_size=minimum, maximum_ring_size=minimum + more, hash_function=function)  # type: ignore[arg-type]
    assert_equal_rings(fleet(len(weights), weights), policy)


@given(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=8, unique=True))
def test_the_heaviest_weights_make_envoys_ring(weights: list[int]) -> None:
    assert_equal_rings(fleet(len(weights), weights), RingHash(maximum_ring_size=1024))


def test_text_keys_are_placed_by_xxh64_whatever_places_the_points() -> None:
    policy = RingHash(hash_function="murmur_hash_2")
    ring = reference(fleet(9), policy)
    cluster = Cluster("ring", fleet(9), policy=policy)
    keys = [f"user-{number}" for number in range(500)]
    assert [cluster.pick(key) for key in keys] == [ring.choose(hash64(key)) for key in keys]


def test_ipv6_and_unix_addresses_are_placed_as_envoy_writes_them() -> None:
    assert_equal_rings(
        [Endpoint("[2001:db8::1]:80"), Endpoint("unix:/run/a.sock"), Endpoint("a.example:80")], RingHash()
    )


def test_a_hash_key_takes_the_place_of_the_address() -> None:
    endpoints = [Endpoint(address(i), metadata={"hash_key": f"stable-{i}"}) for i in range(5)]
    assert_equal_rings(endpoints, RingHash(minimum_ring_size=100))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_hash_keys_of_any_length_make_envoys_ring(function: str) -> None:
    for length in range(1, 70):
        twins = [Endpoint(address(i), metadata={"hash_key": letter * length}) for i, letter in enumerate("ab")]
        assert_equal_rings(twins, RingHash(minimum_ring_size=220, hash_function=function))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [17, 1.5, True, None, ["a"], ""], ids=repr)
def test_a_hash_key_that_is_no_text_is_ignored(value: object) -> None:
    odd = [Endpoint(address(0), metadata={"hash_key": value}), *fleet(4)[1:]]
    cluster, plain = Cluster("odd", odd, policy=RingHash()), Cluster("plain", fleet(4), policy=RingHash())
    keys = range(0, 2**64, 2**55)
    assert [cluster.pick(key).address for key in keys] == [plain.pick(key).address for key in keys]


@pytest.mark.parametrize("use_hostname", [False, True])
def test_hostnames_place_endpoints_only_where_asked(use_hostname: bool) -> None:
    endpoints = [Endpoint(address(i), hostname=f"h{i}.example" if i else "") for i in range(5)]
    assert_equal_rings(endpoints, RingHash(use_hostname_for_hashing=use_hostname))


@pytest.mark.parametrize("count", [7, 1000])
def test_a_maximum_below_the_number_of_endpoints_leaves_some_out_as_envoy_does(count: int) -> None:
    assert_equal_rings(fleet(count), RingHash(minimum_ring_size=1, maximum_ring_size=count // 2))


def test_equal_points_belong_to_the_earlier_endpoint() -> None:
    twins = [Endpoint(address(i), metadata={"hash_key": "same"}) for i in (3, 1, 2)]
    assert {Cluster("twins", twins, policy=RingHash()).pick(key) for key in range(0, 2**64, 2**57)} == {twins[0]}
