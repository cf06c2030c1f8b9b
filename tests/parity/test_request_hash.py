"""The request that Envoy's route hashes reaches the host that `HashPolicy` and a ring name for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lbcore import Cluster, Cookie, Endpoint, HashPolicy, Header, Maglev, QueryParameter, RegexRewrite, RingHash
from lbcore.policy import Policy
from tests.harness.backends import HttpBackends
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.http_client import HttpClient

Json = Any
REWRITE = RegexRewrite("^/?([^/]+)/.*$", r"\1")

# Each method as lbcore has it, and as Envoy's route has it.
METHODS: dict[str, tuple[Any, Json]] = {
    "user": (Header("x-user"), {"header": {"header_name": "x-user"}}),
    "first user": (Header("x-user", terminal=True), {"header": {"header_name": "x-user"}, "terminal": True}),
    "tenant": (
        Header("x-tenant", regex_rewrite=REWRITE),
        {
            "header": {
                "header_name": "x-tenant",
                "regex_rewrite": {"pattern": {"regex": "^/?([^/]+)/.*$"}, "substitution": "\\1"},
            }
        },
    ),
    "session": (Cookie("session"), {"cookie": {"name": "session"}}),
    "query": (QueryParameter("q"), {"query_parameter": {"name": "q"}}),
}
POLICIES = [list(chosen) for size in (1, 2, 3) for chosen in itertools.permutations(METHODS, size)][::3]
REQUESTS: list[tuple[dict[str, str], str]] = [
    ({"x-user": "ann"}, ""),
    ({"x-user": "bob", "x-tenant": "acme/eu/1"}, "?q=1"),
    ({"x-user": "", "cookie": "a=b; session=77"}, "?p=1&q=two%20words&q=3"),
    ({"x-tenant": "/acme/us", "cookie": 'session="quoted"'}, "?q"),
    ({"x-tenant": "nothing", "cookie": "session=; session=2"}, "?q=&x=1"),
    ({"x-user": "é", "x-tenant": "é/x"}, "?q=%C3%A9"),
]


def bootstrap(clusters: list[StaticCluster]) -> Json:
    """The usual listener, with one route a policy and cluster: /CLUSTER/NUMBER."""
    made = static_bootstrap(clusters)
    manager = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {
            "match": {"prefix": f"/{cluster.name}/{number}/"},
            "route": {"cluster": cluster.name, "hash_policy": [METHODS[name][1] for name in chosen]},
        }
        for cluster in clusters
        for number, chosen in enumerate(POLICIES)
    ]
    return made


@pytest.mark.parametrize("policy", [RingHash(), Maglev()], ids=lambda policy: type(policy).__name__)
def test_requests_reach_the_host_that_the_hash_names(policy: Policy) -> None:
    with HttpBackends([f"127.0.0.{number}" for number in range(1, 9)]) as backends:
        endpoints = tuple(Endpoint(address) for address in backends.addresses)
        cluster = Cluster("web", endpoints, policy=policy)
        described = StaticCluster(name="web", endpoints=endpoints, policy=policy)
        with Envoy(bootstrap([described])) as envoy, HttpClient(envoy.listeners()["ingress"]) as client:
            compared = 0
            for number, chosen in enumerate(POLICIES):
                hash_policy = HashPolicy([METHODS[name][0] for name in chosen])
                for headers, query in REQUESTS:
                    path = f"/web/{number}/{query}"
                    # http.client sends header text as Latin-1: what Envoy hashes is these bytes.
                    sent = {name: value.encode("latin-1") for name, value in headers.items()}
                    key = hash_policy.hash(sent, path)
                    if key is not None:
                        compared += 1
                        answer = client.get(path, headers)
                        assert answer.headers["x-upstream"] == cluster.pick(key).address, (chosen, headers, query)
            assert compared > 50
