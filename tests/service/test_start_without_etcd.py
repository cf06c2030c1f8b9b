"""`lbcore serve` whose etcd is away at its very first start: what the file lists is served, and nothing false."""

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

from lbcore.client import PickerClient, Registration
from lbcore.errors import NotReady, UnknownService
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until
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
def test_what_the_file_lists_is_served_at_once_and_what_is_registered_once_etcd_is_there(
    etcd: Etcd, tmp_path: Path, options: tuple[str, ...]
) -> None:
    config = tmp_path / "lbcore.yaml"
    config.write_text(web_with(LISTED))
    etcd.kill()
    address, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    argv = [*LBCORE, "serve", config, "--grpc", address, "--admin", admin, *options]
    with Process([*argv, "--store", f"etcd://{etcd.address}/lbcore"], cwd=ROOT, grace=30) as process:
        process.wait_for_output("what is only registered has no answers", stream="stderr")
        with PickerClient(address, timeout=30) as picker, assignments(address, "web", "db") as eds:
            assert picker.pick("web").address == LISTED
            with pytest.raises(NotReady, match="not every source has been heard from"):
                picker.pick("db")
            with pytest.raises(NotReady):
                picker.endpoints()
            assert eds.next() == {"web": [80]}
            with HttpClient(admin) as http:
                assert [http.get(page).status for page in ("/ready", "/sd", "/sd?service=db")] == [503, 503, 503]
                assert json.loads(http.get("/sd?service=web").body)[0]["targets"] == [LISTED]
                assert "UNAVAILABLE" in json.loads(http.get("/ready").body)["stale"]["registry"]
            assert process.stdout == ""  # not ready: it cannot answer for everything
            etcd.restart()
            process.wait_for_output("^ready ")
            with pytest.raises(UnknownService):
                picker.pick("db")
            with Registration("db", REGISTERED, target=address, ttl=30.0, drain_time=0):
                assert eds.next() == {"db": [90]}
                wait_until(lambda: "db" in {each.name for each in picker.endpoints()}, "the registration")
                assert picker.pick("db").address == REGISTERED
            assert picker.pick("web").address == LISTED
