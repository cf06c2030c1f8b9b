"""Rules R8 and R9 of what a correct xDS server does: mutual TLS, and who may see what. On all four surfaces."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2
from envoy.service.status.v3 import csds_pb2

from lbcore.access import Grant
from lbcore.model import Locality
from lbcore.routing import Listener, Route, RouteAction
from lbcore.xds.client_status import SERVICE as CSDS
from lbcore.xds.load_reports import SERVICE as LRS
from lbcore.xds.resource_type import ResourceType
from tests.harness.certificates import Authority
from tests.xds.clients import CDS, EDS, LDS, RDS, TIME_LIMIT, DeltaClient, SotwClient, eventually, resources, service
from tests.xds.secured import FRONT, OTHER, SecuredPlane, secured_plane

Only = Callable[[ResourceType], ResourceType | None]
Method = str


@pytest.fixture(params=["sotw", "delta"])
def method(request: pytest.FixtureRequest) -> Method:
    """Which of the two protocols."""
    return str(request.param)


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[SecuredPlane]:
    """Without grants: whoever has a certificate may do all."""
    async with secured_plane(tmp_path) as plane:
        yield plane


@pytest.fixture
async def granted(tmp_path: Path) -> AsyncIterator[SecuredPlane]:
    """`FRONT` may see web and shop/*, `OTHER` nothing."""
    grant = Grant(identity=FRONT, services=("web", "shop/*"), nodes=("raw", "front-*"))
    async with secured_plane(tmp_path, grant) as plane:
        yield plane


def open_stream(plane: SecuredPlane, method: Method, only: ResourceType | None, **node: Any) -> Any:
    return getattr(plane, method)(only, **node)


async def known(client: Any, resource_type: ResourceType, *names: str) -> set[str]:
    """The resources of the next response, accepted."""
    if isinstance(client, SotwClient):
        return set(await client.settle(resource_type, *names))
    return set((await client.settle(resource_type))[0])


async def refusal(client: SotwClient | DeltaClient, resource_type: ResourceType) -> tuple[grpc.StatusCode, str]:
    """How a stream ends that must not bring anything: no bytes of data."""
    try:
        await client.ask(resource_type, "web")
        response = await client.receive()
    except (AssertionError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return await client.status()
    raise AssertionError(f"an answer: {response}")


async def test_r8_a_client_without_a_good_certificate_gets_nothing(
    secured: SecuredPlane, method: Method, only: Only
) -> None:
    secured.publish(service("web", 1))
    stranger = Authority("stranger")
    day = datetime.timedelta(days=1)
    for certificate in (
        None,
        stranger.issue(uris=[FRONT]),
        secured.authority.issue(uris=[FRONT], valid_for=-day),
    ):
        secured.channel = secured.connect(certificate)
        code, _ = await refusal(open_stream(secured, method, only(EDS)), EDS)
        assert code is grpc.StatusCode.UNAVAILABLE
    secured.channel = grpc.aio.insecure_channel(f"127.0.0.1:{secured.port}")
    secured.channels.append(secured.channel)
    code, _ = await refusal(open_stream(secured, method, only(EDS)), EDS)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert secured.xds.stream_count == 0


async def test_r8_without_grants_whoever_has_a_certificate_is_served(
    secured: SecuredPlane, method: Method, only: Only
) -> None:
    secured.publish(service("web", 1))
    between = Authority("between", secured.authority)
    for certificate in (secured.authority.issue(uris=[OTHER]), between.issue(dns=["front.example.org"])):
        secured.channel = secured.connect(certificate)
        client = open_stream(secured, method, only(EDS))
        await client.ask(EDS, "web")
        assert await known(client, EDS, "web") == {"web"}


async def test_r8_whom_nothing_is_granted_is_refused(granted: SecuredPlane, method: Method, only: Only) -> None:
    granted.publish(service("web", 1))
    issue = granted.authority.issue
    for certificate in (
        issue(uris=[OTHER]),
        issue(uris=[FRONT, OTHER]),  # two ids are nobody's
        issue(dns=["front.example.org"]),
        issue(ips=["127.0.0.1"]),
        issue(uris=[FRONT + "/more"]),
        issue(uris=[FRONT.replace("example.org", "example.com")]),
    ):
        granted.channel = granted.connect(certificate)
        for resource_type in ResourceType:
            code, details = await refusal(open_stream(granted, method, only(resource_type)), resource_type)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "web" not in details


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_r8_what_is_not_granted_is_as_what_does_not_exist(
    granted: SecuredPlane, method: Method, only: Only, resource_type: ResourceType
) -> None:
    granted.publish(service("web", 1), service("pay", 2))
    names = ("pay", "web")
    client = open_stream(granted, method, only(resource_type), user_agent_name="gRPC")
    await client.ask(resource_type, *names)
    first = await client.receive(resource_type)
    assert resources(first).keys() == {"web"}
    if method == "delta":
        assert list(first.removed_resources) == ["pay"]
        await client.accept(resource_type)
    else:
        # The one and what is nowhere are told of in the same words.
        assert [each.resource_name.name for each in first.resource_errors] == (["pay"] if resource_type is CDS else [])
        client.versions[resource_type] = first.version_info
        await client.ask(resource_type, *names)
    granted.change(service("pay", 3, limit=3))
    assert await client.quiet(), "nor do its changes show"
    granted.change(service("web", 4, limit=4))
    assert await known(client, resource_type, *names) == {"web"}


async def test_r8_a_wildcard_is_all_that_is_granted(granted: SecuredPlane, method: Method, only: Only) -> None:
    granted.publish(service("web", 1), service("shop/cart", 1), service("shop/cart/db", 1), service("pay", 2))
    client = open_stream(granted, method, only(CDS))
    await client.ask(CDS)
    assert await known(client, CDS) == {"web", "shop/cart"}
    granted.publish(service("web", 1), service("shop/cart", 1), service("shop/pay", 2), service("pay", 3))
    assert await known(client, CDS) == ({"web", "shop/cart", "shop/pay"} if method == "sotw" else {"shop/pay"})


@pytest.mark.parametrize("resource_type", [LDS, RDS], ids=lambda each: each.name)
async def test_r8_a_route_or_listener_that_names_something_hidden_is_hidden_itself(
    granted: SecuredPlane, method: Method, only: Only, resource_type: ResourceType
) -> None:
    listeners = [
        Listener(name="good", address="127.0.0.1:1", routes=(Route(prefix="/", service="web"),)),
        Listener(
            name="bad",
            address="127.0.0.1:2",
            routes=(Route(prefix="/x", service="web"), Route(prefix="/", services={"web": 1, "pay": 1})),
        ),
    ]
    canary = service("shop/cart", 1, route=RouteAction(services={"shop/cart": 9, "pay": 1}))
    granted.publish(service("web", 1), canary, service("pay", 2), listeners=listeners)
    of_envoy = open_stream(granted, method, only(resource_type), user_agent_name="envoy")
    await of_envoy.ask(resource_type, "good", "bad")
    assert await known(of_envoy, resource_type, "good", "bad") == {"good"}
    of_grpc = open_stream(granted, method, only(resource_type), user_agent_name="gRPC")
    await of_grpc.ask(resource_type, "web", "shop/cart", "pay")
    assert await known(of_grpc, resource_type, "web", "shop/cart", "pay") == {"web"}


async def test_r8_a_node_is_only_who_its_certificate_may_be(granted: SecuredPlane, method: Method, only: Only) -> None:
    granted.publish(service("web", 1))
    client = open_stream(granted, method, only(EDS), id="front-7")
    await client.ask(EDS, "web")
    assert await known(client, EDS, "web") == {"web"}
    code, details = await refusal(open_stream(granted, method, only(EDS), id="billing-1"), EDS)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "node.id 'billing-1'" in details


async def test_r9_streams_of_an_authority_that_is_trusted_no_more_end(
    secured: SecuredPlane, method: Method, only: Only
) -> None:
    secured.publish(service("web", 1))
    old, new = Authority("old"), Authority("new")
    secured.trust(old, new)
    secured.security._changed.set()
    await asyncio.sleep(0.2)
    streams = []
    for authority in (old, new):
        secured.channel = secured.connect(authority.issue(uris=[FRONT]), secured.authority.root)
        client = open_stream(secured, method, only(EDS))
        await client.ask(EDS, "web")
        await known(client, EDS, "web")
        streams.append((client, secured.channel))
    secured.trust(new)
    code, details = await streams[0][0].status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "not trusted" in details
    secured.channel = streams[0][1]
    code, _ = await refusal(open_stream(secured, method, only(EDS)), EDS)
    assert code is grpc.StatusCode.PERMISSION_DENIED, "the connection is of no more use"
    secured.publish(service("web", 2))
    assert await known(streams[1][0], EDS, "web") == {"web"}, "nobody else is concerned"


async def test_r9_streams_of_a_revoked_certificate_end(secured: SecuredPlane, method: Method, only: Only) -> None:
    secured.publish(service("web", 1))
    certificate = secured.authority.issue(uris=[FRONT])
    secured.channel = secured.connect(certificate)
    client = open_stream(secured, method, only(EDS))
    await client.ask(EDS, "web")
    await known(client, EDS, "web")
    secured.revoke(certificate)
    code, details = await client.status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "revoked" in details
    secured.channel = secured.connect(certificate)
    code, _ = await refusal(open_stream(secured, method, only(EDS)), EDS)
    assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_r9_streams_end_with_their_certificate(secured: SecuredPlane) -> None:
    secured.publish(service("web", 1))
    soon = datetime.timedelta(seconds=3)  # certificates count in seconds
    secured.channel = secured.connect(secured.authority.issue(uris=[FRONT], valid_for=soon))
    clients = [open_stream(secured, method, only) for method in ("sotw", "delta") for only in (None, EDS)]
    for client in clients:
        await client.ask(EDS, "web")
        await known(client, EDS, "web")
    for client in clients:
        code, details = await client.status()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "expired" in details


async def test_r9_streams_end_when_what_they_may_see_changes(granted: SecuredPlane, method: Method, only: Only) -> None:
    granted.publish(service("web", 1), service("pay", 1))
    granted.grant(Grant(identity=FRONT, services=("web",)), Grant(identity=OTHER))
    front = open_stream(granted, method, only(CDS))
    await front.ask(CDS)
    assert await known(front, CDS) == {"web"}
    granted.grant(Grant(identity=FRONT, services=("web", "pay")), Grant(identity=OTHER))
    assert (await front.status())[0] is grpc.StatusCode.UNAVAILABLE, "it comes again, and sees more"
    front = open_stream(granted, method, only(CDS))
    await front.ask(CDS)
    assert await known(front, CDS) == {"web", "pay"}
    granted.grant(Grant(identity=OTHER))
    assert (await front.status())[0] is grpc.StatusCode.PERMISSION_DENIED
    await eventually(lambda: granted.xds.stream_count == 0)


async def test_r8_load_and_status_are_guarded_too(granted: SecuredPlane) -> None:
    granted.publish(service("web", 1), service("pay", 2))
    call = granted.channel.stream_stream(f"/{LRS}/StreamLoadStats")()
    request = lrs_pb2.LoadStatsRequest()
    for name in ("web", "pay"):
        stats = request.cluster_stats.add(cluster_name=name, load_report_interval={"seconds": 1})
        stats.upstream_locality_stats.add(total_successful_requests=5)
    await call.write(request.SerializeToString())
    wanted = lrs_pb2.LoadStatsResponse.FromString(await asyncio.wait_for(call.read(), TIME_LIMIT))
    assert list(wanted.clusters) == ["web"], "who reports learns of no other service"
    assert granted.directory.loads.services == ("web",)
    assert Locality() in granted.directory.loads.of("web")
    fetch = granted.channel.unary_unary(f"/{CSDS}/FetchClientStatus")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fetch(csds_pb2.ClientStatusRequest().SerializeToString())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    granted.grant(Grant(identity=FRONT, allow=("xds", "status"), services=("web",)))
    assert await asyncio.wait_for(call.code(), TIME_LIMIT) is grpc.StatusCode.UNAVAILABLE
    await fetch(csds_pb2.ClientStatusRequest().SerializeToString())
