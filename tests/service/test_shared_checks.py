"""Three `lbcore serve` over one etcd share the checks of endpoints that announced themselves; one is killed."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lbcore.client import Registration
from tests.harness.backends import HttpBackends
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService

pytestmark = needs_etcd

CHECK = {"http": {}, "interval": "0.1s", "timeout": "2s", "healthy_threshold": 1, "unhealthy_threshold": 2}


@pytest.fixture
def replicas(etcd: Etcd, tmp_path: Path) -> Iterator[list[LbcoreService]]:
    registry = {"store": f"etcd://{etcd.address}/lbcore", "check_owners": 1, "checker_ttl": "2s"}
    config = json.dumps({"services": {"web": {"health_check": CHECK}}, "registry": registry})
    with ExitStack() as running:
        services = []
        for name in "abc":
            folder = tmp_path / name
            folder.mkdir()
            services.append(running.enter_context(LbcoreService(folder, config)))
        yield services


def health(service: LbcoreService) -> dict[str, bool]:
    """By address, whether its checks pass."""
    text = service.get("/clusters").body.decode()
    return {
        address: "failed_active_hc" not in flags
        for address, flags in re.findall(r"^web::([0-9.]+:\d+)::health_flags::(\S+)$", text, re.MULTILINE)
    }


def checked_here(service: LbcoreService) -> int:
    metrics = service.get("/metrics").body.decode()
    found = re.search(r'^lbcore_health_checked_endpoints\{service="web"\} (\d+)', metrics, re.MULTILINE)
    return int(found.group(1)) if found else 0


def every(services: list[LbcoreService], condition: Callable[[LbcoreService], object], what: str) -> None:
    for service in services:
        wait_until(lambda service=service: condition(service), what, 30)  # type: ignore[misc]


def test_checks_are_shared_and_a_kill_9_of_a_replica_deletes_nothing(replicas: list[LbcoreService], etcd: Etcd) -> None:
    with ExitStack() as announced, HttpBackends(["127.0.0.1"] * 6) as backends:
        for number, address in enumerate(backends.addresses):
            target = replicas[1 + number % 2].grpc  # not the one that is killed
            announced.enter_context(Registration("web", address, target=target, drain_time=0))
        addresses = set(backends.addresses)
        every(replicas, lambda each: health(each) == dict.fromkeys(addresses, True), "all of them, and well")
        wait_until(lambda: sum(map(checked_here, replicas)) == 6, "each checked by one", 30)

        failing, *_ = backends.addresses
        backends.behave(failing, status=503)
        expected = {address: address != failing for address in addresses}
        every(replicas, lambda each: health(each) == expected, "the failing one out at every replica")

        killed, *others = replicas
        killed.end(signal.SIGKILL)
        wait_until(lambda: sum(map(checked_here, others)) == 6, "its checks taken over", 30)
        assert [health(each) for each in others] == [expected] * 2
        registered = [key for key in etcd.content() if "/endpoints/" in key]
        assert len(registered) == 6

        *_, second = backends.addresses
        backends.behave(second, status=503)
        expected[second] = False
        every(others, lambda each: health(each) == expected, "who fails after it is noticed")

        killed.restart()
        every(replicas, lambda each: health(each) == expected, "the replica that came back agrees")
        wait_until(lambda: sum(map(checked_here, replicas)) == 6, "shared again", 30)
