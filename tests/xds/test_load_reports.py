"""LRS: what a client is asked for, and what of its reports is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from lbcore.delivery import XdsDelivery
from lbcore.model import Endpoint, Locality
from tests.xds.clients import TIME_LIMIT, Plane, eventually, service

METHOD = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
EU = Locality("eu", "a")
ALL = {"id": "edge", "client_features": ["envoy.lrs.supports_send_all_clusters"]}


class Reporter:
    """A raw LRS stream."""

    def __init__(self, served: Plane) -> None:
        self.call = served.channel.stream_stream(METHOD)()

    async def send(self, **fields: Any) -> None:
        await self.call.write(lrs_pb2.LoadStatsRequest(**fields).SerializeToString())

    async def asked(self) -> lrs_pb2.LoadStatsResponse:
        message = await asyncio.wait_for(self.call.read(), TIME_LIMIT)
        return lrs_pb2.LoadStatsResponse.FromString(message)


def stats(name: str, *localities: dict[str, Any], seconds: int = 2, **fields: Any) -> dict[str, Any]:
    interval = {"seconds": seconds}
    return {"cluster_name": name, "upstream_locality_stats": localities, "load_report_interval": interval, **fields}


def publish(served: Plane, *names: str) -> None:
    served.publish(*(service(name, endpoints=(Endpoint("10.0.0.1:1", locality=EU),)) for name in names))


async def test_a_client_that_can_is_asked_for_all_clusters(served: Plane) -> None:
    served.xds.settings = XdsDelivery(load_reporting_interval=2.5)
    reporter = Reporter(served)
    await reporter.send(node=ALL)
    asked = await reporter.asked()
    assert asked.send_all_clusters
    assert asked.load_reporting_interval.ToMilliseconds() == 2500


async def test_a_client_that_cannot_is_told_the_names_and_later_ones_too(served: Plane) -> None:
    publish(served, "web", "api")
    reporter = Reporter(served)
    await reporter.send(node={"id": "edge"})
    assert list((await reporter.asked()).clusters) == ["api", "web"]
    publish(served, "web")
    await reporter.send()
    assert list((await reporter.asked()).clusters) == ["web"]


async def test_reports_are_kept_by_service_and_locality_until_the_client_goes(served: Plane) -> None:
    publish(served, "web")
    loads = served.directory.loads
    reporter = Reporter(served)
    await reporter.send(node=ALL)
    await reporter.asked()
    here = {"locality": {"region": "eu", "zone": "a"}, "total_successful_requests": 6, "total_error_requests": 2}
    first = here | {"total_requests_in_progress": 3, "load_metric_stats": [metric("latency", 4, 2.0)]}
    second = here | {"priority": 1, "total_successful_requests": 2, "total_error_requests": 0}
    invented = {"locality": {"region": "mars"}, "total_successful_requests": 4}
    await reporter.send(
        cluster_stats=[
            stats("web", first, second, invented, total_dropped_requests=5),
            stats("nowhere", here),
            stats("web", here, seconds=0),
        ]
    )
    await eventually(lambda: loads.of("web"))
    load = loads.of("web")
    assert load.keys() == {EU, Locality()}, "a locality that does not exist counts as none"
    assert (load[EU].requests_per_second, load[EU].errors_per_second, load[EU].in_progress) == (5.0, 1.0, 3)
    assert load[EU].metrics == {"latency": 0.5}
    assert load[Locality()].requests_per_second == 2.0
    assert loads.dropped() == {"web": 5}
    assert loads.services == ("web",)
    reporter.call.cancel()
    await eventually(lambda: not loads.of("web"))


def metric(name: str, number: int, total: float) -> dict[str, Any]:
    return {"metric_name": name, "num_requests_finished_with_metric": number, "total_metric_value": total}


async def test_r7_bytes_that_are_no_report_end_that_stream_only(served: Plane) -> None:
    bystander, reporter = Reporter(served), Reporter(served)
    await bystander.send(node=ALL)
    await bystander.asked()
    await reporter.call.write(b"\xff" * 20)
    assert await reporter.call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not bystander.call.done()


@pytest.mark.parametrize("reported", [False, True])
async def test_a8_draining_ends_reports(served: Plane, reported: bool) -> None:
    reporter = Reporter(served)
    await reporter.send(node=ALL)
    await reporter.asked()
    if reported:
        await reporter.send()
    served.xds.drain()
    assert await reporter.call.code() is grpc.StatusCode.UNAVAILABLE
