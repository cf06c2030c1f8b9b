"""`lbcore serve` checks what its file says: in /clusters, /metrics, `lbcore endpoints` and what it picks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lbcore.client import PickerClient
from tests.harness.backends import HttpBackends
from tests.harness.process import Process, wait_until
from tests.harness.service import LBCORE, ROOT, LbcoreService, lbcore, web_with

CHECK = {"http": {"path": "/healthz"}, "interval": "100ms", "timeout": "2s", "healthy_threshold": 1}


def flags(service: LbcoreService) -> dict[str, str]:
    lines = [line.split("::") for line in service.get("/clusters").body.decode().splitlines()]
    return {parts[1]: parts[3] for parts in lines if len(parts) == 4 and parts[2] == "health_flags"}


def host_status(service: LbcoreService, address: str) -> Any:
    (cluster,) = json.loads(service.get("/clusters?format=json").body)["cluster_statuses"]
    port = int(address.rpartition(":")[2])
    (host,) = [h for h in cluster["host_statuses"] if h["address"]["socket_address"]["port_value"] == port]
    return host["health_status"]


def test_a_failing_endpoint_is_out_everywhere_and_back_when_it_recovers(
    start_service: Callable[[str], LbcoreService], start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * 2)
    one, two = backends.addresses
    backends.behave(one, status=503)
    service = start_service(web_with(one, two, health_check=CHECK, panic_threshold=0))
    # It has been checked before anything was served.
    assert flags(service) == {one: "/failed_active_hc", two: "healthy"}
    assert host_status(service, one) == {"failed_active_health_check": True, "eds_health_status": "HEALTHY"}
    with PickerClient(service.grpc) as client:
        assert {client.pick("web").address for _ in range(10)} == {two}
    shown = lbcore("endpoints", "web", "--server", service.grpc).stdout
    head, *rows = shown.splitlines()
    assert head.endswith("REASON")
    assert [(row.split()[5], row.split()[-2:]) for row in rows if one in row] == [("UNHEALTHY", ["status", "503"])]
    with Process([*LBCORE, "endpoints", "--watch", "--server", service.grpc], cwd=ROOT) as watching:
        watching.wait_for_output("UNHEALTHY")
        backends.behave(one)
        watching.wait_for_output(rf"{one} .*\bHEALTHY")
    assert flags(service) == {one: "healthy", two: "healthy"}
    metrics = service.get("/metrics").body.decode()
    assert 'lbcore_health_checks_total{result="active",service="web"}' in metrics
    assert 'lbcore_health_check_transitions_total{cause="passed",service="web",state="healthy"} 2.0' in metrics
    assert 'lbcore_health_check_transitions_total{cause="active",service="web",state="unhealthy"} 1.0' in metrics


def test_what_is_left_to_the_clients_is_not_checked(
    start_service: Callable[[str], LbcoreService], start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"])
    service = start_service(web_with(*backends.addresses, health_check={**CHECK, "checked_by": "clients"}))
    assert set(flags(service).values()) == {"healthy"}
    assert not backends.hits


def test_an_end_ends_the_checks(
    start_service: Callable[[str], LbcoreService], start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * 3)
    service = start_service(web_with(*backends.addresses, health_check=CHECK))
    wait_until(lambda: all(backends.hits[address] > 1 for address in backends.addresses), "checks")
    assert service.end() == 0
    assert "Traceback" not in service.process.stderr
