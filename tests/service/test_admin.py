"""The admin port of a running service, beside the real Envoy's own admin port for the same hosts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from lbcore.model import Endpoint, Health
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService, web_with

Start = Callable[[str], LbcoreService]

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def test_ready_tells_what_is_served(start_service: Start) -> None:
    answer = start_service(web_with("127.0.0.1:8081")).get("/ready")
    detail = json.loads(answer.body)
    assert answer.status == 200
    assert {name: detail[name] for name in ("ready", "synced", "draining", "stale", "services")} == {
        "ready": True,
        "synced": True,
        "draining": False,
        "stale": {},
        "services": 1,
    }


def test_ready_stays_and_tells_of_a_broken_file_until_it_is_mended(start_service: Start) -> None:
    service = start_service(web_with("127.0.0.1:8081"))
    service.replace("services: {web: {policy: ring_hsh}}")
    wait_until(lambda: stale(service), "the broken file")
    assert service.get("/ready").status == 200
    assert stale(service)["file"].startswith(f"{service.config}:1: services.web.policy: ")
    service.replace(web_with("127.0.0.1:8081"))
    wait_until(lambda: not stale(service), "the mended file")


def stale(service: LbcoreService) -> Any:
    return json.loads(service.get("/ready").body)["stale"]


def test_services_with_the_same_content_have_the_same_version(
    start_service: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = start_service(web_with("127.0.0.1:8081"))
    before = version(first)
    with LbcoreService(tmp_path_factory.mktemp("replica"), web_with("127.0.0.1:8081")) as replica:
        assert version(replica) == before
    first.replace(web_with("127.0.0.1:8082"))
    wait_until(lambda: version(first) != before, "another version")


def version(service: LbcoreService) -> Any:
    return json.loads(service.get("/ready").body)["version"]


def metrics(service: LbcoreService) -> dict[str, float]:
    lines = service.get("/metrics").body.decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def test_every_metric_has_the_prefix(start_service: Start) -> None:
    names = metrics(start_service(web_with("127.0.0.1:8081"))).keys()
    assert 'lbcore_endpoints{health="UNKNOWN",service="web"}' in names
    assert [name for name in names if not name.startswith("lbcore_")] == []


def test_metrics_count_reads_of_the_file(start_service: Start) -> None:
    service = start_service(web_with("127.0.0.1:8081"))
    assert metrics(service)['lbcore_config_reloads_total{result="ok"}'] == 1
    service.replace("services: [")
    wait_until(lambda: metrics(service)['lbcore_source_stale{source="file"}'] == 1, "the broken file")
    assert metrics(service)['lbcore_config_reloads_total{result="failed"}'] == 1


def test_metrics_count_a_refused_response_by_node_and_type(start_service: Start) -> None:
    service = start_service(web_with("127.0.0.1:8081"))
    node = base_pb2.Node(id="picky")
    with grpc.insecure_channel(service.grpc) as channel:
        method = channel.stream_stream(
            ADS,
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )

        def requests() -> Any:
            yield discovery_pb2.DiscoveryRequest(node=node, type_url=CLUSTER)
            response = next(responses)
            yield discovery_pb2.DiscoveryRequest(
                type_url=CLUSTER,
                response_nonce=response.nonce,
                error_detail=status_pb2.Status(code=3, message="not to my taste"),
            )
            service.process.wait_for_output("picky.*not to my taste", stream="stderr")

        responses = method(requests(), timeout=30)
        service.process.wait_for_output("picky.*not to my taste", stream="stderr")
        assert metrics(service)[f'lbcore_xds_nacks_total{{node="picky",type="{CLUSTER}"}}'] == 1


def test_the_index_links_every_page(start_service: Start) -> None:
    service = start_service("services: {}")
    index = service.get("/").body.decode()
    for path in ("/ready", "/metrics", "/clusters"):
        assert f'href="{path}"' in index
        assert service.get(path).status == 200


def test_an_unknown_format_of_clusters_is_refused(start_service: Start) -> None:
    answer = start_service("services: {}").get("/clusters?format=xml")
    assert (answer.status, answer.body) == (400, b"format 'xml': expected text or json\n")


HOSTS = (
    Endpoint("127.0.0.1:1", hostname="one"),
    Endpoint("127.0.0.1:2", weight=3, locality="eu/a/rack"),
    Endpoint("[::1]:3", health=Health.UNHEALTHY),
    Endpoint("127.0.0.1:4", health=Health.DEGRADED, priority=1),
    Endpoint("127.0.0.1:5", health=Health.DRAINING),
    Endpoint("127.0.0.1:6", health=Health.TIMEOUT, locality="us"),
)


@pytest.fixture
def both(start_service: Start, start_envoy: Callable[..., Envoy], tmp_path: Path) -> tuple[LbcoreService, Envoy]:
    """lbcore and Envoy with the same hosts, none of which has had a request."""
    hosts = (*HOSTS, Endpoint(f"unix:{tmp_path}/socket"))
    entries = [
        {
            "address": each.address,
            "weight": each.weight,
            "priority": each.priority,
            "health": each.health.name.lower(),
            **({"locality": str(each.locality)} if str(each.locality) else {}),
            **({"hostname": each.hostname} if each.hostname else {}),
        }
        for each in hosts
    ]
    envoy = start_envoy(static_bootstrap([StaticCluster(name="web", endpoints=hosts)]))
    return start_service(web_with(*entries)), envoy


def test_clusters_text_says_of_each_host_what_envoy_says(both: tuple[LbcoreService, Envoy]) -> None:
    service, envoy = both
    ours, theirs = (by_host(body.decode()) for body in (service.get("/clusters").body, envoy.admin("/clusters")))
    assert ours == theirs


def test_clusters_text_has_envoys_lines_in_envoys_order(both: tuple[LbcoreService, Envoy]) -> None:
    service, envoy = both
    ours, theirs = (
        [name for name, _ in host]
        for body in (service.get("/clusters").body, envoy.admin("/clusters"))
        for host in [list(by_host(body.decode())["web::127.0.0.1:1"].items())]
    )
    assert ours == theirs
    assert head(service.get("/clusters").body) == [
        line.replace("added_via_api::false", "added_via_api::true") for line in head(envoy.admin("/clusters"))
    ]


def head(body: bytes) -> list[str]:
    """The lines of the cluster itself."""
    lines = body.decode().splitlines()
    return [line for line in lines if not line.startswith(("web::127.0.0.1", "web::[::1]", "web::/"))]


def by_host(text: str) -> dict[str, dict[str, str]]:
    """The lines `CLUSTER::HOST::NAME::VALUE` by cluster and host, in their order."""
    hosts: dict[str, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        place, name, value = line.rsplit("::", 2)
        hosts[place][name] = value
    return {place: values for place, values in hosts.items() if "weight" in values}


def test_clusters_json_says_what_envoy_says(both: tuple[LbcoreService, Envoy]) -> None:
    service, envoy = both
    ours = json.loads(service.get("/clusters?format=json").body)
    theirs = json.loads(envoy.admin("/clusters?format=json"))
    assert ours["cluster_statuses"][0].pop("added_via_api") is True
    assert in_order(ours) == in_order(theirs)


def in_order(clusters: Any) -> Any:
    """With hosts and their figures in an order that does not depend on the server."""
    for status in clusters["cluster_statuses"]:
        status["host_statuses"].sort(key=lambda host: json.dumps(host["address"], sort_keys=True))
        for host in status["host_statuses"]:
            host["stats"].sort(key=lambda figure: figure["name"])
    return clusters
