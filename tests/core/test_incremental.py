"""A cluster that came to its endpoints by many updates picks as one that was given them at once."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from lbcore import Cluster, Endpoint, Health, LocalityWeighted, Maglev, RingHash
from lbcore.policy import Policy
from tests.core.fleets import POLICIES, address
from tests.core.random_layouts import LOCALITIES

KEYS = [key * 0x9E3779B97F4A7C15 % 2**64 for key in range(3_000)]
HASHING: dict[str, Policy] = {
    "ring_hash": RingHash(),
    "large ring": RingHash(minimum_ring_size=1 << 17),
    "small ring": RingHash(minimum_ring_size=7, maximum_ring_size=11),
    "murmur ring": RingHash(hash_function="murmur_hash_2"),
    "bounded ring": RingHash(hash_balance_factor=150),
    "ring by hostname": RingHash(use_hostname_for_hashing=True),
    "maglev": Maglev(table_size=1021),
    "rendezvous": POLICIES["rendezvous"],
    "jump": POLICIES["jump"],
}


def changed(members: list[Endpoint], draw: random.Random) -> list[Endpoint]:
    """One endpoint more, fewer, or other than before; now and then several, or none."""
    members = list(members)
    for _ in range(draw.choice([1, 1, 1, 1, 3])):
        kind = draw.choice(
            ["add", "remove", "weight", "health", "priority", "locality", "swap", "hash_key", "hostname"]
        )
        place = draw.randrange(len(members)) if members else 0
        if kind == "add" or not members:
            fresh = address(draw.randrange(60))
            if fresh not in {each.address for each in members}:
                members.insert(place, Endpoint(fresh, locality=draw.choice(LOCALITIES)))
        elif kind == "remove":
            del members[place]
        elif kind == "swap":
            members.append(members.pop(place))
        else:
            values: dict[str, Any] = {
                "weight": {"weight": draw.choice([1, 2, 7])},
                "health": {"health": draw.choice([Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY])},
                "priority": {"priority": draw.choice([0, 0, 1])},
                "locality": {"locality": draw.choice(LOCALITIES)},
                "hash_key": {"metadata": {"hash_key": f"k{draw.randrange(9)}"}},
                "hostname": {"hostname": f"h{draw.randrange(9)}"},
            }
            members[place] = dataclasses.replace(members[place], **values[kind])
    return members


@pytest.mark.parametrize("weighted", [False, True], ids=["flat", "locality weighted"])
@pytest.mark.parametrize("policy", HASHING)
@pytest.mark.parametrize("seed", range(2))
def test_after_each_update_keys_go_as_in_a_cluster_made_anew(policy: str, seed: int, weighted: bool) -> None:
    draw = random.Random(seed)
    settings: dict[str, Any] = {"policy": HASHING[policy], "locality_policy": LocalityWeighted() if weighted else None}
    cluster = Cluster("grown", **settings)
    members = [Endpoint(address(i), locality=LOCALITIES[i % 3]) for i in range(10)]
    weights = {here: draw.randint(1, 5) for here in LOCALITIES}
    rounds = 8 if policy == "large ring" else 60
    for _ in range(rounds):
        cluster.update(members, locality_weights=weights)
        fresh = Cluster("fresh", **settings)
        fresh.update(members, locality_weights=weights)
        assert cluster.pick_many(KEYS).tolist() == fresh.pick_many(KEYS).tolist()
        members = changed(members, draw)


@pytest.mark.parametrize("policy", HASHING)
def test_checks_that_fail_and_pass_again_leave_every_key_where_it_was(policy: str) -> None:
    draw = random.Random(5)
    cluster = Cluster("checked", [Endpoint(address(i)) for i in range(12)], policy=HASHING[policy])
    before = cluster.pick_many(KEYS).tolist()
    for _ in range(20):
        down = draw.sample(range(12), 4)
        for number in down:
            cluster.set_health(address(number), False)
        assert not set(cluster.pick_many(KEYS).tolist()) & set(down)
        for number in down:
            cluster.set_health(address(number), True)
        assert cluster.pick_many(KEYS).tolist() == before


@pytest.mark.parametrize("policy", HASHING)
def test_failed_checks_count_as_unhealthy_from_discovery(policy: str) -> None:
    checked = Cluster("checked", [Endpoint(address(i)) for i in range(9)], policy=HASHING[policy])
    told_states = [Health.UNHEALTHY if i in (2, 5) else Health.UNKNOWN for i in range(9)]
    told = Cluster("told", [Endpoint(address(i), health=told_states[i]) for i in range(9)], policy=HASHING[policy])
    for number in (2, 5):
        checked.set_health(address(number), False)
    assert checked.pick_many(KEYS).tolist() == told.pick_many(KEYS).tolist()
