"""Whatever Python objects the public entries are given, they work or raise an ordinary error; they never crash."""

from __future__ import annotations

from typing import Any

import numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lbcore
from lbcore import ClientSideWeightedRoundRobin, Cluster, Endpoint, RingHash, Subsets, SubsetSelector
from tests.core.anything import Hostile, anything, survives
from tests.core.fleets import POLICIES, fleet

policies = st.sampled_from(
    [
        *POLICIES.values(),
        ClientSideWeightedRoundRobin(),
        RingHash(hash_balance_factor=120),
        RingHash(point_layout="ketama"),
    ]
)


@settings(max_examples=150)
@given(policies, anything)
@example(POLICIES["maglev"], Hostile())
def test_pick_acquire_and_batches_take_anything_as_a_key(policy: Any, value: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), policy=policy)
    survives(lambda: cluster.pick(value))
    survives(lambda: cluster.acquire(value))
    survives(lambda: lbcore.hash64(value))
    if not isinstance(value, int) or value < 2**20:  # a larger count is a larger array, not a mistake
        survives(lambda: cluster.pick_many(value))
    assert cluster.pick("key") in cluster.endpoints


@settings(max_examples=150)
@given(policies, anything, anything)
def test_exclusions_and_explanations_take_anything(policy: Any, first: Any, second: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), policy=policy)
    survives(lambda: cluster.pick("key", first))
    survives(lambda: cluster.acquire(first, second))
    survives(lambda: cluster.explain(first))
    assert cluster.pick("key") in cluster.endpoints


@settings(max_examples=150)
@given(policies, anything, anything)
def test_batches_take_anything_to_hash_and_to_write_to(policy: Any, first: Any, second: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), policy=policy)
    survives(lambda: lbcore.hash_many(first, second))
    survives(lambda: cluster.pick_many(["a", "b"], first))
    survives(lambda: cluster.pick_many(numpy.arange(3, dtype=numpy.uint64), out=first))
    assert cluster.pick("key") in cluster.endpoints


@settings(max_examples=150)
@given(anything)
def test_subsets_take_anything_as_criteria(criteria: Any) -> None:
    selectors = (SubsetSelector(keys=("a",)), SubsetSelector(keys=("a", "b")))
    cluster = Cluster("fuzz", fleet(3), subsets=Subsets(selectors=selectors, fallback_policy="any_endpoint"))
    survives(lambda: cluster.subset(criteria).pick())
    survives(lambda: cluster.subset({"a": criteria}).pick())
    assert cluster.pick("key") in cluster.endpoints


@settings(max_examples=150)
@given(policies, anything, anything)
def test_rank_and_health_take_anything(policy: Any, first: Any, second: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), policy=policy)
    survives(lambda: cluster.rank(first, second))
    survives(lambda: cluster.rank("key", second))
    survives(lambda: cluster.set_health(first, second))
    survives(lambda: lbcore.hash64(b"key", second))
    assert cluster.endpoints == fleet(3)


@settings(max_examples=150)
@given(policies, anything, anything)
def test_update_takes_anything_and_keeps_the_cluster_usable(policy: Any, members: Any, weights: Any) -> None:
    cluster = Cluster("fuzz", fleet(3), policy=policy)
    survives(lambda: cluster.update(members))
    survives(lambda: cluster.update(fleet(2), locality_weights=weights))
    survives(lambda: cluster.pick("key"))
    assert all(isinstance(each, Endpoint) for each in cluster.endpoints)


@settings(max_examples=150)
@given(anything, anything, anything, anything)
def test_done_takes_anything(ok: Any, status: Any, latency: Any, load: Any) -> None:
    cluster = Cluster("fuzz", fleet(1))
    lease = cluster.acquire()
    survives(lambda: lease.done(ok))
    survives(lambda: cluster.acquire().done(status=status))
    survives(lambda: cluster.acquire().done(latency=latency))
    survives(lambda: cluster.acquire().done(load=load))
    assert cluster.pick() in cluster.endpoints


SETTINGS = ["policy", "locality_policy", "local_locality", "overprovisioning_factor", "panic_threshold"]
SETTINGS += ["fail_traffic_on_panic", "subsets", "seed", "clock"]


@settings(max_examples=200)
@given(st.sampled_from(SETTINGS), anything)
def test_a_cluster_takes_anything_as_a_setting(field: str, value: Any) -> None:
    def make_and_use() -> None:
        cluster = Cluster("fuzz", fleet(3), **{field: value})
        cluster.pick()
        cluster.acquire().done()
        cluster.tick()

    survives(make_and_use)


@settings(max_examples=200)
@given(anything, anything)
def test_a_cluster_takes_anything_as_name_and_members(name: Any, members: Any) -> None:
    survives(lambda: Cluster(name))
    survives(lambda: Cluster("fuzz", members).pick())


@settings(max_examples=150)
@given(
    st.sampled_from(["address", "weight", "locality", "priority", "health", "hostname", "metadata"]),
    anything,
)
def test_an_endpoint_takes_anything_as_a_field(field: str, value: Any) -> None:
    fields = {"address": "10.0.0.1:80", field: value}
    survives(lambda: Cluster("fuzz", [Endpoint(**fields)]).pick("key"))
