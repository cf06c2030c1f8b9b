"""The xDS source fed by lbcore's own server, and a cluster that it keeps up to date through restarts of that server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import trustme

import lbcore
from lbcore.membership import Membership
from lbcore.model import Endpoint, Health, Locality
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Xds
from lbcore.sources.feed import Timing
from lbcore.sources.xds import XdsFeed
from tests.harness.control_plane import ControlPlane
from tests.sources.following import Following
from tests.xds.clients import Plane, eventually, plane, service

VARIANTS = pytest.mark.parametrize("api_type", ["grpc", "delta_grpc"])


@pytest.fixture
async def server() -> AsyncIterator[Plane]:
    async with plane() as running:
        yield running


async def briefly(_: float) -> None:
    await asyncio.sleep(0.2)


def following(server: Plane, api_type: str, name: str = "web", cds: bool = True) -> Following:
    return Following(XdsFeed(Xds(f"127.0.0.1:{server.port}", api_type=api_type, cds=cds), name, Timing(sleep=briefly)))  # type: ignore[arg-type]


@VARIANTS
@pytest.mark.parametrize("cds", [True, False])
async def test_all_that_the_server_knows_of_endpoints_arrives(server: Plane, api_type: str, cds: bool) -> None:
    endpoints = (
        Endpoint("10.0.0.1:80", weight=3, locality="eu/a/1", health=Health.DRAINING, hostname="a"),
        Endpoint("[fd00::1]:80", locality="eu/b", metadata={"hash_key": "b", "canary": True, "list": [1, None, "x"]}),
        Endpoint("10.0.0.2:80", priority=1, additional_addresses=("[fd00::2]:80",)),
    )
    weights = {Locality("eu", "a", "1"): 5, Locality("eu", "b"): 2}
    server.publish(ServiceSnapshot(name="web", endpoints=endpoints, locality_weights=weights))
    async with following(server, api_type, cds=cds) as feed:
        membership = await feed.next()
    assert sorted(membership.endpoints, key=str) == sorted(endpoints, key=str)
    assert membership.locality_weights == {**weights, Locality(): 1}


@VARIANTS
async def test_changes_and_removals_arrive(server: Plane, api_type: str) -> None:
    server.publish(service("web", 80), service("other", 90))
    async with following(server, api_type) as feed:
        assert await feed.addresses() == ["10.0.0.1:80"]
        server.change(service("web", 81))
        await feed.until("10.0.0.1:81")
        server.change(service("web", 82, limit=7))
        await feed.until("10.0.0.1:82")
        server.remove("web")
        await feed.until()
        server.publish(service("web", 83))
        await feed.until("10.0.0.1:83")


@VARIANTS
async def test_a_service_that_is_not_there_has_no_endpoints_until_it_is(server: Plane, api_type: str) -> None:
    server.publish(service("other", 90))
    async with following(server, api_type) as feed:
        assert await feed.addresses() == []
        server.publish(service("web", 80))
        await feed.until("10.0.0.1:80")


@VARIANTS
async def test_nothing_is_said_before_the_server_is_in_sync(api_type: str) -> None:
    async with plane(synced=False) as server, following(server, api_type) as feed:
        waiting = asyncio.ensure_future(feed.addresses())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        server.publish(service("web", 80))
        assert await waiting == ["10.0.0.1:80"]


@VARIANTS
async def test_any_history_ends_in_what_the_server_has(server: Plane, api_type: str) -> None:
    chance = random.Random(1)
    server.publish()
    async with following(server, api_type) as feed:
        heard = [Membership()]

        async def follow() -> None:
            while True:
                heard.append(await feed.next())

        running = asyncio.ensure_future(follow())
        for step in range(200):
            names = chance.sample(["web", "a", "b"], chance.randrange(4))
            ports = chance.sample(range(80, 90), chance.randrange(4))
            server.publish(*(service(name, *ports, limit=chance.randrange(1, 3)) for name in names))
            if step % 10 == 0:
                await asyncio.sleep(0.01)
        server.publish(service("web", 1234))
        await eventually(lambda: [each.address for each in heard[-1].endpoints] == ["10.0.0.1:1234"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_control_plane_that_wants_a_certificate(tmp_path: Path) -> None:
    authority, others = trustme.CA(), trustme.CA()
    own = authority.issue_cert("istiod.mesh")
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])

    def become(client: trustme.LeafCert) -> None:
        client.cert_chain_pems[0].write_to_path(files["cert"])
        client.private_key_pem.write_to_path(files["key"])

    become(others.issue_cert("client@elsewhere"))
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    async with plane(credentials=credentials) as server:
        server.publish(service("web", 80))
        tls = {"ca_file": files["ca"], "server_name": "istiod.mesh"}
        address = f"127.0.0.1:{server.port}"
        without = XdsFeed(Xds(address, **tls), "web", Timing(sleep=briefly))
        wrong_name = XdsFeed(Xds(address, ca_file=files["ca"]), "web", Timing(sleep=briefly))
        feed = XdsFeed(
            Xds(address, **tls, cert_file=files["cert"], key_file=files["key"]), "web", Timing(sleep=briefly)
        )
        for refused in (without, wrong_name, feed):
            async with Following(refused) as following:
                assert (await following.broken()).startswith("UNAVAILABLE: ")
        become(authority.issue_cert("client@mesh"))  # rotated, and used by the next connection
        async with Following(feed) as following:
            assert await following.addresses() == ["10.0.0.1:80"]


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


@VARIANTS
async def test_a_cluster_keeps_its_endpoints_while_the_server_is_away(
    control_plane: ControlPlane, api_type: str
) -> None:
    control_plane.publish(service("web", 80))
    async with lbcore.connect(f"xds://{control_plane.address}/web?api_type={api_type}") as cluster:
        assert [endpoint.address for endpoint in cluster.endpoints] == ["10.0.0.1:80"]
        await asyncio.to_thread(control_plane.stop)
        await eventually(lambda: cluster.stale)
        assert cluster.pick().address == "10.0.0.1:80"
        await asyncio.to_thread(control_plane.start)
        control_plane.publish(service("web", 80))
        await eventually(lambda: not cluster.stale)
        control_plane.publish(service("web", 81))
        await eventually(lambda: [endpoint.address for endpoint in cluster.endpoints] == ["10.0.0.1:81"])
    assert control_plane.nacks == []


async def test_the_server_may_be_that_of_the_grpc_bootstrap(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(
        f'{{"xds_servers": [{{"server_uri": "{control_plane.address}", "channel_creds": [{{"type": "insecure"}}],'
        ' "server_features": ["xds_v3"]}], "node": {"id": "me"}}'
    )
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP", str(bootstrap))
    control_plane.publish(service("web", 80))
    async with lbcore.connect("xds:///web") as cluster:
        assert [endpoint.address for endpoint in cluster.endpoints] == ["10.0.0.1:80"]
