"""Loops in vector instructions give the picks of the plain ones, bit for bit, whichever the machine has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lbcore import Cluster, Endpoint, Health, Jump, Maglev, Rendezvous
from lbcore._core import _use_simd
from tests.core.fleets import address, fleet
from tests.reference.jump import jump_shard

ODD_HASHES = [0, 1, 2**33 - 1, 2**33, 2**63, 2**64 - 1, 0x5555_5555_5555_5555]
HASHES = np.concatenate(
    [np.array(ODD_HASHES, dtype=np.uint64), np.random.default_rng(3).integers(0, 2**64, 10_000, dtype=np.uint64)]
)
COUNTS = [1, 2, 3, 10, 17, 1000, 4097]


def picks(cluster: Cluster) -> list[int]:
    return cluster.pick_many(HASHES).tolist()


@pytest.fixture(params=["avx2", "avx512"])
def vectors(request: pytest.FixtureRequest) -> Iterator[str]:
    try:
        _use_simd(request.param)
    except ValueError as absent:
        pytest.skip(str(absent))
    yield request.param
    _use_simd()


def every_simd() -> Iterator[str]:
    """Each that the machine has, in use while it is the caller's turn; the plain loops first."""
    best = _use_simd()
    for name in ("scalar", "avx2", "avx512"):
        yield _use_simd(name)  # type: ignore[arg-type]
        if name == best:
            break
    _use_simd()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.usefixtures("vectors")
def test_jump_finds_the_same_shards(count: int) -> None:
    cluster = Cluster("shards", fleet(count), policy=Jump())
    found = picks(cluster)
    assert found[:500] == [jump_shard(int(each), count) for each in HASHES[:500]]
    _use_simd("scalar")
    assert picks(cluster) == found


@pytest.mark.parametrize("keys", range(34))
@pytest.mark.usefixtures("vectors")
def test_jump_finds_them_for_any_number_of_keys(keys: int) -> None:
    cluster = Cluster("shards", fleet(100), policy=Jump())
    assert cluster.pick_many(HASHES[:keys]).tolist() == [jump_shard(int(each), 100) for each in HASHES[:keys]]


@pytest.mark.usefixtures("vectors")
def test_jump_passes_over_a_shard_that_is_out() -> None:
    states = {3: Health.DRAINING, 7: Health.UNHEALTHY}
    members = [Endpoint(address(number), health=states.get(number, Health.HEALTHY)) for number in range(10)]
    cluster = Cluster("shards", members, policy=Jump())
    found = picks(cluster)
    assert not {3, 7} & set(found)
    assert found[:200] == [cluster.endpoints.index(cluster.pick(int(each))) for each in HASHES[:200]]
    _use_simd("scalar")
    assert picks(cluster) == found


@pytest.mark.parametrize("weights", [(1,), (1, 2, 7)], ids=["equal", "weighted"])
@pytest.mark.parametrize("count", [1, 5, 16, 300])
@pytest.mark.usefixtures("vectors")
def test_rendezvous_scores_alike(weights: tuple[int, ...], count: int) -> None:
    cluster = Cluster("caches", fleet(count, weights), policy=Rendezvous())
    found = cluster.pick_many(HASHES[:2000]).tolist()
    ranked = cluster.rank(int(HASHES[9]), 5)
    _use_simd("scalar")
    assert cluster.pick_many(HASHES[:2000]).tolist() == found
    assert cluster.rank(int(HASHES[9]), 5) == ranked


@pytest.mark.parametrize("weights", [(1,), (1, 2, 7)], ids=["equal", "weighted"])
@pytest.mark.parametrize("count", [1, 3, 16, 300])
@pytest.mark.parametrize("size", [2, 3, 7, 17, 251, 65537])
@pytest.mark.usefixtures("vectors")
def test_maglev_fills_the_same_table(size: int, count: int, weights: tuple[int, ...]) -> None:
    slots = np.arange(size, dtype=np.uint64)
    found = Cluster("caches", fleet(count, weights), policy=Maglev(table_size=size)).pick_many(slots)
    _use_simd("scalar")
    plain = Cluster("caches", fleet(count, weights), policy=Maglev(table_size=size)).pick_many(slots)
    assert found.tolist() == plain.tolist()


def test_maglev_fills_a_table_of_more_than_16_bits() -> None:
    size = 131101
    members = fleet(70_000)
    plain, *others = (
        Cluster("caches", members, policy=Maglev(table_size=size)).pick_many(np.arange(size, dtype=np.uint64)).tolist()
        for _ in every_simd()
    )
    assert max(plain) == 69_999
    assert all(other == plain for other in others)


def test_the_best_is_used_unless_a_test_says_otherwise() -> None:
    best = _use_simd()
    assert best in ("scalar", "avx2", "avx512")
    assert _use_simd("scalar") == "scalar"
    assert _use_simd() == best
    with pytest.raises(ValueError, match="not in"):
        _use_simd("sse9")  # type: ignore[arg-type]
