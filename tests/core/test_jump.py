"""Jump: the published shard for every key; shards keep their numbers while others are out of service."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Health, Jump
from tests.core.chi_square import assert_follows
from tests.core.fleets import address, fleet
from tests.core.layouts import spread_over_health
from tests.reference.jump import jump_shard

KEYS = [key * 0x9E3779B97F4A7C15 % 2**64 for key in range(30_000)]


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_a_key_goes_to_the_published_shard(count: int, key: int) -> None:
    cluster = Cluster("jump", fleet(count), policy=Jump())
    assert cluster.pick(key) == cluster.endpoints[jump_shard(key, count)]


def test_weights_do_not_count() -> None:
    plain, weighted = (Cluster("jump", fleet(9, weights), policy=Jump()) for weights in ((1,), (1, 50)))
    assert plain.pick_many(KEYS).tolist() == weighted.pick_many(KEYS).tolist()


def test_a_shard_added_at_the_end_only_takes_keys() -> None:
    before, after = (Cluster("jump", fleet(count), policy=Jump()).pick_many(KEYS).tolist() for count in (9, 10))
    assert {now for was, now in zip(before, after, strict=True) if was != now} == {9}


@pytest.mark.parametrize("out", [0, 3, 7])
def test_only_the_keys_of_a_shard_that_is_out_move(out: int) -> None:
    whole = Cluster("jump", fleet(8), policy=Jump()).pick_many(KEYS).tolist()
    states = [Health.UNHEALTHY if shard == out else Health.HEALTHY for shard in range(8)]
    now = Cluster("jump", spread_over_health(states), policy=Jump()).pick_many(KEYS).tolist()
    assert {was for was, is_now in zip(whole, now, strict=True) if was != is_now} == {out}
    moved = Counter(is_now for was, is_now in zip(whole, now, strict=True) if was == out)
    assert_follows(moved, {shard: 1 / 7 for shard in range(8) if shard != out})


def test_a_single_shard_left_takes_every_key() -> None:
    states = [Health.UNHEALTHY] * 50 + [Health.HEALTHY]
    cluster = Cluster("jump", spread_over_health(states), policy=Jump(), panic_threshold=0.0)
    assert {cluster.endpoints[i].address for i in cluster.pick_many(KEYS[:500])} == {address(50)}
