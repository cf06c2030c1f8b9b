"""What a client would refuse never leaves: the last look at finished messages, and what becomes of what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Locality
from lbcore.policy import Maglev, RingHash
from lbcore.retry import RetryPolicy
from lbcore.routing import Listener, Route, RouteAction
from lbcore.settings import HealthCheck, HttpHealthCheck, OutlierDetection, ZoneAware
from lbcore.xds import clusters
from lbcore.xds.lint import faults
from lbcore.xds.messages import packed
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog
from tests.xds.clients import CDS, MESSAGES, Plane, SotwClient, limit, service


def cluster(**fields: Any) -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster(name="web", **fields)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (cluster_pb2.Cluster(), ["name: expected at least 1 characters"]),
        (cluster(connect_timeout={"seconds": -1}), ["connect_timeout seconds: -1\n: expected more than 0"]),
        (
            cluster(outlier_detection={"max_ejection_percent": {"value": 101}}),
            ["outlier_detection.max_ejection_percent value: 101\n: expected at most 100"],
        ),
        (cluster(health_checks=[{}]), 5),
        (
            cluster(
                load_balancing_policy={
                    "policies": [
                        {
                            "typed_extension_config": {
                                "name": "x",
                                "typed_config": packed(ring_hash_pb2.RingHash(maximum_ring_size={"value": 1 << 40})),
                            }
                        }
                    ]
                }
            ),
            1,
        ),
        (
            endpoint_pb2.ClusterLoadAssignment(
                cluster_name="web", endpoints=[{"load_balancing_weight": {"value": 0}, "priority": 200}]
            ),
            2,
        ),
        (
            route_pb2.RouteConfiguration(virtual_hosts=[route_components_pb2.VirtualHost(name="v", domains=[])]),
            ["virtual_hosts[0].domains: expected at least 1"],
        ),
        (
            route_pb2.RouteConfiguration(
                request_headers_to_add=[{"header": base_pb2.HeaderValue(key="a\nb", value="c")}]
            ),
            1,
        ),
    ],
)
def test_constraints_of_envoys_api_are_found(message: Message, found: Any) -> None:
    told = list(faults(message))
    if isinstance(found, int):
        assert 1 <= len(told) <= found
    else:
        assert told == found


def test_every_message_of_the_api_can_be_looked_at() -> None:
    seen: set[str] = set()

    def look(message_type: Any) -> None:
        if message_type.full_name not in seen:
            seen.add(message_type.full_name)
            list(faults(GetMessageClass(message_type)()))
            for field in message_type.fields:
                if field.message_type is not None:
                    look(field.message_type)

    for each in MESSAGES.values():
        look(each.DESCRIPTOR)
    assert len(seen) > 200


EVERYTHING = service(
    "web",
    1,
    policy=RingHash(),
    outlier_detection=OutlierDetection(),
    health_check=HealthCheck(http=HttpHealthCheck()),
    route=RouteAction(services={"web": 9, "api": 1}, timeout=1.0, retry=RetryPolicy(retry_on=("unavailable",))),
    locality_weights={Locality("eu"): 3},
    endpoints=(Endpoint("10.0.0.1:1", locality="eu", metadata={"a": [1, "x", {"y": None}]}),),
)
SIMPLE = service("api", 2, policy=Maglev(), locality_policy=ZoneAware())


@pytest.mark.parametrize("snapshot", [EVERYTHING, SIMPLE, service("empty")], ids=lambda each: each.name)
def test_what_is_made_of_good_settings_is_good(snapshot: ServiceSnapshot, served: Plane) -> None:
    listener = Listener(name="in", address="127.0.0.1:1", routes=(Route(prefix="/", service="web"),))
    served.publish(snapshot, listeners=[listener])
    catalog = Catalog(served.directory.current)
    for (resource_type, _), made in catalog._sets.items():
        for resource in made.everything:
            message = MESSAGES[resource_type].FromString(content_of(resource.framed))
            assert list(faults(message)) == []


def content_of(framed: bytes) -> bytes:
    (packed_resource,) = discovery_pb2.DiscoveryResponse.FromString(framed).resources
    return bytes(packed_resource.value)


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_v7_what_would_be_refused_never_leaves_and_the_last_good_one_stays(
    served: Plane,
    only: Callable[[ResourceType], ResourceType | None],
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    served.publish(service("web", 1, limit=1), service("api", 1, limit=1))
    client = getattr(served, method)(only(CDS))
    await client.ask(CDS)
    assert (await settled(client, CDS)).keys() == {"web", "api"}
    breaking_limit_two(monkeypatch)
    served.change(service("web", 1, limit=2))
    assert await client.quiet()
    assert "cluster 'web' would be refused: connect_timeout" in caplog.text
    assert "the last good one stays" in caplog.text
    served.change(service("api", 1, limit=3))
    known = await settled(client, CDS)
    assert limit(known["api"]) == 3, "nobody else is concerned"
    assert limit(known["web"]) == 1 if method == "sotw" else "web" not in known
    newcomer = getattr(served, method)(only(CDS))
    await newcomer.ask(CDS)
    assert limit((await settled(newcomer, CDS))["web"]) == 1
    served.change(service("web", 1, limit=4))
    assert limit((await settled(client, CDS))["web"]) == 4


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_v7_what_was_never_good_is_as_what_does_not_exist(
    served: Plane,
    only: Callable[[ResourceType], ResourceType | None],
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaking_limit_two(monkeypatch)
    served.publish(service("web", 1, limit=2), service("api", 1, limit=1))
    client = getattr(served, method)(only(CDS))
    await client.ask(CDS)
    assert (await settled(client, CDS)).keys() == {"api"}
    served.change(service("web", 1, limit=3))
    assert "web" in await settled(client, CDS)


def breaking_limit_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a cluster with a limit of two requests bears what Envoy refuses."""
    whole = clusters.linted

    def broken(resource_type: ResourceType, name: str, message: Any, **fields: Any) -> Any:
        if limit(message) == 2:
            message.connect_timeout.seconds = -1
        return whole(resource_type, name, message, **fields)

    monkeypatch.setattr(clusters, "linted", broken)


async def settled(client: Any, resource_type: ResourceType) -> dict[str, Any]:
    known = await client.settle(resource_type)
    return known if isinstance(client, SotwClient) else known[0]
