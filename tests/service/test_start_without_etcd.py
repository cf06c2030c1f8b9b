"""`lbcore serve` whose etcd is away at its very first start: nobody is answered before all members are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.duration_pb2 import Duration

from lbcore.client import PickerClient
from lbcore.errors import NotReady
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.service import LBCORE, ROOT, web_with

pytestmark = needs_etcd

LISTED, REGISTERED = "10.0.0.1:80", "10.0.0.9:90"
TYPE_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


class Assignments:
    """A client of EDS that asks for names and accepts what comes."""

    def __init__(self, channel: grpc.Channel, *names: str) -> None:
        self._names = names
        self._requests: SimpleQueue[Any] = SimpleQueue()
        stream = channel.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )
        self._responses = stream(iter(self._requests.get, None), timeout=60)
        self._ask()

    def next(self) -> dict[str, list[int]]:
        """The ports of each assignment in the next response."""
        response = next(self._responses)
        self._ask(response_nonce=response.nonce, version_info=response.version_info)
        read = [endpoint_pb2.ClusterLoadAssignment.FromString(each.value) for each in response.resources]
        return {
            each.cluster_name: [
                endpoint.endpoint.address.socket_address.port_value
                for group in each.endpoints
                for endpoint in group.lb_endpoints
            ]
            for each in read
        }

    def close(self) -> None:
        self._responses.cancel()
        self._requests.put(None)

    def _ask(self, **fields: str) -> None:
        self._requests.put(discovery_pb2.DiscoveryRequest(type_url=TYPE_URL, resource_names=self._names, **fields))


@contextmanager
def assignments(address: str, *names: str) -> Iterator[Assignments]:
    with grpc.insecure_channel(address) as channel:
        client = Assignments(channel, *names)
        try:
            yield client
        finally:
            client.close()


@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_the_first_answer_has_what_the_file_lists_and_what_is_registered(
    etcd: Etcd, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The registered members of a service of the file are as much a part of it: without them traffic would move."""
    register(etcd, tmp_path)
    etcd.kill()
    config = tmp_path / "lbcore.yaml"
    config.write_text(web_with(LISTED))
    address, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    argv = [*LBCORE, "serve", config, "--grpc", address, "--admin", admin, *options]
    with Process([*argv, "--store", f"etcd://{etcd.address}/lbcore"], cwd=ROOT, grace=30) as process:
        process.wait_for_output("UNAVAILABLE.*nobody is answered before it has been read", stream="stderr")
        with PickerClient(address, timeout=30) as picker, assignments(address, "web", "db") as eds:
            for service in ("web", "db"):
                with pytest.raises(NotReady, match="not every source has been heard from"):
                    picker.pick(service)
            with pytest.raises(NotReady):
                picker.endpoints()  # an empty list would say that there are none
            with HttpClient(admin) as http:
                assert [http.get(page).status for page in ("/ready", "/sd", "/sd?service=web")] == [503, 503, 503]
                assert "UNAVAILABLE" in json.loads(http.get("/ready").body)["stale"]["registry"]
            assert process.stdout == ""
            etcd.restart()
            process.wait_for_output("^ready ")
            assert eds.next() == {"web": [80, 90], "db": [90]}
            assert {picker.pick("web").address for _ in range(10)} == {LISTED, REGISTERED}


def register(etcd: Etcd, folder: Path) -> None:
    """Through a server of its own, which is gone afterwards."""
    config = folder / "other.yaml"
    config.write_text("services: {}\n")
    command: list[str | Path] = [*LBCORE, "serve", config, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with Process([*command, "--store", f"etcd://{etcd.address}/lbcore"], cwd=ROOT, grace=30) as other:
        target = other.wait_for_output(r"^ready grpc=(\S+)")[1]
        announcements = [pb.Announcement(service=name, address=REGISTERED) for name in ("web", "db")]
        with grpc.insecure_channel(target) as channel:
            RegistryStub(channel).Register(pb.RegisterRequest(announcements=announcements, ttl=Duration(seconds=600)))
