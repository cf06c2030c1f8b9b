"""`lbcore.v1.Picker` over a real gRPC connection: Pick, ListEndpoints, and whatever bytes come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Health, LeastRequest, Locality, Maglev, RingHash, RoundRobin, hash64
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.proto.picker_pb2_grpc import PickerStub
from lbcore.snapshot import ServiceSnapshot
from tests.harness.picker_server import PickerServer

StartPicker = Callable[..., PickerServer]
StubOf = Callable[[PickerServer], PickerStub]

TEN = tuple(Endpoint(f"10.0.0.{number}:80") for number in range(1, 11))


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Status and details of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_round_robin_picks_reach_every_endpoint_equally(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=TEN)))
    picks = Counter(stub.Pick(pb.PickRequest(service="web")).endpoints[0].address for _ in range(50))
    assert picks == {endpoint.address: 5 for endpoint in TEN}


@pytest.mark.parametrize("policy", [RingHash(), Maglev()], ids=["ring_hash", "maglev"])
@pytest.mark.parametrize("key", ["user-17", "Grüße", b"\x00\xff", hash64("user-17"), 0], ids=repr)
def test_a_key_picks_the_endpoint_that_an_embedded_cluster_picks(
    start_picker: StartPicker, stub_of: StubOf, policy: RingHash | Maglev, key: str | bytes | int
) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=TEN, policy=policy)))
    field = {str: "key", bytes: "key_bytes", int: "hash"}[type(key)]
    response = stub.Pick(pb.PickRequest(service="web", **{field: key}))
    assert response.endpoints[0].address == Cluster("web", TEN, policy=policy).pick(key).address


def test_an_endpoint_is_told_with_all_its_fields(start_picker: StartPicker, stub_of: StubOf) -> None:
    endpoint = Endpoint(
        "[2001:db8::1]:443",
        weight=7,
        locality=Locality("eu", "a", "rack-3"),
        health=Health.DEGRADED,
        hostname="web-1.example",
        metadata={"hash_key": "one", "shard": {"ids": [1.0, 2.0], "hot": True}},
    )
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=(endpoint,))))
    told = stub.Pick(pb.PickRequest(service="web")).endpoints[0]
    expected = pb.Endpoint(
        address="[2001:db8::1]:443",
        weight=7,
        locality="eu/a/rack-3",
        health=pb.HEALTH_DEGRADED,
        hostname="web-1.example",
    )
    expected.metadata.update({"hash_key": "one", "shard": {"ids": [1.0, 2.0], "hot": True}})
    assert told == expected


def test_count_gives_distinct_fallbacks_after_the_pick(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=TEN, policy=Maglev())))
    ranked = [each.address for each in stub.Pick(pb.PickRequest(service="web", key="k", count=4)).endpoints]
    assert ranked == [each.address for each in Cluster("web", TEN, policy=Maglev()).rank("k", 4)]


def test_count_beyond_the_endpoints_gives_them_all(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=TEN[:3])))
    ranked = [each.address for each in stub.Pick(pb.PickRequest(service="web", count=9)).endpoints]
    assert sorted(ranked) == [each.address for each in TEN[:3]]


def test_count_above_its_limit_is_an_invalid_argument(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web", endpoints=TEN)))
    code, details = refusal(lambda: stub.Pick(pb.PickRequest(service="web", count=1025)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "count 1025: expected at most 1024"


def test_an_unknown_service_is_not_found_and_near_names_are_told(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web"), ServiceSnapshot(name="billing")))
    code, details = refusal(lambda: stub.Pick(pb.PickRequest(service="wbe")))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details == "service 'wbe': unknown; near to it: web"


def test_a_service_name_of_a_megabyte_is_refused_in_few_words(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web")))
    code, details = refusal(lambda: stub.Pick(pb.PickRequest(service="é" * 500_000)))
    assert code is grpc.StatusCode.NOT_FOUND
    assert len(details) < 1000


def test_a_service_without_endpoints_is_unavailable_and_says_so(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(ServiceSnapshot(name="web")))
    with pytest.raises(grpc.RpcError, match="it has no endpoints") as caught:
        stub.Pick(pb.PickRequest(service="web"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ("lbcore-reason", "no-endpoint-available") in caught.value.trailing_metadata()


def test_before_the_sources_have_been_read_nothing_is_called_unknown(
    start_picker: StartPicker, stub_of: StubOf
) -> None:
    stub = stub_of(start_picker(awaited_source="file"))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Pick(pb.PickRequest(service="web"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ("lbcore-reason", "not-ready") in caught.value.trailing_metadata()


def test_a_changed_policy_takes_effect(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(ServiceSnapshot(name="web", endpoints=TEN, policy=RoundRobin()))
    server.publish(ServiceSnapshot(name="web", endpoints=TEN, policy=Maglev()))
    stub = stub_of(server)
    picks = {stub.Pick(pb.PickRequest(service="web", key="k")).endpoints[0].address for _ in range(10)}
    assert picks == {Cluster("web", TEN, policy=Maglev()).pick("k").address}


def test_a_changed_weight_is_told_with_the_next_pick(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80"),)))
    stub = stub_of(server)
    stub.Pick(pb.PickRequest(service="web"))
    server.publish(ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", weight=5),)))
    assert stub.Pick(pb.PickRequest(service="web")).endpoints[0].weight == 5


def test_locality_weights_share_the_traffic(start_picker: StartPicker, stub_of: StubOf) -> None:
    near, far = Endpoint("10.0.0.1:80", locality="eu/a"), Endpoint("10.0.0.2:80", locality="eu/b")
    weights = {near.locality: 3, far.locality: 1}
    service = ServiceSnapshot(name="web", endpoints=(near, far), locality_weights=weights)
    stub = stub_of(start_picker(service))
    picks = Counter(stub.Pick(pb.PickRequest(service="web")).endpoints[0].address for _ in range(400))
    assert picks[near.address] == pytest.approx(300, abs=50)


def test_endpoints_are_listed_with_what_is_in_flight(start_picker: StartPicker, stub_of: StubOf) -> None:
    service = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", weight=3),), policy=LeastRequest())
    stub = stub_of(start_picker(service, ServiceSnapshot(name="api")))
    stub.Pick(pb.PickRequest(service="web", lease=pb.LeaseRequest()))
    listed = stub.ListEndpoints(pb.ListEndpointsRequest(service="web"))
    status = pb.EndpointStatus(endpoint=pb.Endpoint(address="10.0.0.1:80", weight=3), active=1)
    expected = pb.ServiceStatus(name="web", version=service.version, policy="least_request", endpoints=[status])
    assert list(listed.services) == [expected]


def test_all_services_are_listed_by_name(start_picker: StartPicker, stub_of: StubOf) -> None:
    stub = stub_of(start_picker(*(ServiceSnapshot(name=name) for name in ("web", "api", "db"))))
    listed = stub.ListEndpoints(pb.ListEndpointsRequest())
    assert [service.name for service in listed.services] == ["api", "db", "web"]


def test_a_stale_source_is_listed_with_its_reason(start_picker: StartPicker, stub_of: StubOf) -> None:
    server = start_picker(ServiceSnapshot(name="web"))
    server.call(lambda: server.directory.mark_stale("test", "the disk is gone"))
    assert stub_of(server).ListEndpoints(pb.ListEndpointsRequest()).stale == {"test": "the disk is gone"}


@pytest.mark.parametrize("method", ["Pick", "Report", "ListEndpoints"])
def test_any_bytes_get_a_documented_answer(start_picker: StartPicker, method: str) -> None:
    server = start_picker(ServiceSnapshot(name="web", endpoints=TEN))
    documented = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/lbcore.v1.Picker/{method}")

        @settings(max_examples=200, deadline=None)
        @given(data=st.binary(max_size=60))
        def answers(data: bytes) -> None:
            code = call.future(data, timeout=30).code()
            assert code is grpc.StatusCode.OK or code in documented

        answers()


def test_bytes_that_are_no_message_are_an_invalid_argument(start_picker: StartPicker) -> None:
    server = start_picker()
    with grpc.insecure_channel(server.address) as channel:
        code, details = refusal(lambda: channel.unary_unary("/lbcore.v1.Picker/Pick")(b"\xff\xff\xff", timeout=30))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "lbcore.v1.PickRequest" in details
