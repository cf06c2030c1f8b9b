"""`lbcore.v1.Registry` over a real gRPC port: what each method answers, refuses and tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from lbcore.model import Health
from lbcore.service.proto import picker_pb2
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from tests.harness.process import wait_until
from tests.harness.registry_server import RegistryServer

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@pytest.fixture
def stub(server: RegistryServer) -> Iterator[RegistryStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield RegistryStub(channel)


def announced(*addresses: str, service: str = "web", **fields: object) -> list[pb.Announcement]:
    return [pb.Announcement(service=service, address=each, **fields) for each in addresses]  # type: ignore[arg-type]


def key(address: str, service: str = "web") -> pb.RegistrationKey:
    return pb.RegistrationKey(service=service, address=address)


def listed(stub: RegistryStub, service: str = "") -> dict[str, pb.Registration]:
    response = stub.List(pb.ListRequest(service=service), timeout=30, wait_for_ready=True)
    return {each.endpoint.address: each for each in response.registrations}


def refusal(call: object, request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)  # type: ignore[operator]
    return caught.value.code(), caught.value.details() or ""


def test_a_registered_endpoint_is_listed_and_in_the_directory(server: RegistryServer, stub: RegistryStub) -> None:
    fields = {"weight": 3, "locality": "eu/a", "priority": 0, "metadata": {"hash_key": "b"}}
    answer = stub.Register(pb.RegisterRequest(announcements=announced(ONE, **fields), ttl=Duration(seconds=7)))
    found = listed(stub)[ONE]
    assert (answer.ttl.seconds, found.lease_id, found.endpoint.weight) == (7, answer.lease_id, 3)
    assert (found.endpoint.locality, dict(found.endpoint.metadata)) == ("eu/a", {"hash_key": "b"})
    wait_until(lambda: server.addresses("web") == {ONE}, "the endpoint in the directory")


def test_a_weight_that_is_not_given_is_1_and_the_lease_lasts_15_seconds(stub: RegistryStub) -> None:
    answer = stub.Register(pb.RegisterRequest(announcements=announced(ONE)))
    assert (listed(stub)[ONE].endpoint.weight, answer.ttl.seconds) == (1, 15)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.RegisterRequest(announcements=announced(ONE, weight=0)), "announcements[0].weight: weight 0: expected"),
        (
            pb.RegisterRequest(announcements=announced(ONE, TWO, priority=129)),
            "announcements[0].priority: priority 129",
        ),
        (pb.RegisterRequest(announcements=announced("10.0.0.1:99999")), "announcements[0].address: address '10.0.0.1:"),
        (pb.RegisterRequest(announcements=announced(ONE, service="*")), "announcements[0].service: service '*'"),
        (pb.RegisterRequest(announcements=announced(ONE, health=9)), "announcements[0].health: health 9: expected"),
        (
            pb.RegisterRequest(announcements=announced(ONE, locality="a/b/c/d")),
            "announcements[0].locality: locality 'a/b/c/d'",
        ),
        (pb.RegisterRequest(ttl=Duration(seconds=-1)), "ttl -1"),
        (pb.RegisterRequest(ttl=Duration(seconds=9000)), "ttl 9000"),
        (pb.RegisterRequest(announcements=announced(ONE), sequence=2**63), "sequence 9223372036854775808: expected"),
    ],
)
def test_a_bad_announcement_is_refused_by_field(
    stub: RegistryStub, request_: pb.RegisterRequest, expected: str
) -> None:
    code, details = refusal(stub.Register, request_)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in details
    assert listed(stub) == {}


def test_bytes_that_are_no_message_are_refused(server: RegistryServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for method in ("Register", "Deregister", "Drain", "List"):
            call = channel.unary_unary(f"/lbcore.v1.Registry/{method}")
            assert refusal(call, b"\xff\xff\xff")[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_only_the_lease_that_has_it_deregisters(stub: RegistryStub) -> None:
    mine = stub.Register(pb.RegisterRequest(announcements=announced(ONE))).lease_id
    other = stub.Register(pb.RegisterRequest(announcements=announced(TWO))).lease_id
    answer = stub.Deregister(pb.DeregisterRequest(lease_id=other, keys=[key(ONE), key(TWO)]))
    assert (list(answer.superseded), set(listed(stub))) == ([key(ONE)], {ONE})
    stub.Deregister(pb.DeregisterRequest(lease_id=mine, all=True))
    assert listed(stub) == {}


def test_an_unknown_lease_is_not_found(stub: RegistryStub) -> None:
    for call, request in (
        (stub.Register, pb.RegisterRequest(lease_id=7, announcements=announced(ONE))),
        (stub.Deregister, pb.DeregisterRequest(lease_id=7, all=True)),
        (stub.Drain, pb.DrainRequest(lease_id=7, key=key(ONE))),
    ):
        code, details = refusal(call, request)
        assert (code, "lease 7" in details) == (grpc.StatusCode.NOT_FOUND, True)


def test_a_deregistration_of_nothing_in_particular_is_refused(stub: RegistryStub) -> None:
    assert refusal(stub.Deregister, pb.DeregisterRequest(lease_id=7))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_drain_shows_and_can_be_undone(stub: RegistryStub) -> None:
    lease = stub.Register(pb.RegisterRequest(announcements=announced(ONE))).lease_id
    stub.Drain(pb.DrainRequest(lease_id=lease, key=key(ONE)))
    drained = listed(stub)[ONE].endpoint.health
    stub.Drain(pb.DrainRequest(lease_id=lease, key=key(ONE), undo=True))
    assert (drained, listed(stub)[ONE].endpoint.health) == (Health.DRAINING, Health.UNKNOWN)


def test_a_stream_of_heartbeats_announces_reports_and_withdraws(stub: RegistryStub) -> None:
    requests = iter(
        [
            pb.HeartbeatRequest(announcements=announced(ONE, TWO), ttl=Duration(seconds=9)),
            pb.HeartbeatRequest(lease_id=12345),
        ]
    )
    first, unknown = stub.Heartbeat(requests, timeout=30)
    assert (first.ttl.seconds, first.lease_unknown, unknown.lease_unknown) == (9, False, True)
    report = pb.EndpointReport(
        key=key(ONE), health=picker_pb2.HEALTH_DEGRADED, load=picker_pb2.LoadReport(cpu_utilization=0.5)
    )
    request = pb.HeartbeatRequest(lease_id=first.lease_id, reports=[report], withdrawals=[key(TWO)])
    [answer] = stub.Heartbeat(iter([request]), timeout=30)
    found = listed(stub)
    assert (answer.lease_id, set(found)) == (first.lease_id, {ONE})
    assert (found[ONE].endpoint.health, found[ONE].load.cpu_utilization) == (picker_pb2.HEALTH_DEGRADED, 0.5)


def test_a_message_that_is_refused_is_told_in_its_turn(stub: RegistryStub) -> None:
    lease = stub.Register(pb.RegisterRequest()).lease_id
    addresses = [ONE, TWO, "10.0.0.1:0", "10.0.0.3:80"]
    requests = [pb.HeartbeatRequest(lease_id=lease, announcements=announced(each)) for each in addresses]
    answers = stub.Heartbeat(iter(requests), timeout=30)
    assert [next(answers).lease_id for _ in range(2)] == [lease] * 2
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert (caught.value.code(), set(listed(stub)) >= {ONE, TWO}) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_a_lease_without_heartbeats_ends(server: RegistryServer, stub: RegistryStub) -> None:
    stub.Register(pb.RegisterRequest(announcements=announced(ONE), ttl=Duration(nanos=300_000_000)))
    wait_until(lambda: not listed(stub), "the end of the lease")
    wait_until(lambda: server.addresses("web") == set(), "the end in the directory")


def test_a_watch_begins_with_a_snapshot_and_tells_each_change(stub: RegistryStub) -> None:
    lease = stub.Register(pb.RegisterRequest(announcements=announced(ONE))).lease_id
    watch = stub.Watch(pb.WatchRequest(service="web"), timeout=30)
    first = next(watch)
    stub.Register(pb.RegisterRequest(lease_id=lease, announcements=announced(TWO)))
    second = next(watch)
    stub.Deregister(pb.DeregisterRequest(lease_id=lease, keys=[key(ONE)]))
    third = next(watch)
    assert (first.snapshot, [each.endpoint.address for each in first.registrations]) == (True, [ONE])
    assert (second.snapshot, [each.endpoint.address for each in second.registrations]) == (False, [TWO])
    assert (list(third.removed), third.revision > second.revision > first.revision) == ([key(ONE)], True)


def test_a_watch_resumes_where_another_has_ended(stub: RegistryStub) -> None:
    lease = stub.Register(pb.RegisterRequest(announcements=announced(ONE))).lease_id
    seen = next(stub.Watch(pb.WatchRequest(), timeout=30))
    stub.Register(pb.RegisterRequest(lease_id=lease, announcements=announced(TWO)))
    resumed = next(stub.Watch(pb.WatchRequest(epoch=seen.epoch, revision=seen.revision), timeout=30))
    assert (resumed.snapshot, [each.endpoint.address for each in resumed.registrations]) == (False, [TWO])


def test_a_watch_resumes_at_a_list(stub: RegistryStub) -> None:
    lease = stub.Register(pb.RegisterRequest(announcements=announced(ONE))).lease_id
    seen = stub.List(pb.ListRequest())
    stub.Deregister(pb.DeregisterRequest(lease_id=lease, all=True))
    resumed = next(stub.Watch(pb.WatchRequest(epoch=seen.epoch, revision=seen.revision), timeout=30))
    assert (resumed.snapshot, list(resumed.removed)) == (False, [key(ONE)])


def test_a_watch_of_another_history_gets_a_snapshot(stub: RegistryStub) -> None:
    stub.Register(pb.RegisterRequest(announcements=announced(ONE)))
    for epoch, revision in (("another", 1), (stub.List(pb.ListRequest()).epoch, 99)):
        resumed = next(stub.Watch(pb.WatchRequest(epoch=epoch, revision=revision), timeout=30))
        assert (resumed.snapshot, len(resumed.registrations)) == (True, 1)


def test_what_cannot_be_kept_is_not_confirmed(tmp_path: Path) -> None:
    with (
        RegistryServer(tmp_path / "missing" / "registry.db") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = RegistryStub(channel)
        code, details = refusal(stub.Register, pb.RegisterRequest(announcements=announced(ONE)))
        (tmp_path / "missing").mkdir()
        stub.Register(pb.RegisterRequest(announcements=announced(TWO)))
        server.stop()
        server.start()
        assert (code, "unable to open database file" in details) == (grpc.StatusCode.UNAVAILABLE, True)
        assert set(listed(stub)) == {ONE, TWO}


def test_a_restart_keeps_registrations_and_marks_them_stale_until_their_agent_is_heard_of(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry.db") as server, grpc.insecure_channel(server.address) as channel:
        stub = RegistryStub(channel)
        lease = stub.Register(pb.RegisterRequest(announcements=announced(ONE, weight=7))).lease_id
        stub.Drain(pb.DrainRequest(lease_id=lease, key=key(ONE)))
        before = listed(stub)[ONE]
        server.stop()
        server.start()
        wait_until(lambda: server.addresses("web") == {ONE}, "the endpoint in the new directory")
        restored = listed(stub)[ONE]
        [answer] = stub.Heartbeat(iter([pb.HeartbeatRequest(lease_id=lease)]), timeout=30)
        assert (restored.stale, answer.lease_unknown, listed(stub)[ONE].stale) == (True, False, False)
        restored.stale = False
        assert restored == before


def test_a_restored_registration_ends_when_its_agent_is_not_heard_of_for_one_time_to_live(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry.db") as server, grpc.insecure_channel(server.address) as channel:
        stub = RegistryStub(channel)
        stub.Register(pb.RegisterRequest(announcements=announced(ONE), ttl=Duration(seconds=2)))
        server.stop()
        server.start()
        assert set(listed(stub)) == {ONE}
        wait_until(lambda: not listed(stub), "the end of the lease")
        server.stop()
        server.start()
        assert listed(stub) == {}
