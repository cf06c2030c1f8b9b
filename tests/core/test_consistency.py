"""What consistent hashing promises: few keys move when members come and go, and all get about their share."""

from __future__ import annotations

from collections import Counter

import pytest

from lbcore import Cluster, Endpoint, Maglev, RingHash, hash64
from lbcore.policy import Policy
from tests.core.fleets import address, fleet

KEYS = [hash64(str(number)) for number in range(20_000)]
CONSISTENT: dict[str, Policy] = {"ring_hash": RingHash(minimum_ring_size=16_384), "maglev": Maglev()}


def owners(endpoints: tuple[Endpoint, ...], policy: Policy) -> list[str]:
    cluster = Cluster("consistent", endpoints, policy=policy)
    return [cluster.pick(key).address for key in KEYS]


def moved_between_others(before: list[str], after: list[str], changed: str) -> float:
    """The part of the keys that moved though neither their old nor their new owner came or went."""
    pairs = zip(before, after, strict=True)
    return sum(was != now and changed not in (was, now) for was, now in pairs) / len(KEYS)


def test_a_ring_moves_no_key_but_those_of_the_member_that_left() -> None:
    policy = RingHash(minimum_ring_size=1000)
    before, after = owners(fleet(10), policy), owners(fleet(9), RingHash(minimum_ring_size=900))
    assert moved_between_others(before, after, address(9)) == 0


def test_a_ring_moves_no_key_but_to_the_member_that_joined() -> None:
    before, after = (owners(fleet(n), RingHash(minimum_ring_size=100 * n)) for n in (9, 10))
    assert moved_between_others(before, after, address(9)) == 0


def test_a_maglev_table_moves_few_keys_between_members_that_stayed() -> None:
    before, after = owners(fleet(10), Maglev()), owners(fleet(9), Maglev())
    assert moved_between_others(before, after, address(9)) < 0.03


@pytest.mark.parametrize(("policy", "spread"), [("ring_hash", 0.12), ("maglev", 0.08)])
def test_equal_endpoints_get_about_equal_shares(policy: str, spread: float) -> None:
    counts = Counter(owners(fleet(10), CONSISTENT[policy]))
    assert [counts[address(i)] / len(KEYS) for i in range(10)] == pytest.approx([0.1] * 10, rel=spread)


@pytest.mark.parametrize("policy", CONSISTENT)
def test_shares_follow_the_weights(policy: str) -> None:
    counts = Counter(owners(fleet(4, (1, 2, 3, 4)), CONSISTENT[policy]))
    assert [counts[address(i)] / len(KEYS) for i in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4], rel=0.12)


def test_maglev_slots_differ_by_one_at_most() -> None:
    cluster = Cluster("even", fleet(7), policy=Maglev(table_size=1021))
    counts = Counter(cluster.pick(slot) for slot in range(1021))
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("policy", CONSISTENT)
def test_a_member_that_returns_gets_its_keys_back(policy: str) -> None:
    cluster = Cluster("returning", fleet(8), policy=CONSISTENT[policy])
    before = [cluster.pick(key) for key in KEYS[:2000]]
    cluster.update(fleet(7))
    cluster.update(fleet(8))
    assert [cluster.pick(key) for key in KEYS[:2000]] == before
