"""The same request has the same hash in lbcore and in Envoy: it reaches the host that lbcore picks by that hash.

One Envoy with a route for each policy sends the requests to a hundred real backends, over a ring and a Maglev table;
two hashes that differ agree on the host once in a hundred times.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lbcore import Cluster, Endpoint, HashPolicy, Header, Maglev, RingHash, SourceIp
from lbcore.request import ONE_LINE_HEADERS
from tests.harness.backends import HttpBackends
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.http_client import Answer, HttpClient
from tests.parity.request_hash_policies import (
    TENANT_FILTER,
    Sent,
    envoy_json,
    generated_policies,
    generated_requests,
    generated_rewrites,
)

POLICIES = list(generated_policies(60))
REQUESTS_PER_POLICY = 30
REWRITES = list(generated_rewrites(150))
REWRITTEN = ("", "a", "b", "ab", "aabb", "abab1", "1-a", "éa", "aé-", "ba1ab-é", "AxBx", "xbx1xx", "--", "a b")

# Envoy changes or removes what a client says in these, or asks the upstream side to.
SET_BY_ENVOY = {"x-request-id", "x-forwarded-proto", "x-forwarded-client-cert"}


class Route:
    """A client of one Envoy that asks lbcore the same."""

    def __init__(self, envoy: Envoy, clusters: list[StaticCluster], running: ExitStack) -> None:
        self._address = envoy.listeners()["ingress"]
        self._running = running
        self._clients: dict[str, HttpClient] = {}
        self._balancers = [Cluster(each.name, each.endpoints, policy=each.policy) for each in clusters]

    def client(self, source_ip: str) -> HttpClient:
        if source_ip not in self._clients:
            client = HttpClient(self._address, source_ip=source_ip)
            self._clients[source_ip] = self._running.enter_context(client)
        return self._clients[source_ip]

    def send(self, name: str, sent: Sent, cluster: str) -> Answer:
        headers = [("x-cluster", cluster), ("host", "example.com"), *sent.headers]
        answer = self.client(sent.source_ip).get(f"/{name}{sent.path}", headers)
        assert answer.status == 200, (name, sent)
        return answer

    def disagreements(self, name: str, policy: HashPolicy, sent: Sent) -> Iterator[str]:
        """How Envoy's answer to a request differs from lbcore's."""
        own_address = self.client(sent.source_ip).own_address
        headers = [("host", "example.com"), *sent.headers]
        path = f"/{name}{sent.path}"
        key, set_cookies = policy.evaluate(headers, path, own_address, self._address, sent.filter_state)
        for balancer in self._balancers:
            answers = [self.send(name, sent, balancer.name) for _ in range(1 if key is not None else 6)]
            hosts = {answer.headers["x-backend"] for answer in answers}
            if key is None and len(hosts) == 1:
                yield f"{policy} {sent}: Envoy has a hash"
            if key is not None and hosts != {balancer.pick(key).address}:
                yield f"{policy} {sent}: Envoy has another hash"
            if answers[0].set_cookies != set_cookies:
                yield f"{policy} {sent}: Envoy sets {answers[0].set_cookies}, lbcore {set_cookies}"


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[StaticCluster]]:
    with HttpBackends([f"127.0.0.{number}" for number in range(1, 101)]) as backends:
        endpoints = tuple(map(Endpoint, backends.addresses))
        yield [
            StaticCluster(name="ring", endpoints=endpoints, policy=RingHash(minimum_ring_size=8192)),
            StaticCluster(name="maglev", endpoints=endpoints, policy=Maglev()),
        ]


def test_requests_reach_the_host_that_lbcore_picks_by_their_hash(clusters: list[StaticCluster]) -> None:
    choose = random.Random(7)
    by_name = {f"policy-{number}": policy for number, policy in enumerate(POLICIES)}
    bootstrap = static_bootstrap(
        clusters,
        hash_policies={f"{name}/": envoy_json(policy) for name, policy in by_name.items()},
        http_filters=[TENANT_FILTER],
    )
    with Envoy(bootstrap) as envoy, ExitStack() as running:
        route = Route(envoy, clusters, running)
        wrong = [
            each
            for name, policy in by_name.items()
            for sent in generated_requests(choose, REQUESTS_PER_POLICY)
            for each in route.disagreements(name, policy, sent)
        ]
    assert wrong == []


def test_rewritten_headers_have_envoys_hash(clusters: list[StaticCluster]) -> None:
    policies = {f"{number}": HashPolicy([Header("x-user", regex_rewrite=each)]) for number, each in enumerate(REWRITES)}
    by_name = {f"{name}/": envoy_json(policy) for name, policy in policies.items()}
    with Envoy(static_bootstrap(clusters, hash_policies=by_name)) as envoy, ExitStack() as running:
        route = Route(envoy, clusters[1:], running)
        wrong = [
            each
            for name, policy in policies.items()
            for value in REWRITTEN
            for each in route.disagreements(name, policy, Sent((("x-user", value.encode()),), "/", "127.0.0.1"))
        ]
    assert wrong == []


@pytest.mark.parametrize("values", [(b"b", b"a"), (b"zz", b"")])
def test_the_lines_that_envoy_joins_are_the_ones_that_lbcore_joins(
    clusters: list[StaticCluster], values: tuple[bytes, ...]
) -> None:
    names = ("x-user", "accept-language", "cookie", "range", "forwarded", *sorted(ONE_LINE_HEADERS - SET_BY_ENVOY))
    policies = {f"{name}/": envoy_json(HashPolicy([Header(name)])) for name in names}
    with Envoy(static_bootstrap(clusters, hash_policies=policies)) as envoy, ExitStack() as running:
        route = Route(envoy, clusters[1:], running)
        sent = {name: Sent(tuple((name, value) for value in values), "/", "127.0.0.1") for name in names}
        wrong = [each for name in names for each in route.disagreements(name, HashPolicy([Header(name)]), sent[name])]
    assert wrong == []


def test_an_ipv4_peer_on_a_socket_for_both_has_its_ipv4_hash(clusters: list[StaticCluster]) -> None:
    policy = HashPolicy([SourceIp()])
    bootstrap = static_bootstrap(clusters, hash_policies={"ip": envoy_json(policy)}, listen_on="::")
    balancer = Cluster("maglev", clusters[1].endpoints, policy=Maglev())
    with Envoy(bootstrap) as envoy:
        port = envoy.listeners()["ingress"].rpartition(":")[2]
        with HttpClient(f"127.0.0.1:{port}", source_ip="127.0.0.5") as client:
            answer = client.get("/ip", {"x-cluster": "maglev"})
    key = policy.hash({}, remote_address=("::ffff:127.0.0.5", 5000, 0, 0))
    assert answer.headers["x-backend"] == balancer.pick(key).address


def test_an_ipv6_peer_has_envoys_hash(clusters: list[StaticCluster]) -> None:
    policy = HashPolicy([SourceIp()])
    bootstrap = static_bootstrap(clusters, hash_policies={"ip": envoy_json(policy)}, listen_on="::1")
    with Envoy(bootstrap) as envoy, ExitStack() as running:
        route = Route(envoy, clusters, running)
        assert list(route.disagreements("ip", policy, Sent((), "/", "::1"))) == []
