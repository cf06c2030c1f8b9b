"""Rendezvous: shares exactly by weight, and no key moves but for the endpoint that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Rendezvous
from tests.core.chi_square import assert_follows
from tests.core.fleets import address, fleet

KEYS = numpy.random.default_rng(3).integers(0, 2**64, 60_000, dtype=numpy.uint64)


def owners(endpoints: Sequence[Endpoint], keys: numpy.ndarray = KEYS) -> list[str]:
    cluster = Cluster("rendezvous", endpoints, policy=Rendezvous())
    names = [endpoint.address for endpoint in cluster.endpoints]
    return [names[i] for i in cluster.pick_many(keys)]


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3, 4), (1, 1, 1, 97), (5, 7, 11), (2**32 - 1, 2**31)], ids=str)
@pytest.mark.parametrize("count", [2, 5, 16, 17, 33])
def test_shares_are_the_weights(weights: tuple[int, ...], count: int) -> None:
    endpoints = fleet(count, weights)
    total = sum(endpoint.weight for endpoint in endpoints)
    assert_follows(Counter(owners(endpoints)), {each.address: each.weight / total for each in endpoints})


@pytest.mark.parametrize("count", [2, 9, 40])
def test_a_member_that_leaves_moves_only_its_own_keys(count: int) -> None:
    before, after = owners(fleet(count, (1, 3))), owners(fleet(count, (1, 3))[1:])
    assert {was for was, now in zip(before, after, strict=True) if was != now} == {address(0)}


def test_the_keys_of_a_member_that_leaves_spread_by_weight() -> None:
    endpoints = fleet(4, (10, 1, 2, 3))
    before, after = owners(endpoints), owners(endpoints[1:])
    moved = Counter(now for was, now in zip(before, after, strict=True) if was == address(0))
    assert_follows(moved, {address(1): 1 / 6, address(2): 2 / 6, address(3): 3 / 6})


@pytest.mark.parametrize("count", [2, 9, 40])
def test_a_member_that_joins_takes_keys_and_moves_no_other(count: int) -> None:
    before, after = owners(fleet(count)[1:]), owners(fleet(count))
    assert {now for was, now in zip(before, after, strict=True) if was != now} == {address(0)}


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_new_weight_moves_keys_only_to_or_from_its_endpoint(was: int, becomes: int) -> None:
    keys = KEYS[:3_000]
    before = owners([Endpoint(address(0), weight=was), *fleet(6)[1:]], keys)
    after = owners([Endpoint(address(0), weight=becomes), *fleet(6)[1:]], keys)
    moved = {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]}
    heavier = becomes > was
    assert all(pair[1 if heavier else 0] == address(0) for pair in moved)


@given(st.permutations(range(12)))
def test_the_order_of_endpoints_does_not_matter(order: list[int]) -> None:
    keys = KEYS[:2_000]
    members = fleet(12, (1, 2, 5))
    assert owners([members[i] for i in order], keys) == owners(members, keys)


def test_a_common_factor_of_the_weights_does_not_matter() -> None:
    assert owners(fleet(6, (1, 2, 3))) == owners(fleet(6, (1000, 2000, 3000)))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 31, 64, 100])
def test_batches_and_single_picks_agree_at_every_width(count: int) -> None:
    cluster = Cluster("rendezvous", fleet(count, (1, 2, 5)), policy=Rendezvous())
    keys = KEYS[:3_000]
    assert cluster.pick_many(keys).tolist() == [cluster.endpoints.index(cluster.pick(int(key))) for key in keys]


def test_the_rank_is_the_order_in_which_members_would_serve() -> None:
    members = list(fleet(9, (1, 4)))
    for key in KEYS[:200].tolist():
        ranked = Cluster("rendezvous", members, policy=Rendezvous()).rank(key, 9)
        left = list(members)
        for endpoint in ranked:
            assert Cluster("rendezvous", left, policy=Rendezvous()).pick(key) == endpoint
            left.remove(endpoint)


def test_hash_keys_and_hostnames_place_endpoints() -> None:
    here = [Endpoint(address(i), metadata={"hash_key": f"k{i}"}, hostname=f"h{i}") for i in range(5)]
    there = [Endpoint(address(50 + i), metadata={"hash_key": f"k{i}"}) for i in range(5)]
    moved = dict(zip([each.address for each in there], [each.address for each in here], strict=True))
    assert [moved[name] for name in owners(there)] == owners(here)
