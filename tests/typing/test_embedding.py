"""Lists where lists read naturally, and the types of what comes back."""

from __future__ import annotations

import numpy
import numpy.typing
from typing_extensions import assert_type

from lbcore import (
    Cluster,
    Cookie,
    Endpoint,
    HashPolicy,
    Header,
    Lease,
    Locality,
    LocalityWeighted,
    Maglev,
    RingHash,
    Subset,
    Subsets,
    SubsetSelector,
    ZoneAware,
    connect,
)
from lbcore.source import Dns
from lbcore.sources.connecting import ConnectedCluster

ENDPOINTS = [Endpoint(f"10.0.0.{number}:80", metadata={"version": "1"}) for number in range(1, 4)]


def test_hash_policies_take_one_method_a_list_or_a_tuple() -> None:
    one = HashPolicy(Header("x-user"))
    listed = HashPolicy([Header("x-user"), Cookie("session", ttl=60)])
    assert HashPolicy((Header("x-user"), Cookie("session", ttl=60))) == listed
    assert_type(one.hash({"x-user": "ann"}), int | None)
    key, set_cookies = listed.evaluate([(b"x-user", b"ann")], "/", ("192.0.2.7", 5000), ("192.0.2.1", 80))
    assert_type(key, int | None)
    assert_type(set_cookies, tuple[str, ...])


def test_subsets_take_lists_or_tuples() -> None:
    subsets = Subsets(selectors=[SubsetSelector(keys=["version"])])
    assert subsets == Subsets(selectors=(SubsetSelector(keys=("version",)),))
    cluster = Cluster("web", ENDPOINTS, subsets=subsets)
    assert_type(cluster.subset({"version": "1"}), Subset)


def test_picks_have_the_types_of_what_they_give() -> None:
    cluster = Cluster("web", ENDPOINTS, policy=Maglev())
    assert_type(cluster.pick(), Endpoint)
    assert_type(cluster.pick("user", exclude=[ENDPOINTS[0]]), Endpoint)
    assert_type(cluster.rank(b"user", 2), list[Endpoint])
    assert_type(cluster.pick_many(["a", "b"]), numpy.typing.NDArray[numpy.int32])
    lease = cluster.acquire(2**64 - 1)
    assert_type(lease, Lease)
    assert_type(lease.endpoint, Endpoint)
    lease.done()
    with cluster.acquire() as endpoint:
        assert_type(endpoint, Endpoint)


def test_localities_are_values_or_text() -> None:
    near = ZoneAware(local_hosts={"eu/a": 3, "eu/b": 1})
    assert ZoneAware(local_hosts={Locality("eu", "a"): 3, Locality("eu", "b"): 1}) == near
    Cluster("web", ENDPOINTS, policy=RingHash(), locality_policy=near, local_locality="eu/a")
    weighted = Cluster("web", locality_policy=LocalityWeighted())
    assert_type(weighted.update(ENDPOINTS, locality_weights={"eu/a": 2}), bool)


async def test_connecting_gives_a_cluster_by_await_and_by_async_with() -> None:
    cluster = await connect("ipv4:10.0.0.1:80", policy=Maglev())
    assert_type(cluster, ConnectedCluster)
    assert_type(cluster.pick(), Endpoint)
    await cluster.aclose()
    async with connect("ipv4:10.0.0.1:80") as cluster:
        assert_type(cluster, ConnectedCluster)
    assert Dns("web.internal", port=80, resolvers=["10.0.0.53:53"]).resolvers == ("10.0.0.53:53",)
