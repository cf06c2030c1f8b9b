"""The xDS source message by message, against a server that does what go-control-plane does: both variants."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2

from lbcore.model import Endpoint, Health, Locality
from lbcore.source import Xds
from lbcore.sources.feed import Timing
from lbcore.sources.xds import XdsFeed
from tests.sources.control_plane_script import CDS, EDS, ScriptedPlane, assignment, cluster, scripted_plane
from tests.sources.following import Following

BOTH = pytest.mark.parametrize("plane", ["sotw", "delta"], indirect=True)
SOTW = pytest.mark.parametrize("plane", ["sotw"], indirect=True)
DELTA = pytest.mark.parametrize("plane", ["delta"], indirect=True)


@pytest.fixture
async def plane(request: pytest.FixtureRequest) -> AsyncIterator[ScriptedPlane]:
    async with scripted_plane(delta=request.param == "delta") as plane:
        yield plane


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0.2)


def following(plane: ScriptedPlane, **fields: Any) -> Following:
    source = Xds(plane.address, api_type="delta_grpc" if plane.delta else "grpc", **fields)
    return Following(XdsFeed(source, "web", Timing(sleep=no_sleep)))


class Heard:
    """What a feed says next, asked for beforehand: the feed acts only while somebody waits for it."""

    def __init__(self, feed: Following) -> None:
        self._feed = feed
        self._next = asyncio.ensure_future(feed.next())

    async def __call__(self) -> list[str]:
        heard = await self._next
        self._next = asyncio.ensure_future(self._feed.next())
        return [endpoint.address for endpoint in heard.endpoints]

    async def broken(self) -> str:
        failed = await asyncio.gather(self._next, return_exceptions=True)
        self._next = asyncio.ensure_future(self._feed.next())
        return str(failed[0])

    async def __aenter__(self) -> Heard:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._next.cancel()
        await asyncio.gather(self._next, return_exceptions=True)


async def settled(plane: ScriptedPlane, heard: Heard, *hosts: str) -> None:
    """The opening of a session: the cluster, then its endpoints, each accepted."""
    await plane.request(CDS)
    await plane.send(CDS, "1", cluster("web", "web-eds"))
    await plane.request(CDS)
    await plane.request(EDS)
    await plane.send(EDS, "1", assignment("web-eds", *hosts))
    await plane.request(EDS)
    assert await heard() == [f"{host}:80" for host in hosts]


@pytest.fixture
async def heard(plane: ScriptedPlane) -> AsyncIterator[Heard]:
    async with following(plane) as feed, Heard(feed) as heard:
        yield heard


@SOTW
async def test_a_session_in_the_state_of_the_world(plane: ScriptedPlane, heard: Heard) -> None:
    first = await plane.request(CDS)
    assert (first.node.id, first.node.user_agent_name) == ("lbcore", "lbcore")
    assert (list(first.resource_names), first.version_info, first.response_nonce) == ([], "", "")
    nonce = await plane.send(CDS, "1", cluster("other"), cluster("web", "web-eds"))
    ack = await plane.request(CDS)
    assert (ack.version_info, ack.response_nonce, ack.HasField("error_detail")) == ("1", nonce, False)
    assert not ack.HasField("node")
    ask = await plane.request(EDS)
    assert (list(ask.resource_names), ask.version_info, ask.response_nonce) == (["web-eds"], "", "")
    nonce = await plane.send(EDS, "1", assignment("web-eds", "10.0.0.1"))
    ack = await plane.request(EDS)
    assert (list(ack.resource_names), ack.version_info, ack.response_nonce) == (["web-eds"], "1", nonce)
    assert await heard() == ["10.0.0.1:80"]
    await plane.send(EDS, "2", assignment("web-eds", "10.0.0.1", "10.0.0.2"))
    assert await heard() == ["10.0.0.1:80", "10.0.0.2:80"]
    assert (await plane.request(EDS)).version_info == "2"
    assert await plane.quiet()


@DELTA
async def test_a_session_in_delta(plane: ScriptedPlane, heard: Heard) -> None:
    first = await plane.request(CDS)
    assert (first.node.id, list(first.resource_names_subscribe)) == ("lbcore", [])
    nonce = await plane.send(CDS, "1", cluster("other"), cluster("web", "web-eds"))
    ack = await plane.request(CDS)
    assert (ack.response_nonce, ack.HasField("error_detail"), ack.HasField("node")) == (nonce, False, False)
    ask = await plane.request(EDS)
    assert (list(ask.resource_names_subscribe), ask.response_nonce) == (["web-eds"], "")
    nonce = await plane.send(EDS, "1", assignment("web-eds", "10.0.0.1"))
    ack = await plane.request(EDS)
    assert (ack.response_nonce, list(ack.resource_names_subscribe)) == (nonce, [])
    assert await heard() == ["10.0.0.1:80"]
    assert await plane.quiet()


@SOTW
async def test_the_next_stream_begins_with_the_version_that_was_accepted(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    plane.end()
    assert await heard.broken() == "UNAVAILABLE: restarting"
    clusters, endpoints = await plane.request(CDS), await plane.request(EDS)
    assert (clusters.version_info, clusters.response_nonce, clusters.node.id) == ("1", "", "lbcore")
    assert (endpoints.version_info, endpoints.response_nonce, list(endpoints.resource_names)) == ("1", "", ["web-eds"])


@DELTA
async def test_the_next_stream_begins_with_the_versions_of_all_resources(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    plane.end()
    assert await heard.broken() == "UNAVAILABLE: restarting"
    clusters, endpoints = await plane.request(CDS), await plane.request(EDS)
    assert dict(clusters.initial_resource_versions) == {"web": "1"}
    assert list(clusters.resource_names_subscribe) == []
    assert dict(endpoints.initial_resource_versions) == {"web-eds": "1"}
    assert list(endpoints.resource_names_subscribe) == ["web-eds"]


@BOTH
async def test_a_resumed_stream_that_says_nothing_means_that_all_is_as_it_was(
    plane: ScriptedPlane, heard: Heard
) -> None:
    await settled(plane, heard, "10.0.0.1")
    plane.end()
    await heard.broken()
    assert await heard() == ["10.0.0.1:80"]
    await plane.request(CDS)
    await plane.request(EDS)
    await plane.send(EDS, "2", assignment("web-eds", "10.0.0.2"))
    assert await heard() == ["10.0.0.2:80"]


@BOTH
async def test_endpoints_that_cannot_be_used_are_refused_and_the_old_ones_stay(
    plane: ScriptedPlane, heard: Heard
) -> None:
    await settled(plane, heard, "10.0.0.1")
    nonce = await plane.send(EDS, "2", assignment("web-eds", "10.0.0.1", "web.internal"))
    reason = "endpoints[0].lb_endpoints[1]: address 'web.internal:80': expected an IP address"
    assert await heard.broken() == f"refused: {reason}"
    nack = await plane.request(EDS)
    assert (nack.response_nonce, nack.error_detail.code, nack.error_detail.message) == (nonce, 3, reason)
    if not plane.delta:
        assert nack.version_info == "1"
    await plane.send(EDS, "3", assignment("web-eds", "10.0.0.3"))
    assert await heard() == ["10.0.0.3:80"]


@BOTH
async def test_what_is_sent_again_although_it_is_refused_is_refused_again_after_a_pause(plane: ScriptedPlane) -> None:
    """go-control-plane answers a refusal in the state of the world at once, with the same."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0.05)

    source = Xds(plane.address, api_type="delta_grpc" if plane.delta else "grpc")
    async with Following(XdsFeed(source, "web", Timing(sleep=sleep))) as feed, Heard(feed) as heard:
        await settled(plane, heard, "10.0.0.1")
        for _ in range(3):
            await plane.send(EDS, "2", assignment("web-eds", "web.internal"))
            await heard.broken()
            assert (await plane.request(EDS)).HasField("error_detail")
        assert slept.count(1.0) == 2
        await plane.send(EDS, "3", assignment("web-eds", "10.0.0.2"))
        assert await heard() == ["10.0.0.2:80"]
        await plane.request(EDS)
        await plane.send(EDS, "4", assignment("web-eds", "web.internal"))
        await heard.broken()
        assert slept.count(1.0) == 2  # the first refusal of another one is at once


