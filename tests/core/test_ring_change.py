"""A ring made out of the one before it equals a ring built from scratch, point for point."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lbcore import Cluster, Endpoint, RingHash

HASHES = np.random.default_rng(11).integers(0, 2**64, 50_000, dtype=np.uint64)


def addresses(cluster: Cluster) -> list[str]:
    return [cluster.endpoints[member].address for member in cluster.pick_many(HASHES)]


def changed(endpoints: list[Endpoint], how: random.Random) -> list[Endpoint]:
    """One of: an endpoint added, removed, reweighed, or two that swap places."""
    endpoints = list(endpoints)
    place = how.randrange(len(endpoints))
    match how.randrange(4):
        case 0:
            number = how.randrange(2, 60_000)
            endpoints.insert(place, Endpoint(f"10.9.{number >> 8}.{number & 255}:80", weight=how.randint(1, 5)))
        case 1 if len(endpoints) > 2:
            del endpoints[place]
        case 2:
            endpoints[place] = Endpoint(endpoints[place].address, weight=how.randint(1, 5))
        case _:
            endpoints[0], endpoints[place] = endpoints[place], endpoints[0]
    return list({each.address: each for each in endpoints}.values())


@pytest.mark.parametrize(
    "policy",
    [
        RingHash(),
        RingHash(minimum_ring_size=60_000),
        RingHash(minimum_ring_size=8000, maximum_ring_size=8000),
        RingHash(minimum_ring_size=20_000, hash_function="murmur_hash_2"),
        RingHash(minimum_ring_size=20_000, hash_balance_factor=150),
    ],
    ids=lambda policy: f"{policy.minimum_ring_size}-{policy.hash_function}-{policy.hash_balance_factor}",
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_changed_ring_equals_one_built_from_scratch(policy: RingHash, seed: int) -> None:
    how = random.Random(seed)
    endpoints = [Endpoint(f"10.0.0.{number}:80", weight=how.randint(1, 3)) for number in range(1, 80)]
    cluster = Cluster("web", endpoints, policy=policy)
    for _ in range(25):
        endpoints = changed(endpoints, how)
        cluster.update(endpoints)
        assert addresses(cluster) == addresses(Cluster("web", endpoints, policy=policy))


def test_health_that_comes_and_goes_leaves_the_ring_as_it_was() -> None:
    endpoints = [Endpoint(f"10.0.0.{number}:80") for number in range(1, 100)]
    cluster = Cluster("web", endpoints, policy=RingHash(minimum_ring_size=30_000))
    before = addresses(cluster)
    cluster.set_health("10.0.0.7:80", False)
    out = addresses(cluster)
    cluster.set_health("10.0.0.7:80", True)
    assert "10.0.0.7:80" not in out
    assert addresses(cluster) == before


def test_endpoints_with_one_hash_key_are_told_apart_by_their_order() -> None:
    twins = [Endpoint(f"10.0.0.{number}:80", metadata={"hash_key": "same"}) for number in range(1, 5)]
    cluster = Cluster("web", twins, policy=RingHash())
    cluster.update(list(reversed(twins)))
    assert addresses(cluster) == addresses(Cluster("web", list(reversed(twins)), policy=RingHash()))
