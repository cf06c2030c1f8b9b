"""Outlier detection and circuit breakers of the picker service: fed by reports, seen in /clusters and /metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbcore import Overloaded
from lbcore.client import PickerClient
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService, lbcore, web_with

ADDRESSES = tuple(f"127.0.0.1:{port}" for port in range(1, 11))


def ejecting(base_ejection_time: str, **more: Any) -> dict[str, Any]:
    times = {"base_ejection_time": base_ejection_time, "interval": "200ms"}
    return {"outlier_detection": {"consecutive_5xx": 3, **times, **more}}


def fail(client: PickerClient, address: str, times: int) -> None:
    while times:
        lease = client.acquire("web")
        if lease.endpoint.address == address:
            lease.done(status=503)
            times -= 1
        else:
            lease.done()


def lines(service: LbcoreService) -> dict[str, str]:
    """`/clusters` by all but the value."""
    text = service.get("/clusters").body.decode()
    return dict(line.rpartition("::")[::2] for line in text.splitlines())


def test_reported_failures_eject_and_the_ejection_is_seen(
    start_service: Callable[[str], LbcoreService],
) -> None:
    service = start_service(web_with(*ADDRESSES, **ejecting("300s")))
    sick = ADDRESSES[3]
    with PickerClient(service.grpc) as client:
        fail(client, sick, 3)
        assert sick not in {client.pick("web").address for _ in range(30)}
        shown = lines(service)
        assert shown[f"web::{sick}::health_flags"] == "/failed_outlier_check"
        assert shown[f"web::{ADDRESSES[0]}::health_flags"] == "healthy"
        assert shown["web::outlier::success_rate_average"] == "-1"
        (cluster,) = json.loads(service.get("/clusters?format=json").body)["cluster_statuses"]
        flagged = [host["health_status"].get("failed_outlier_check", False) for host in cluster["host_statuses"]]
        assert flagged == [address == sick for address in ADDRESSES]
        metrics = service.get("/metrics").body.decode()
        assert 'lbcore_outlier_ejections_total{cause="consecutive_5xx",service="web"} 1.0' in metrics
        assert 'lbcore_outlier_ejections_active{service="web"} 1.0' in metrics
        for name in ("enforced", "detected"):
            assert f'lbcore_outlier_detection_ejections_{name}_consecutive_5xx_total{{service="web"}} 1.0' in metrics
        by_method = (
            'lbcore_outlier_detection_ejections_enforced_total{detection_method="consecutive_5xx",service="web"}'
        )
        assert f"{by_method} 1.0" in metrics
        assert "ejected: consecutive_5xx" in lbcore("endpoints", "web", "--server", service.grpc).stdout


def test_an_ejection_ends_and_both_are_in_the_event_log(
    start_service: Callable[[str], LbcoreService], tmp_path: Path
) -> None:
    log = tmp_path / "outliers.jsonl"
    service = start_service(web_with(*ADDRESSES, **ejecting("500ms", event_log_path=str(log))))
    sick = ADDRESSES[3]
    with PickerClient(service.grpc) as client:
        fail(client, sick, 3)
        wait_until(lambda: lines(service)[f"web::{sick}::health_flags"] == "healthy", "the end of the ejection")
        metrics = service.get("/metrics").body.decode()
        assert 'lbcore_outlier_ejections_total{cause="consecutive_5xx",service="web"} 1.0' in metrics
        assert sick in {client.pick("web").address for _ in range(30)}
    wait_until(lambda: log.read_text().count("\n") == 2, "both events")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["action"], each["upstream_url"]) for each in events] == [("EJECT", sick), ("UNEJECT", sick)]


def test_what_was_not_ejected_is_counted_with_the_reason(start_service: Callable[[str], LbcoreService]) -> None:
    detection = {"consecutive_5xx": 1, "enforcing_consecutive_5xx": 0}
    service = start_service(web_with(*ADDRESSES, outlier_detection=detection))
    with PickerClient(service.grpc) as client:
        fail(client, ADDRESSES[0], 1)
    metrics = service.get("/metrics").body.decode()
    labels = 'detection_method="consecutive_5xx",service="web",unenforced_reason'
    unenforced = "lbcore_outlier_detection_ejections_unenforced_total"
    assert f'{unenforced}{{{labels}="enforcement_percentage"}} 1.0' in metrics
    assert f'{unenforced}{{{labels}="max_ejection_overflow"}} 0.0' in metrics


def test_success_rates_are_shown_as_envoy_shows_them(start_service: Callable[[str], LbcoreService]) -> None:
    settings = {"interval": "1s", "success_rate_request_volume": 4, "consecutive_5xx": 0, "enforcing_success_rate": 0}
    service = start_service(web_with(*ADDRESSES[:5], outlier_detection=settings))
    seen: dict[str, str] = {}

    def rates_are_seen() -> bool:
        for number in range(50):
            client.acquire("web").done(status=500 if number % 5 == 0 else 200)
        seen.update(lines(service))
        return seen["web::outlier::success_rate_average"] != "-1"

    with PickerClient(service.grpc) as client:
        wait_until(rates_are_seen, "success rates")
    assert 0.0 < float(seen["web::outlier::success_rate_average"]) < 100.0
    assert float(seen["web::outlier::success_rate_ejection_threshold"]) > -1.0
    assert float(seen[f"web::{ADDRESSES[0]}::success_rate"]) >= 0.0


def test_a_limit_that_is_reached_is_told_to_the_caller_and_counted(
    start_service: Callable[[str], LbcoreService],
) -> None:
    limits = {"circuit_breakers": {"max_requests": 2, "track_remaining": True}}
    service = start_service(web_with(*ADDRESSES, **limits))
    with PickerClient(service.grpc) as client:
        leases = [client.acquire("web") for _ in range(2)]
        with pytest.raises(Overloaded, match="max_requests 2 reached"):
            client.acquire("web")
        metrics = service.get("/metrics").body.decode()
        assert 'lbcore_circuit_breaker_open{limit="requests",service="web"} 1.0' in metrics
        assert 'lbcore_circuit_breaker_refused_total{limit="requests",service="web"} 1.0' in metrics
        assert 'lbcore_circuit_breaker_remaining{limit="retries",service="web"} 3.0' in metrics
        leases[0].done()
        client.acquire("web").done()
