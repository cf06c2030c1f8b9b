"""The same key reaches the same host through lbcore and through Envoy, for rings and Maglev tables.

Two ways of asking Envoy: the tables it prints, compared whole, and requests through its listener to real backends.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lbcore.model import Endpoint
from lbcore.policy import MAX_RING_SIZE, MAX_TABLE_SIZE, Maglev, Policy, RingHash
from tests.harness.backends import HttpBackends
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.http_client import HttpClient
from tests.parity.hash_layouts import maglev_layouts, ring_layouts
from tests.parity.printed_tables import PrintedTables, printed_tables

RINGS = list(ring_layouts())
TABLES = list(maglev_layouts())
COUNTS = (1, 3, 10, 100)
KEYS_PER_CLUSTER = 300


def hashed_text(endpoint: Endpoint, cluster: StaticCluster) -> str:
    """What Envoy hashes for an endpoint (thread_aware_lb_impl.h, hashKey)."""
    assert isinstance(cluster.policy, RingHash | Maglev)
    by_hostname = endpoint.hostname if cluster.policy.use_hostname_for_hashing else ""
    return endpoint.hash_key or by_hostname or endpoint.address.removeprefix("unix:")


def hosts_for(cluster: StaticCluster, hashes: np.ndarray) -> list[str]:
    """The hosts that lbcore picks for hashes, as the text that is hashed for them."""
    balancer = cluster.balancer()
    names = [hashed_text(endpoint, cluster) for endpoint in balancer.endpoints]
    return [names[index] for index in balancer.pick_many(hashes)]


@pytest.fixture(scope="module")
def printed() -> dict[str, PrintedTables]:
    """What one Envoy prints for every layout."""
    with Envoy(static_bootstrap([*RINGS, *TABLES]), component_log_level="upstream:trace") as envoy:
        return printed_tables(envoy.log)


@pytest.mark.parametrize("cluster", RINGS, ids=lambda cluster: cluster.name)
def test_every_arc_of_the_ring_belongs_to_envoys_host(
    cluster: StaticCluster, printed: dict[str, PrintedTables]
) -> None:
    points = np.array([point for point, _ in printed[cluster.name].ring], dtype=np.uint64)
    owners = [host for _, host in printed[cluster.name].ring]
    assert hosts_for(cluster, points) == owners, "a hash that is a point belongs to that point"
    after = hosts_for(cluster, points + np.uint64(1))
    assert after == owners[1:] + owners[:1], "a hash past a point belongs to the next one"


@pytest.mark.parametrize("cluster", TABLES, ids=lambda cluster: cluster.name)
def test_every_slot_of_the_maglev_table_holds_envoys_host(
    cluster: StaticCluster, printed: dict[str, PrintedTables]
) -> None:
    assert isinstance(cluster.policy, Maglev)
    slots = np.arange(cluster.policy.table_size, dtype=np.uint64)
    assert hosts_for(cluster, slots) == printed[cluster.name].slots


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpBackends]:
    """A hundred on IPv4, ten on IPv6, ten on unix sockets."""
    folder: Path = tmp_path_factory.mktemp("sockets")
    hosts = [f"127.0.0.{number}" for number in range(1, 101)]
    hosts += ["::1"] * 10 + [f"unix:{folder}/{number}.sock" for number in range(10)]
    with HttpBackends(hosts) as running:
        yield running


def served_layouts(addresses: list[str]) -> Iterator[StaticCluster]:
    """Clusters of real backends: each count on IPv4 with weights 1 to 100, then IPv6, unix sockets and hash keys."""
    choose = random.Random(3)
    ipv4, ipv6, unix = addresses[:100], addresses[100:110], addresses[110:]
    policies: tuple[Policy, ...] = (RingHash(), RingHash(hash_function="murmur_hash_2"), Maglev())
    for number, policy in enumerate(policies):
        for count in COUNTS:
            weighted = tuple(Endpoint(address, weight=choose.randint(1, 100)) for address in ipv4[:count])
            yield StaticCluster(name=f"ipv4-{count}-{number}", endpoints=weighted, policy=policy)
        yield StaticCluster(name=f"ipv6-{number}", endpoints=tuple(map(Endpoint, ipv6)), policy=policy)
        yield StaticCluster(name=f"unix-{number}", endpoints=tuple(map(Endpoint, unix)), policy=policy)
        named = [Endpoint(address, metadata={"hash_key": f"shard-{n}"}) for n, address in enumerate(ipv4[:10])]
        yield StaticCluster(name=f"hash-key-{number}", endpoints=tuple(named), policy=policy)


def keys(seed: int) -> list[str]:
    """Header values of every length up to 60, as XXH64 has a path for each size class."""
    choose = random.Random(seed)
    alphabet = string.ascii_letters + string.digits + "-_/.:;=@"
    return ["".join(choose.choices(alphabet, k=1 + number % 60)) for number in range(KEYS_PER_CLUSTER)]


def test_keyed_requests_reach_the_host_that_lbcore_picks(backends: HttpBackends) -> None:
    clusters = list(served_layouts(backends.addresses))
    disagreements = []
    with Envoy(static_bootstrap(clusters)) as envoy, HttpClient(envoy.listeners()["ingress"]) as client:
        for seed, cluster in enumerate(clusters):
            balancer = cluster.balancer()
            for key in keys(seed):
                answer = client.get("/", {"x-cluster": cluster.name, "x-key": key})
                assert answer.status == 200
                if (picked := balancer.pick(key).address) != answer.headers["x-backend"]:
                    disagreements.append((cluster.name, key, picked, answer.headers["x-backend"]))
    assert disagreements == []


def test_the_largest_ring_and_table_route_as_envoys_do(backends: HttpBackends) -> None:
    choose = random.Random(4)
    endpoints = tuple(Endpoint(address, weight=choose.randint(1, 100)) for address in backends.addresses[:10])
    policies = (RingHash(minimum_ring_size=MAX_RING_SIZE), Maglev(table_size=MAX_TABLE_SIZE))
    clusters = [StaticCluster(name=type(each).__name__, endpoints=endpoints, policy=each) for each in policies]
    with Envoy(static_bootstrap(clusters)) as envoy, HttpClient(envoy.listeners()["ingress"]) as client:
        for cluster in clusters:
            balancer = cluster.balancer()
            sent = keys(4)
            headers = [{"x-cluster": cluster.name, "x-key": key} for key in sent]
            answers = [client.get("/", each).headers["x-backend"] for each in headers]
            assert answers == [balancer.pick(key).address for key in sent]


PREVIOUS_HOSTS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}
RETRY_POLICY = {
    "retry_on": "5xx",
    "num_retries": 4,
    "retry_host_predicate": [PREVIOUS_HOSTS],
    "host_selection_retry_max_attempts": 200,
    "retry_back_off": {"base_interval": "0.001s"},
}


def test_retries_go_along_the_keys_own_order(backends: HttpBackends) -> None:
    choose = random.Random(6)
    endpoints = tuple(Endpoint(address, weight=choose.randint(1, 3)) for address in backends.addresses[:8])
    failing = {endpoint.address for endpoint in choose.sample(endpoints, 4)}
    policies = (RingHash(), RingHash(hash_function="murmur_hash_2"), Maglev(table_size=1009))
    clusters = [StaticCluster(name=f"c{i}", endpoints=endpoints, policy=each) for i, each in enumerate(policies)]
    retried = 0
    try:
        for address in failing:
            backends.behave(address, status=503)
        bootstrap = static_bootstrap(clusters, retry_policy=RETRY_POLICY)
        with Envoy(bootstrap) as envoy, HttpClient(envoy.listeners()["ingress"]) as client:
            for cluster in clusters:
                balancer = cluster.balancer()
                for key in keys(7)[:100]:
                    tried: list[Endpoint] = []
                    while (picked := balancer.pick(key, exclude=tried)).address in failing:
                        tried.append(picked)
                    answer = client.get("/", {"x-cluster": cluster.name, "x-key": key})
                    assert answer.headers["x-backend"] == picked.address, (cluster.policy, key, tried)
                    retried += len(tried)
    finally:
        for address in failing:
            backends.behave(address)
    assert retried > 100
