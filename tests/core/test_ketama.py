"""The ketama layout puts keys where libketama and uhashring put them."""

from __future__ import annotations

import hashlib
from bisect import bisect_left

import pytest

from lbcore import Cluster, Endpoint, RingHash

KEYS = [f"user-{number}" for number in range(2000)] + ["", "é", "x" * 55, "x" * 56, "x" * 63, "x" * 64, "x" * 200]


def words(text: str) -> list[int]:
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return [int.from_bytes(digest[start : start + 4], "little") for start in (0, 4, 8, 12)]


def ketama_ring(weights: dict[str, int]) -> list[tuple[int, str]]:
    """libketama's continuum: floor(40 * weight over mean weight) digests a server, four points each."""
    total = sum(weights.values())
    return sorted(
        (point, name)
        for name, weight in weights.items()
        for turn in range(40 * len(weights) * weight // total)
        for point in words(f"{name}-{turn}")
    )


def owner(ring: list[tuple[int, str]], key: str) -> str:
    return ring[bisect_left(ring, (words(key)[0], "")) % len(ring)][1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_keys_stay_where_libketama_put_them(count: int, weighted: bool) -> None:
    weights = {f"10.0.0.{number}:11211": number % 4 + 1 if weighted else 1 for number in range(1, count + 1)}
    cluster = Cluster(
        "cache",
        [Endpoint(address, weight=weight) for address, weight in weights.items()],
        policy=RingHash(point_layout="ketama"),
    )
    ring = ketama_ring(weights)
    assert [cluster.pick(key).address for key in KEYS] == [owner(ring, key) for key in KEYS]


def test_batches_and_bytes_agree_with_single_picks() -> None:
    cluster = Cluster(
        "cache", [Endpoint(f"10.0.0.{number}:1") for number in range(1, 9)], policy=RingHash(point_layout="ketama")
    )
    single = [cluster.pick(key).address for key in KEYS]
    assert [cluster.endpoints[member].address for member in cluster.pick_many(KEYS)] == single
    assert [cluster.pick(key.encode()).address for key in KEYS] == single


def test_fallbacks_follow_the_continuum() -> None:
    cluster = Cluster(
        "cache", [Endpoint(f"10.0.0.{number}:1") for number in range(1, 9)], policy=RingHash(point_layout="ketama")
    )
    ring = ketama_ring({each.address: 1 for each in cluster.endpoints})
    start = bisect_left(ring, (words("user-1")[0], ""))
    expected = list(dict.fromkeys((ring[start:] + ring[:start])[place][1] for place in range(len(ring))))
    assert [each.address for each in cluster.rank("user-1", 8)] == expected
