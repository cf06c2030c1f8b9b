"""Random: each pick independent of all before, each endpoint as likely as its weight says."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from lbcore import Cluster, Random
from tests.core.chi_square import assert_follows
from tests.core.fleets import address, fleet

WEIGHTS = {"equal": (1,), "mixed": (1, 2, 3, 10, 50), "two": (1, 9), "steep": (1, 1, 1, 200), "prime": (7, 11, 13)}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_shares_follow_the_weights(weights: tuple[int, ...], count: int) -> None:
    cluster = Cluster("random", fleet(count, weights), policy=Random(), seed=11)
    counts = Counter(cluster.pick().address for _ in range(60_000))
    total = sum(endpoint.weight for endpoint in cluster.endpoints)
    assert_follows(counts, {endpoint.address: endpoint.weight / total for endpoint in cluster.endpoints})


def test_a_pick_does_not_depend_on_the_one_before() -> None:
    cluster = Cluster("random", fleet(5), policy=Random(), seed=2)
    order = [cluster.pick().address for _ in range(50_001)]
    pairs = Counter(itertools.pairwise(order))
    assert_follows(pairs, {(address(i), address(j)): 1 / 25 for i in range(5) for j in range(5)})


def test_the_largest_weights_do_not_overflow() -> None:
    cluster = Cluster("random", fleet(3, (2**32 - 1,)), policy=Random(), seed=5)
    counts = Counter(cluster.pick().address for _ in range(30_000))
    assert_follows(counts, {address(i): 1 / 3 for i in range(3)})


def test_clusters_without_a_seed_differ() -> None:
    clusters = [Cluster("r", fleet(9), policy=Random()) for _ in range(2)]
    assert len({tuple(cluster.pick().address for _ in range(20)) for cluster in clusters}) == 2
