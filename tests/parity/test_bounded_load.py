"""Bounded loads under overlapping requests: with the same requests in flight a key goes to Envoy's host.

Requests are held open on both sides: through Envoy to backends that do not end their answers, in lbcore as leases.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from lbcore import Lease
from lbcore.model import Endpoint
from lbcore.policy import Maglev, RingHash
from tests.harness.backends import HttpBackends
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy

BACKENDS = 8
STEPS = 100
KEYS = [f"key-{number}" for number in range(4)]  # fewer than hosts, so that bounds are reached
FACTORS = (100, 120, 150, 200)
WEIGHTS = {"equal": (1,) * BACKENDS, "mixed": (1, 2, 3, 4, 1, 2, 9, 5)}
CASES = list(product(("ring", "maglev"), WEIGHTS, FACTORS))


def layout(policy: str, weights: str, factor: int, addresses: list[str]) -> StaticCluster:
    return StaticCluster(
        name=f"{policy}-{weights}-{factor}",
        endpoints=tuple(
            Endpoint(address, weight=weight, metadata={"hash_key": f"host-{number}"})
            for number, (address, weight) in enumerate(zip(addresses, WEIGHTS[weights], strict=True))
        ),
        policy=RingHash(hash_balance_factor=factor)
        if policy == "ring"
        else Maglev(table_size=1009, hash_balance_factor=factor),
    )


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with HttpBackends(["127.0.0.1"] * BACKENDS) as backends:
        yield backends.addresses


@pytest.fixture(scope="module")
def envoy(addresses: list[str]) -> Iterator[Envoy]:
    with Envoy(static_bootstrap(layout(*case, addresses) for case in CASES)) as running:
        yield running


@dataclass
class Held:
    """One request in flight on both sides."""

    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    lease: Lease

    def release(self) -> None:
        self.answer.close()
        self.connection.close()
        self.lease.done()


def hold(listener: str, cluster: str, key: str, lease: Lease) -> Held:
    connection = http.client.HTTPConnection(listener, timeout=30)
    connection.request("GET", "/held", headers={"x-cluster": cluster, "x-key": key})
    answer = connection.getresponse()
    assert answer.status == 200
    return Held(connection, answer, lease)


def wait_until_active(envoy: Envoy, cluster: str, count: int) -> None:
    """Until Envoy, too, has seen that requests have ended."""
    name = f"cluster.{cluster}.upstream_rq_active"
    deadline = time.monotonic() + 30
    while envoy.stats(name)[name] != count:
        assert time.monotonic() < deadline, f"{envoy.stats(name)}, expected {count}"
        time.sleep(0.001)


@pytest.mark.parametrize(("policy", "weights", "factor"), CASES)
def test_keys_go_to_envoys_host_while_the_same_requests_are_in_flight(
    policy: str, weights: str, factor: int, envoy: Envoy, addresses: list[str]
) -> None:
    choose = random.Random(factor)
    cluster = layout(policy, weights, factor, addresses)
    balancer, idle = cluster.balancer(), cluster.balancer()
    listener = envoy.listeners()["ingress"]
    held: list[Held] = []
    disagreements, displaced = [], 0
    try:
        for step in range(STEPS):
            if held and choose.random() < 0.3:
                held.pop(choose.randrange(len(held))).release()
                wait_until_active(envoy, cluster.name, len(held))
            key = choose.choice(KEYS)
            lease = balancer.acquire(key)
            held.append(hold(listener, cluster.name, key, lease))
            theirs = held[-1].answer.headers["x-backend"]
            displaced += theirs != idle.pick(key).address
            if lease.endpoint.address != theirs:
                disagreements.append((step, key, lease.endpoint.address, theirs))
                break  # from here on the sides differ in what is in flight
    finally:
        for each in held:
            each.release()
    assert disagreements == []
    assert displaced > STEPS // 20, "the bounds were hardly reached"
