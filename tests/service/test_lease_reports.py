"""Leases over a real gRPC connection: `Pick` with a lease, and `Report`."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from lbcore import Endpoint, LeastRequest, RoundRobin
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.proto.picker_pb2_grpc import PickerStub
from lbcore.snapshot import ServiceSnapshot
from tests.harness.picker_server import PickerServer
from tests.harness.process import wait_until

StartPicker = Callable[..., PickerServer]
StubOf = Callable[[PickerServer], PickerStub]

TEN = tuple(Endpoint(f"10.0.0.{number}:80") for number in range(1, 11))
WEB = ServiceSnapshot(name="web", endpoints=TEN, policy=LeastRequest())


def for_seconds(ttl: float) -> pb.LeaseRequest:
    return pb.LeaseRequest(ttl=Duration(seconds=int(ttl), nanos=round(ttl % 1 * 1e9)))


def lease_on(stub: PickerStub, ttl: float = 60) -> pb.Lease:
    return stub.Pick(pb.PickRequest(service="web", lease=for_seconds(ttl))).lease


def report(stub: PickerStub, *outcomes: pb.Outcome) -> list[int]:
    """Reports, and returns the ids that the service does not know."""
    return list(stub.Report(pb.ReportRequest(outcomes=outcomes)).unknown_lease_ids)


def test_a_lease_counts_as_active_until_it_is_reported(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    stub = stub_of(server)
    lease = lease_on(stub)
    assert server.active("web") == 1
    assert report(stub, pb.Outcome(lease_id=lease.id)) == []
    assert server.active("web") == 0


def test_a_lease_has_thirty_seconds_unless_it_asks_for_others(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(WEB))
    default = stub.Pick(pb.PickRequest(service="web", lease=pb.LeaseRequest())).lease
    assert (default.ttl, lease_on(stub, 1.5).ttl) == (Duration(seconds=30), Duration(seconds=1, nanos=500_000_000))


@pytest.mark.parametrize("seconds", [3601, 0, -5])
def test_a_time_to_live_out_of_bounds_is_an_invalid_argument(
    start_picker: StartPicker, stub_of: StubOf, seconds: int
) -> None:
    request = pb.PickRequest(service="web", lease=pb.LeaseRequest(ttl=Duration(seconds=seconds)))
    server = start_picker(WEB)
    with pytest.raises(grpc.RpcError, match=rf"lease\.ttl {seconds}s: expected 0\.001s to 3600s") as caught:
        stub_of(server).Pick(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.active("web") == 0


def test_an_unreported_lease_expires_and_frees_its_in_flight_count(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    lease = lease_on(stub_of(server), 0.05)
    wait_until(lambda: server.active("web") == 0, "the lease's end")
    assert report(stub_of(server), pb.Outcome(lease_id=lease.id)) == [lease.id]


def test_a_lease_with_fallbacks_gives_endpoints_other_than_its_own(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=TEN, policy=RoundRobin())))
    response = stub.Pick(pb.PickRequest(service="web", count=10, lease=pb.LeaseRequest()))
    assert sorted(each.address for each in response.endpoints) == sorted(each.address for each in TEN)


def test_a_report_tells_unknown_leases_and_takes_the_others(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    stub = stub_of(server)
    held = lease_on(stub).id
    outcomes = [pb.Outcome(lease_id=1), pb.Outcome(lease_id=held), pb.Outcome(lease_id=held)]
    assert report(stub, *outcomes) == [1, held]
    assert server.active("web") == 0


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (pb.Outcome(), False),
        (pb.Outcome(ok=True), False),
        (pb.Outcome(ok=False), True),
        (pb.Outcome(http_status=204), False),
        (pb.Outcome(http_status=503), True),
        (pb.Outcome(grpc_status=0), False),
        (pb.Outcome(grpc_status=14), True),
        (pb.Outcome(latency=Duration(nanos=5), load=pb.LoadReport(rif=3, cpu_utilization=0.5)), False),
    ],
    ids=str,
)
def test_an_outcome_counts_as_success_or_failure(
    start_picker: StartPicker, stub_of: StubOf, outcome: pb.Outcome, failed: bool
) -> None:
    server = start_picker(ServiceSnapshot(name="web", endpoints=TEN[:1]))
    stub = stub_of(server)
    ended = pb.Outcome(lease_id=lease_on(stub).id)
    ended.MergeFrom(outcome)
    report(stub, ended)
    stats = server.call(lambda: server.clusters.get("web").cluster.stats().endpoints[0])
    assert (stats.successes, stats.failures) == ((0, 1) if failed else (1, 0))


def test_a_reported_latency_reaches_the_endpoint(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(ServiceSnapshot(name="web", endpoints=TEN[:1]))
    stub = stub_of(server)
    report(stub, pb.Outcome(lease_id=lease_on(stub).id, latency=Duration(nanos=250_000_000)))
    stats = server.call(lambda: server.clusters.get("web").cluster.stats().endpoints[0])
    assert stats.mean_latency == 0.25


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        (pb.Outcome(http_status=99), "outcomes[1].http_status 99"),
        (pb.Outcome(grpc_status=17), "outcomes[1].grpc_status 17"),
        (pb.Outcome(latency=Duration(seconds=-1)), "outcomes[1].latency -1s"),
        (pb.Outcome(load=pb.LoadReport(mem_utilization=1.5)), "outcomes[1].load.mem_utilization 1.5"),
        (pb.Outcome(load=pb.LoadReport(named_metrics={"x": float("nan")})), "outcomes[1].load.named_metrics['x'] nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_report_with_a_mistake_names_the_field_and_ends_no_lease(
    start_picker: StartPicker, stub_of: StubOf, outcome: pb.Outcome, field: str
) -> None:
    server = start_picker(WEB)
    stub = stub_of(server)
    held = lease_on(stub).id
    with pytest.raises(grpc.RpcError) as caught:
        report(stub, pb.Outcome(lease_id=held), outcome)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(field)
    assert server.active("web") == 1


def test_in_flight_counts_survive_a_change_of_the_endpoints(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    lease_on(stub_of(server))
    server.publish(ServiceSnapshot(name="web", endpoints=(*TEN, Endpoint("10.0.0.99:80")), policy=LeastRequest()))
    assert server.active("web") == 1


def test_a_lease_of_a_service_that_is_gone_can_still_be_reported(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB)
    stub = stub_of(server)
    held = lease_on(stub).id
    server.publish()
    assert report(stub, pb.Outcome(lease_id=held)) == []


def test_more_leases_than_the_limit_are_refused_as_exhausted(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(WEB, limit=1)
    stub = stub_of(server)
    lease_on(stub)
    with pytest.raises(grpc.RpcError) as caught:
        lease_on(stub)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.active("web") == 1