@BOTH
async def test_endpoints_go_on_while_clusters_are_in_doubt(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    bad = cluster("web")
    bad.type = bad.STRICT_DNS
    await plane.send(CDS, "2", bad)
    assert (await heard.broken()).startswith("refused: cluster 'web': expected one of type EDS")
    await plane.send(EDS, "2", assignment("web-eds", "10.0.0.2"))
    assert await heard() == ["10.0.0.2:80"]
    assert (await heard.broken()).startswith("refused: ")  # which is still so
    await plane.send(CDS, "3", cluster("web", "web-eds"))
    assert await heard() == ["10.0.0.2:80"]


@BOTH
async def test_what_was_in_doubt_on_one_stream_is_not_on_the_next(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", assignment("web-eds", "web.internal"))
    assert (await heard.broken()).startswith("refused: ")
    await plane.request(EDS)
    plane.end()
    assert "restarting" in await heard.broken()
    await plane.request(CDS)
    await plane.request(EDS)
    await plane.send(CDS, "1", cluster("web", "web-eds"))
    assert await heard() == ["10.0.0.1:80"]


def spoilt(change: Callable[[Any], None]) -> endpoint_pb2.ClusterLoadAssignment:
    """Two endpoints, of which something is changed."""
    shown = assignment("web-eds", "10.0.0.1", "10.0.0.2")
    change(shown)
    return shown


def deep(shown: Any) -> None:
    value = shown.endpoints[0].lb_endpoints[1].metadata.filter_metadata["envoy.lb"].fields["x"]
    for _ in range(30):
        value = value.list_value.values.add()
    value.number_value = 1


@BOTH
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: socket(it, 1, port_value=0), "endpoints[0].lb_endpoints[1]: address '10.0.0.2:0': expected a port"),
        (lambda it: socket(it, 1, port_value=99999), "endpoints[0].lb_endpoints[1]: address '10.0.0.2:99999': "),
        (lambda it: socket(it, 1, named_port="http"), "endpoints[0].lb_endpoints[1]: address socket_address: "),
        (lambda it: socket(it, 1, address=""), "endpoints[0].lb_endpoints[1]: address ':80': "),
        (lambda it: weigh(it.endpoints[0].lb_endpoints[1], 0), "endpoints[0].lb_endpoints[1]: weight 0: "),
        (lambda it: weigh(it.endpoints[0], 0), "endpoints[0].load_balancing_weight 0: expected 1 or more"),
        (
            lambda it: [weigh(each, 2**32 - 1) for each in it.endpoints[0].lb_endpoints],
            "weights of priority 0, locality 'eu' add up to 8589934590: expected at most 4294967295",
        ),
        (lambda it: setattr(it.endpoints[0], "priority", 129), "endpoints[0].lb_endpoints[0]: priority 129: "),
        (
            lambda it: it.endpoints[0].lb_endpoints[1].metadata.filter_metadata["envoy.lb"].update({"x": math.nan}),
            "endpoints[0].lb_endpoints[1]: metadata envoy.lb: ",
        ),
        (deep, "metadata: expected only text, finite numbers"),
        (lambda it: it.endpoints[0].lb_endpoints.add(), "endpoints[0].lb_endpoints[2]: expected an endpoint"),
        (
            lambda it: it.endpoints[0].leds_cluster_locality_config.SetInParent(),
            "endpoints[0]: expected its endpoints in lb_endpoints",
        ),
    ],
)
async def test_a_refusal_names_what_is_wrong_and_the_old_endpoints_stay(
    plane: ScriptedPlane, heard: Heard, change: Callable[[Any], None], reason: str
) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", spoilt(change))
    assert (await heard.broken()).startswith("refused: ")
    assert reason in (await plane.request(EDS)).error_detail.message
    await plane.send(EDS, "3", assignment("web-eds", "10.0.0.3"))
    assert await heard() == ["10.0.0.3:80"]


