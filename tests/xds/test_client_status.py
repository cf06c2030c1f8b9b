"""CSDS: what the server tells of its clients, one resource at a time, and whom a request asks for."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from envoy.service.status.v3 import csds_pb2

from tests.xds.clients import CDS, EDS, Plane, eventually, service

METHOD = "/envoy.service.status.v3.ClientStatusDiscoveryService/"
SYNCED, NOT_SENT, STALE, ERROR = 1, 2, 3, 4


async def fetch(served: Plane, *matchers: dict[str, Any]) -> list[Any]:
    """The clients that a unary request is answered with."""
    call = served.channel.unary_unary(
        f"{METHOD}FetchClientStatus",
        request_serializer=csds_pb2.ClientStatusRequest.SerializeToString,
        response_deserializer=csds_pb2.ClientStatusResponse.FromString,
    )
    response = await call(csds_pb2.ClientStatusRequest(node_matchers=[{"node_id": each} for each in matchers]))
    return list(response.config)


def states(config: Any) -> dict[tuple[str, str], int]:
    """The status of each resource by the end of its type's name and its own."""
    return {(each.type_url.rpartition(".")[2], each.name): each.config_status for each in config.generic_xds_configs}


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_resources_are_stale_until_they_are_accepted(served: Plane, method: str) -> None:
    served.publish(service("web", 1))
    client = getattr(served, method)(id="edge-1", cluster="front", user_agent_name="envoy", user_agent_version="1.40")
    await client.ask(EDS, "web", "missing")
    response = await client.receive(EDS)
    (config,) = await fetch(served)
    assert (config.node.id, config.node.cluster, config.node.user_agent_name) == ("edge-1", "front", "envoy")
    assert config.client_scope.startswith(("StreamAggregatedResources ", "DeltaAggregatedResources "))
    assert states(config) == {
        ("ClusterLoadAssignment", "web"): STALE,
        ("ClusterLoadAssignment", "missing"): NOT_SENT,
    }
    if method == "sotw":
        await client.ask(EDS, "web", "missing", version=response.version_info)
    else:
        await client.accept(EDS)
    await client.taken_in()
    (config,) = await fetch(served)
    assert states(config)["ClusterLoadAssignment", "web"] == SYNCED
    (web,) = (each for each in config.generic_xds_configs if each.name == "web")
    assert web.version_info
    assert web.last_updated.seconds > 1e9


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_s5_a_nack_is_shown_until_it_is_made_up_for(served: Plane, method: str) -> None:
    served.publish(service("web", 1), service("api", 2))
    client = getattr(served, method)()
    await client.ask(CDS)
    first = await client.receive(CDS)
    if method == "sotw":
        await client.ask(CDS, version=first.version_info)
    else:
        await client.accept(CDS)
    served.change(service("web", 1, limit=7))
    refused = await client.receive(CDS)
    await client.refuse(CDS, error="limit 7 is unlucky")
    await client.taken_in()
    (config,) = await fetch(served)
    assert states(config) == {("Cluster", "web"): ERROR, ("Cluster", "api"): SYNCED}
    (web,) = (each for each in config.generic_xds_configs if each.name == "web")
    assert web.error_state.details == "limit 7 is unlucky"
    version = refused.version_info if method == "sotw" else refused.system_version_info
    assert web.error_state.version_info == version
    served.change(service("web", 1, limit=8))
    again = await client.receive(CDS)
    if method == "sotw":
        await client.ask(CDS, version=again.version_info)
    else:
        await client.accept(CDS)
    await client.taken_in()
    (config,) = await fetch(served)
    assert set(states(config).values()) == {SYNCED}
    assert not any(each.HasField("error_state") for each in config.generic_xds_configs)


async def test_a_refused_removal_is_shown_without_a_name(served: Plane) -> None:
    served.publish(service("web", 1))
    client = served.sotw()
    await client.ask(CDS)
    await client.settle(CDS)
    served.publish()
    await client.receive(CDS)
    await client.refuse(CDS, error="I want to keep it")
    await client.taken_in()
    (config,) = await fetch(served)
    assert states(config) == {("Cluster", ""): ERROR}
    assert config.generic_xds_configs[0].error_state.details == "I want to keep it"


@pytest.mark.parametrize(
    ("matcher", "expected"),
    [
        ({"exact": "edge-1"}, {"edge-1"}),
        ({"prefix": "edge"}, {"edge-1", "edge-2"}),
        ({"suffix": "-1"}, {"edge-1", "inner-1"}),
        ({"contains": "NNE", "ignore_case": True}, {"inner-1"}),
        ({"safe_regex": {"regex": "edge-[0-9]"}}, {"edge-1", "edge-2"}),
        ({"exact": "nobody"}, set()),
    ],
)
async def test_nodes_are_chosen_by_their_id(served: Plane, matcher: dict[str, Any], expected: set[str]) -> None:
    clients = [served.sotw(id=name) for name in ("edge-1", "edge-2", "inner-1")]
    for client in clients:
        await client.ask(EDS, "web")
    await eventually(lambda: sum(1 for each in served.xds.clients() if each.node.id) == 3)
    assert {config.node.id for config in await fetch(served, matcher)} == expected


@pytest.mark.parametrize("matcher", [{}, {"safe_regex": {"regex": "("}}])
async def test_a_matcher_that_means_nothing_is_refused(served: Plane, matcher: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await fetch(served, matcher)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "node_matchers" in (failure.value.details() or "")


async def test_a_stream_answers_each_request_and_splits_what_is_large(
    served: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbcore.xds.client_status._MOST_BYTES", 1000)
    served.publish(*(service(f"web-{number}", 1) for number in range(10)))
    clients = [served.sotw(id=f"edge-{number}") for number in range(3)]
    for client in clients:
        await client.ask(CDS)
        await client.receive(CDS)
    call = served.channel.stream_stream(
        f"{METHOD}StreamClientStatus",
        request_serializer=csds_pb2.ClientStatusRequest.SerializeToString,
        response_deserializer=csds_pb2.ClientStatusResponse.FromString,
    )()
    for _ in range(2):
        await call.write(csds_pb2.ClientStatusRequest())
        seen = [await call.read() for _ in range(3)]
        assert sorted(config.node.id for each in seen for config in each.config) == ["edge-0", "edge-1", "edge-2"]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_client_that_has_gone_is_not_shown(served: Plane) -> None:
    client = served.sotw()
    await client.ask(EDS, "web")
    await eventually(lambda: served.xds.stream_count == 1)
    client.cancel()
    await eventually(lambda: served.xds.stream_count == 0)
    assert await fetch(served) == []
