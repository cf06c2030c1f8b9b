"""What the configuration says of the xDS server is in use: at the start, and after a change of the file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from tests.harness.process import wait_until
from tests.harness.service import LbcoreService

Start = Callable[[str], LbcoreService]
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
TIME_LIMIT = 60.0  # seconds


def configuration(**xds: Any) -> str:
    return json.dumps({"services": {"web": {"endpoints": ["127.0.0.1:8081"]}}, "xds": xds})


def test_r4_a_connection_ends_at_its_age(start_service: Start) -> None:
    service = start_service(configuration(max_connection_age=0.3))
    with grpc.insecure_channel(service.grpc) as channel:
        reporting = channel.stream_stream(LRS)(forever(), timeout=TIME_LIMIT)
        with pytest.raises(grpc.RpcError):
            list(reporting)
        assert reporting.code() is grpc.StatusCode.UNAVAILABLE


def forever() -> Any:
    """A client's side of a stream, which it never closes."""
    yield lrs_pb2.LoadStatsRequest().SerializeToString()
    threading.Event().wait(TIME_LIMIT)


def test_r4_a_changed_limit_of_streams_is_in_use_at_once(start_service: Start) -> None:
    service = start_service(configuration())
    with grpc.insecure_channel(service.grpc) as channel:
        first = channel.stream_stream(LRS)(forever(), timeout=TIME_LIMIT)
        next(first)
        service.replace(configuration(max_streams=1))
        wait_until(lambda: refused(channel), "a refusal")
        first.cancel()


def refused(channel: grpc.Channel) -> bool:
    call = channel.stream_stream(ADS)(iter(()), timeout=TIME_LIMIT)
    try:
        list(call)
    except grpc.RpcError:
        return bool(call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
    return False
