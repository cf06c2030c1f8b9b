"""As many endpoints are ejected as by Envoy, for each size of a cluster and each limit, and its admin says so alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lbcore import Cluster, Endpoint, Health, OutlierDetection, RoundRobin
from lbcore.service.health_flags import health_flags
from tests.harness.backends import HttpBackends
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.http_client import HttpClient
from tests.harness.process import wait_until

DETECTION = OutlierDetection(consecutive_5xx=2, interval=60.0, base_ejection_time=60.0)
SIZES = [(3, 33), (3, 34), (3, 67), (9, 10), (10, 10), (20, 10), (20, 14), (20, 15)]
SHARED = [*((members, percent, False) for members, percent in SIZES), (9, 0, True), (3, 10, True)]
REQUESTS = 100  # every endpoint of the largest cluster fails twice, more than once over


def named(members: int, percent: int, always: bool) -> str:
    return f"{members}-of-{percent}-{'always' if always else 'never'}"


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[str, ...]]:
    """Addresses that answer everything with 503."""
    with HttpBackends(["127.0.0.1"] * max(members for members, _ in SIZES)) as running:
        for address in running.addresses:
            running.behave(address, status=503)
        yield tuple(running.addresses)


@pytest.fixture(scope="module")
def envoy(backends: tuple[str, ...]) -> Iterator[Envoy]:
    layouts = [
        StaticCluster(
            name=named(*case),
            endpoints=tuple(map(Endpoint, backends[: case[0]])),
            policy=RoundRobin(),
            panic_threshold=0,
        )
        for case in SHARED
    ]
    bootstrap = static_bootstrap(layouts)
    for cluster, (_, percent, always) in zip(bootstrap["static_resources"]["clusters"], SHARED, strict=True):
        cluster["outlier_detection"] = {
            "consecutive_5xx": DETECTION.consecutive_5xx,
            "interval": "60s",
            "base_ejection_time": "60s",
            "max_ejection_percent": percent,
            "always_eject_one_host": always,
        }
    with Envoy(bootstrap) as running:
        yield running


def ejected_by_envoy(envoy: Envoy, name: str) -> int:
    return sum(host["health_status"].get("failed_outlier_check", False) for host in envoy.hosts(name).values())


@pytest.mark.parametrize("case", SHARED, ids=lambda case: named(*case))
def test_as_many_are_ejected(case: tuple[int, int, bool], envoy: Envoy, backends: tuple[str, ...]) -> None:
    members, percent, always = case
    cluster = Cluster(
        "ours",
        map(Endpoint, backends[:members]),
        policy=RoundRobin(),
        panic_threshold=0,
        outlier_detection=replace(DETECTION, max_ejection_percent=percent, always_eject_one_host=always),
    )
    for _ in range(REQUESTS):
        cluster.acquire().done(status=503)
    ours = sum(each.ejected for each in cluster.stats().endpoints)
    with HttpClient(envoy.listeners()["ingress"]) as client:
        for _ in range(REQUESTS):
            client.get(headers={"x-cluster": named(*case)})
    wait_until(lambda: ejected_by_envoy(envoy, named(*case)) == ours, f"{ours} ejections")
    time.sleep(0.1)  # Envoy ejects in another thread than it counts: nobody follows
    assert ejected_by_envoy(envoy, named(*case)) == ours


def test_the_flag_is_written_as_envoy_writes_it(envoy: Envoy) -> None:
    lines = envoy.admin("/clusters").decode().splitlines()
    flags = {line.rpartition("::")[2] for line in lines if "::health_flags::" in line}
    assert flags == {health_flags(Health.UNKNOWN, None), health_flags(Health.UNKNOWN, None, ejected=True)}
