"""Clusters to compare hashing over: a spread generated from a fixed seed, so that each run sees the same.

Varied together: number of endpoints, weights, what stands for an endpoint when it is hashed, hash function, table size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

from lbcore.model import Endpoint
from lbcore.policy import Maglev, RingHash
from tests.harness.bootstrap import StaticCluster

__all__ = ["maglev_layouts", "ring_layouts"]

COUNTS = (1, 3, 10, 100)
WEIGHTS = ("equal", "mixed")  # mixed: 1 to 100
NAMINGS = ("ipv4", "ipv6", "unix", "hash_key", "hostname")
RING_SIZES = (1, 7, 100, 1024, 4096)
TABLE_SIZES = (101, 251, 1009, 8191, 65537)  # primes, not below the largest count


def ring_layouts() -> Iterator[StaticCluster]:
    """Rings over every combination, sizes in turn; then sizes at the bounds."""
    choose = random.Random(1)
    for count, weights, naming, function in product(COUNTS, WEIGHTS, NAMINGS, ("xx_hash", "murmur_hash_2")):
        size = choose.choice(RING_SIZES)
        yield StaticCluster(
            name=f"ring-{count}-{weights}-{naming}-{function}-{size}",
            endpoints=_endpoints(choose, count, weights, naming),
            policy=RingHash(
                minimum_ring_size=size,
                hash_function="xx_hash" if function == "xx_hash" else "murmur_hash_2",
                use_hostname_for_hashing=naming == "hostname",
            ),
        )
    # The maximum decides: fewer points than weights ask for.
    for count, most in ((3, 5), (10, 64), (100, 1024)):
        yield StaticCluster(
            name=f"ring-{count}-at-most-{most}",
            endpoints=_endpoints(choose, count, "mixed", "ipv4"),
            policy=RingHash(minimum_ring_size=1, maximum_ring_size=most),
        )
    yield StaticCluster(
        name="ring-131072",
        endpoints=_endpoints(choose, 100, "mixed", "ipv4"),
        policy=RingHash(minimum_ring_size=131072),
    )


def maglev_layouts() -> Iterator[StaticCluster]:
    """Maglev tables over every combination but the single endpoint, for which Envoy builds no table."""
    choose = random.Random(2)
    for count, weights, naming in product(COUNTS[1:], WEIGHTS, NAMINGS):
        size = choose.choice(TABLE_SIZES)
        yield StaticCluster(
            name=f"maglev-{count}-{weights}-{naming}-{size}",
            endpoints=_endpoints(choose, count, weights, naming),
            policy=Maglev(table_size=size, use_hostname_for_hashing=naming == "hostname"),
        )


def _endpoints(choose: random.Random, count: int, weights: str, naming: str) -> tuple[Endpoint, ...]:
    net = choose.randrange(1, 2**16)
    return tuple(
        Endpoint(
            _address(naming, net, number),
            weight=choose.randint(1, 100) if weights == "mixed" else 1,
            hostname=f"host-{number}.example" if naming == "hostname" else "",
            metadata={"hash_key": f"shard-{number}"} if naming == "hash_key" else {},
        )
        for number in range(count)
    )


def _address(naming: str, net: int, number: int) -> str:
    if naming == "ipv6":
        return f"[2001:db8::{net:x}:{number:x}]:8080"
    if naming == "unix":
        return f"unix:/run/web-{net}/{number}.sock"
    return f"10.{net >> 8}.{net & 255}.{number}:8080"
