"""`lbcore serve` as a process seen from its gRPC port: what answers there, and how it follows its file and ends."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lbcore.client import PickerClient
from lbcore.errors import LbError
from lbcore.service.proto import picker_pb2 as pb
from lbcore.service.proto.picker_pb2_grpc import PickerStub
from tests.harness.process import Process, wait_until
from tests.harness.service import LbcoreService

Start = Callable[[str], LbcoreService]

WEB = "services: {web: {endpoints: ['10.0.0.1:80', '10.0.0.2:80']}}\n"
ONE = "services: {web: {endpoints: ['10.0.0.9:80']}}\n"
BAD = "services: {web: {endpoints: ['10.0.0.9:99999'], colour: red}}\n"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbcoreService]:
    """A service that no test changes."""
    with LbcoreService(tmp_path_factory.mktemp("service"), WEB) as running:
        yield running


@pytest.fixture
def changing(start_service: Start) -> LbcoreService:
    """A service of the test's own."""
    return start_service(WEB)


def addresses(grpc_address: str) -> set[str]:
    with PickerClient(grpc_address) as client:
        return {each.endpoint.address for status in client.endpoints() for each in status.endpoints}


def serve(config: str, *arguments: str) -> Process:
    return Process([sys.executable, "-m", "lbcore", "serve", config, *arguments])


def test_ipv6_hosts_are_served_and_written_in_brackets(changing: LbcoreService) -> None:
    with serve(str(changing.config), "--grpc", "[::1]:0", "--admin", "[::1]:0") as process:
        ready = process.wait_for_output(r"^ready grpc=(\[::1\]:[1-9]\d*) admin=\[::1\]:[1-9]\d*$")
        assert addresses(ready[1]) == {"10.0.0.1:80", "10.0.0.2:80"}


def test_a_port_beyond_this_machine_is_warned_of(changing: LbcoreService) -> None:
    with serve(str(changing.config), "--grpc", "0.0.0.0:0", "--admin", "127.0.0.1:0") as process:
        process.wait_for_output(r"gRPC port listens on 0\.0\.0\.0:\d+.* open to all", stream="stderr")


@pytest.mark.parametrize("name", ["", "lbcore.v1.Picker", "envoy.service.discovery.v3.AggregatedDiscoveryService"])
def test_grpc_health_says_serving(service: LbcoreService, name: str) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_the_picker_to_a_client_without_its_proto(service: LbcoreService) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        picker = pool.FindServiceByName("lbcore.v1.Picker")
    assert [method.name for method in picker.methods] == [
        "Pick",
        "Report",
        "PickStream",
        "Explain",
        "ListEndpoints",
        "WatchEndpoints",
    ]


def test_reflection_lists_every_service(service: LbcoreService) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        names = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert names >= {
        "lbcore.v1.Picker",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
    }


def test_xds_and_picker_answer_on_the_same_port(service: LbcoreService) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        request = discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node={"id": "test"})
        response = next(stub.StreamAggregatedResources(iter([request]), timeout=30))
        pick = PickerStub(channel).Pick(pb.PickRequest(service="web"), timeout=30)
    assert (len(response.resources), len(pick.endpoints)) == (1, 1)


def test_a_replaced_file_is_in_use_within_a_second(changing: LbcoreService) -> None:
    changing.replace(ONE)
    # Twice the second: asking takes a moment as well, and the machine may be busy.
    wait_until(lambda: addresses(changing.grpc) == {"10.0.0.9:80"}, "the new endpoints")


def test_a_bad_file_keeps_the_last_good_endpoints(changing: LbcoreService) -> None:
    changing.replace(BAD)
    wait_until(lambda: b"colour" in changing.get("/ready").body, "the bad file to be noticed")
    assert addresses(changing.grpc) == {"10.0.0.1:80", "10.0.0.2:80"}


def test_a_drain_ends_each_kind_of_stream_and_says_why(changing: LbcoreService) -> None:
    ended = threading.Event()

    def subscribe() -> Iterator[discovery_pb2.DiscoveryRequest]:
        yield discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node={"id": "test"})
        ended.wait(30)  # a client that keeps its half open

    def ask() -> Iterator[pb.PickStreamRequest]:
        yield pb.PickStreamRequest(service="web", count=1)
        ended.wait(30)

    with grpc.insecure_channel(changing.grpc) as channel:
        picker = PickerStub(channel)
        streams = [
            ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources(subscribe()),
            picker.WatchEndpoints(pb.WatchEndpointsRequest()),
            picker.PickStream(ask()),
        ]
        for stream in streams:
            next(stream)
        changing.process.signal(signal.SIGTERM)
        endings = {(stream.code(), stream.details()) for stream in streams}
        ended.set()
    assert endings == {(grpc.StatusCode.UNAVAILABLE, "draining: this server is about to stop")}


def test_a_drain_tells_health_watchers_first(changing: LbcoreService) -> None:
    with grpc.insecure_channel(changing.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        changing.process.signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_second_sigterm_changes_nothing_and_an_impatient_ctrl_c_ends_it_at_once(changing: LbcoreService) -> None:
    with grpc.insecure_channel(changing.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(health)  # a stream that only its client ends, so the drain lasts
        changing.process.signal(signal.SIGTERM)
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        changing.process.signal(signal.SIGTERM)
        changing.process.wait_for_output("SIGTERM again: already draining", stream="stderr")
        time.sleep(0.5)
        changing.process.signal(signal.SIGINT)
        assert changing.process.wait() == 128 + signal.SIGINT


def test_a_sigterm_that_comes_twice_drains_to_the_end(changing: LbcoreService) -> None:
    changing.process.signal(signal.SIGTERM)
    changing.process.signal(signal.SIGTERM)
    assert changing.process.wait(30) == 0
    assert "stopped" in changing.process.stderr


def test_a_restart_at_the_same_address_succeeds(changing: LbcoreService) -> None:
    before = changing.grpc
    changing.end()
    changing.restart()
    assert (changing.grpc, addresses(changing.grpc)) == (before, {"10.0.0.1:80", "10.0.0.2:80"})


def test_a_lease_of_before_a_restart_is_unknown_after_it(changing: LbcoreService) -> None:
    with PickerClient(changing.grpc) as client:
        lease = client.acquire("web")
        changing.end()
        changing.restart()

        def reported() -> bool | None:
            try:
                return client.report(lease.id, True, status=None, latency=0.1, load=None)
            except LbError:
                return None  # not connected again yet

        wait_until(lambda: reported() is False, "the report to be answered")