def socket(shown: Any, position: int, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(shown.endpoints[0].lb_endpoints[position].endpoint.address.socket_address, name, value)


def weigh(shown: Any, weight: int) -> None:
    shown.load_balancing_weight.value = weight


@BOTH
async def test_a_cluster_whose_deletion_is_ignored_keeps_its_endpoints_and_follows_them(plane: ScriptedPlane) -> None:
    async with following(plane, ignore_resource_deletion=True) as feed, Heard(feed) as heard:
        await settled(plane, heard, "10.0.0.1")
        await plane.send(CDS, "2", cluster("other"), removed=("web",))
        assert await heard.broken() == "cluster 'web': gone, which ignore_resource_deletion passes over"
        ack = await plane.request(CDS)
        assert not ack.HasField("error_detail")
        await plane.send(EDS, "2", assignment("web-eds", "10.0.0.2"))
        assert await heard() == ["10.0.0.2:80"]
        await heard.broken()
        await plane.send(CDS, "3", cluster("other"), cluster("web", "web-eds"))
        assert await heard() == ["10.0.0.2:80"]


@SOTW
async def test_a_cluster_that_never_was_is_not_there_whatever_is_ignored(plane: ScriptedPlane) -> None:
    async with following(plane, ignore_resource_deletion=True) as feed, Heard(feed) as heard:
        await plane.request(CDS)
        await plane.send(CDS, "1", cluster("other"))
        assert await heard() == []


@BOTH
async def test_where_the_client_is_is_said_once(plane: ScriptedPlane) -> None:
    async with following(plane, node_locality="eu/a") as feed, Heard(feed):
        first = await plane.request(CDS)
        assert (first.node.locality.region, first.node.locality.zone) == ("eu", "a")
        await plane.send(CDS, "1", cluster("web"))
        assert not (await plane.request(CDS)).HasField("node")


@BOTH
async def test_what_was_refused_stays_in_doubt_while_other_types_go_on(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", assignment("web-eds", "web.internal"))
    await heard.broken()
    await plane.send(CDS, "2", cluster("web", "web-eds"))
    assert (await heard.broken()).startswith("refused: ")


@BOTH
async def test_a_cluster_that_goes_takes_its_endpoints_with_it_and_may_return(
    plane: ScriptedPlane, heard: Heard
) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(CDS, "2", cluster("other"), removed=("web",))
    assert await heard() == []
    await plane.request(CDS)
    dropped = await plane.request(EDS)
    if plane.delta:
        assert list(dropped.resource_names_unsubscribe) == ["web-eds"]
    else:
        assert list(dropped.resource_names) == []
    await plane.send(CDS, "3", cluster("other"), cluster("web", "web-eds"))
    await plane.request(CDS)
    again = await plane.request(EDS)
    if not plane.delta:
        # go-control-plane does not answer a client that has the version (its issue 431).
        assert (again.version_info, list(again.resource_names)) == ("", ["web-eds"])
    await heard()
    await plane.send(EDS, "1", assignment("web-eds", "10.0.0.1"))
    assert await heard() == ["10.0.0.1:80"]


@SOTW
async def test_endpoints_that_a_response_leaves_out_stay(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", assignment("other", "10.0.0.2"))
    assert await heard() == ["10.0.0.1:80"]
    await plane.send(EDS, "3")
    assert await heard() == ["10.0.0.1:80"]


@DELTA
async def test_endpoints_that_are_removed_are_gone(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", removed=("web-eds",))
    assert await heard() == []


@BOTH
async def test_an_error_of_a_resource_takes_nothing_away_unless_it_is_not_found(
    plane: ScriptedPlane, heard: Heard
) -> None:
    await settled(plane, heard, "10.0.0.1")
    failed = {"resource_name": {"name": "web-eds"}, "error_detail": {"code": 14, "message": "no quorum"}}
    await plane.send(EDS, "2", resource_errors=[failed])
    assert await heard.broken() == "web-eds: no quorum"
    failed["error_detail"] = {"code": 5, "message": "no such resource"}
    await plane.send(EDS, "3", resource_errors=[failed])
    assert await heard() == []


@BOTH
async def test_a_cluster_that_holds_its_endpoints_needs_no_eds(plane: ScriptedPlane, heard: Heard) -> None:
    await plane.request(CDS)
    shown = cluster("web")
    shown.ClearField("eds_cluster_config")
    shown.type = shown.STATIC
    shown.load_assignment.CopyFrom(assignment("web", "10.0.0.7"))
    await plane.send(CDS, "1", shown)
    assert await heard() == ["10.0.0.7:80"]
    await plane.request(CDS)
    assert await plane.quiet()


@BOTH
async def test_a_cluster_of_a_kind_that_has_no_endpoints_is_refused(plane: ScriptedPlane, heard: Heard) -> None:
    await plane.request(CDS)
    shown = cluster("web")
    shown.type = shown.ORIGINAL_DST
    await plane.send(CDS, "1", shown)
    assert "cluster 'web': expected one of type EDS, or with a load_assignment" in await heard.broken()
    assert (await plane.request(CDS)).error_detail.code == 3


@DELTA
async def test_a_name_that_comes_twice_is_refused(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", assignment("web-eds", "10.0.0.2"), assignment("web-eds", "10.0.0.3"))
    assert await heard.broken() == "refused: resource 'web-eds': expected each name once"
    await plane.send(EDS, "2", assignment("web-eds", "10.0.0.2"), removed=("web-eds",))
    assert "expected it among those that are there or are gone" in await heard.broken()


@BOTH
async def test_resources_of_another_type_are_refused(plane: ScriptedPlane, heard: Heard) -> None:
    await settled(plane, heard, "10.0.0.1")
    await plane.send(EDS, "2", cluster("web-eds"))
    assert "expected type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment" in await heard.broken()
    await plane.send(EDS, "3", assignment("web-eds", "10.0.0.3"))
    assert await heard() == ["10.0.0.3:80"]


@BOTH
async def test_eds_alone_asks_for_the_cluster_by_name(plane: ScriptedPlane) -> None:
    async with (
        following(plane, cds=False, cluster="shop", node_id="me", node_metadata={"zone": "a"}) as feed,
        Heard(feed) as heard,
    ):
        first = await plane.request(EDS)
        names = first.resource_names_subscribe if plane.delta else first.resource_names
        assert (list(names), first.node.id, dict(first.node.metadata)) == (["shop"], "me", {"zone": "a"})
        await plane.send(EDS, "1", assignment("shop", "10.0.0.1"))
        assert await heard() == ["10.0.0.1:80"]


@SOTW
async def test_all_that_an_assignment_says_of_an_endpoint(plane: ScriptedPlane) -> None:
    shown = assignment("web", "fd00::1", health_status=2, load_balancing_weight={"value": 7})
    shown.endpoints[0].priority = 1
    shown.endpoints[0].load_balancing_weight.value = 3
    shown.endpoints[0].lb_endpoints[0].endpoint.hostname = "a"
    shown.endpoints[0].lb_endpoints[0].metadata.filter_metadata["envoy.lb"].update({"hash_key": "k", "canary": True})
    shown.endpoints[0].lb_endpoints.add(endpoint={"address": {"pipe": {"path": "/run/web.sock"}}})
    async with following(plane, cds=False) as feed:
        sending = asyncio.ensure_future(plane.answer(EDS, "1", shown))
        membership = await feed.next()
        await sending
    assert membership.locality_weights == {Locality("eu"): 3}
    assert membership.endpoints == (
        Endpoint(
            "[fd00::1]:80",
            weight=7,
            locality="eu",
            priority=1,
            health=Health.UNHEALTHY,
            hostname="a",
            metadata={"hash_key": "k", "canary": True},
        ),
        Endpoint("unix:/run/web.sock", locality="eu", priority=1),
    )


async def test_nobody_at_the_address_is_a_failure() -> None:
    async with Following(XdsFeed(Xds("127.0.0.1:1"), "web", Timing())) as feed:
        assert (await feed.broken()).startswith("UNAVAILABLE: ")


async def test_a_certificate_that_cannot_be_read_is_a_failure() -> None:
    async with Following(XdsFeed(Xds("127.0.0.1:1", ca_file="nowhere.pem"), "web", Timing())) as feed:
        assert (await feed.broken()).startswith("ca_file nowhere.pem: ")
