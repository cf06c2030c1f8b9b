"""Rules S1 to S18 and S22 to S25 of what a correct xDS server does, as a client sees it: state of the world."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbcore.routing import Listener
from lbcore.xds.observer import XdsObserver
from lbcore.xds.resource_type import ResourceType
from tests.xds.clients import CDS, EDS, LDS, RDS, Plane, limit, plane, ports, resources, service

Surface = Callable[[ResourceType], ResourceType | None]


async def test_s1_all_that_a_first_request_names_arrives(served: Plane, only: Surface) -> None:
    served.publish(service("foo", 1), service("bar", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "foo", "bar")
    response = await client.receive(EDS)
    assert {name: ports(each) for name, each in resources(response).items()} == {"foo": [1], "bar": [2]}
    assert response.version_info
    assert response.nonce


@pytest.mark.parametrize("resource_type", list(ResourceType), ids=lambda each: each.name)
async def test_s2_an_ack_is_followed_by_silence(served: Plane, only: Surface, resource_type: ResourceType) -> None:
    served.publish(service("foo", 1))
    client = served.sotw(only(resource_type))
    await client.ask(resource_type, "foo")
    await client.settle(resource_type, "foo")
    assert await client.quiet()


async def test_s3_a_changed_endpoint_comes_with_a_new_version_and_nonce(served: Plane, only: Surface) -> None:
    served.publish(service("foo", 1), service("bar", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "foo", "bar")
    await client.settle(EDS, "foo", "bar")
    before = client.versions[EDS], client.nonces[EDS]
    served.change(service("foo", 3))
    assert ports((await client.settle(EDS, "foo", "bar"))["foo"]) == [3]
    assert client.versions[EDS] != before[0]
    assert client.nonces[EDS] != before[1]


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_s4_what_was_refused_is_not_sent_again_but_the_next_change_is(
    served: Plane, only: Surface, resource_type: ResourceType
) -> None:
    served.publish(service("foo", 1))
    client = served.sotw(only(resource_type))
    await client.ask(resource_type, "foo")
    await client.receive(resource_type)
    await client.refuse(resource_type, "foo")
    assert await client.quiet()
    served.change(service("foo", 3, limit=3))
    newest = (await client.settle(resource_type, "foo"))["foo"]
    assert (limit(newest) if resource_type is CDS else ports(newest)[0]) == 3


async def test_s5_a_nack_is_reported_with_all_that_is_known_of_it(only: Surface) -> None:
    class Nacks(XdsObserver):
        def __init__(self) -> None:
            self.heard: list[tuple[str, ...]] = []

        def nacked(self, *about: str) -> None:
            self.heard.append(about)

        def acked(self, *_: str) -> None:
            raise AssertionError("a NACK is no ACK")

    nacks = Nacks()
    async with plane(observer=nacks) as running:
        running.publish(service("foo", 1))
        client = running.sotw(only(EDS))
        await client.ask(EDS, "foo")
        response = await client.receive(EDS)
        await client.refuse(EDS, "foo", error="port is closed")
        assert await client.quiet(0.1)
    assert nacks.heard == [("raw", EDS.type_url, response.version_info, "port is closed", response.nonce)]


async def test_s6_a_change_of_names_beside_an_older_version_is_no_nack(only: Surface) -> None:
    class Nacks(XdsObserver):
        count = 0

        def nacked(self, *_: str) -> None:
            self.count += 1

    nacks = Nacks()
    async with plane(observer=nacks) as running:
        running.publish(service("foo", 1), service("bar", 2))
        client = running.sotw(only(EDS))
        await client.ask(EDS, "foo")
        await client.receive(EDS)
        await client.ask(EDS, "foo", "bar", version="older")
        assert list(await client.settle(EDS, "foo", "bar")) == ["bar"]
    assert nacks.count == 0


async def test_s7_a_request_with_a_stale_nonce_is_not_answered(served: Plane, only: Surface) -> None:
    served.publish(service("foo", 1), service("bar", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "foo")
    await client.settle(EDS, "foo")
    stale = client.nonces[EDS]
    served.change(service("foo", 3))
    await client.receive(EDS)
    await client.ask(EDS, "foo", "bar", nonce=stale)
    assert await client.quiet()
    await client.ask(EDS, "foo", "bar")
    assert list(await client.settle(EDS, "foo", "bar")) == ["bar"]


async def test_s8_a_new_name_is_delivered_although_the_version_is_current(served: Plane, only: Surface) -> None:
    served.publish(service("foo", 1), service("bar", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "foo")
    await client.settle(EDS, "foo")
    await client.ask(EDS, "foo", "bar")
    assert "bar" in await client.settle(EDS, "foo", "bar")


async def test_s9_a_name_taken_up_again_at_the_same_version_is_delivered(served: Plane, only: Surface) -> None:
    served.publish(service("foo", 1), service("bar", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "foo", "bar")
    await client.settle(EDS, "foo", "bar")
    await client.ask(EDS, "foo")
    await client.ask(EDS, "foo", "bar")
    assert "bar" in await client.settle(EDS, "foo", "bar")


async def test_s10_a_name_dropped_is_not_followed(served: Plane, only: Surface) -> None:
    served.publish(service("foo", 1), service("bar", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "foo", "bar")
    await client.settle(EDS, "foo", "bar")
    await client.ask(EDS, "foo")
    await client.taken_in()
    served.change(service("bar", 3))
    assert await client.quiet()


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_s11_no_names_after_names_unsubscribe_from_all(
    served: Plane, only: Surface, resource_type: ResourceType
) -> None:
    served.publish(service("foo", 1))
    client = served.sotw(only(resource_type))
    await client.ask(resource_type, "foo")
    await client.settle(resource_type, "foo")
    await client.ask(resource_type)
    await client.taken_in()
    served.publish(service("foo", 3), service("new", 4))
    assert await client.quiet()


@pytest.mark.parametrize("names", [(), ("*",)])
async def test_s12_both_wildcards_get_everything(served: Plane, only: Surface, names: tuple[str, ...]) -> None:
    listeners = [Listener(name="in", address="127.0.0.1:1", routes=())]
    served.publish(service("foo", 1), service("bar", 2), listeners=listeners)
    for resource_type, everything in ((CDS, {"foo", "bar"}), (LDS, {"in"})):
        client = served.sotw(only(resource_type))
        await client.ask(resource_type, *names)
        assert (await client.settle(resource_type, *names)).keys() == everything


async def test_s13_wildcard_to_wildcard_and_name_to_name_to_nothing(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(only(CDS))
    await client.ask(CDS)
    assert (await client.settle(CDS)).keys() == {"a", "b"}
    await client.ask(CDS, "*", "a")
    served.change(service("c", 3))
    assert (await client.settle(CDS, "*", "a")).keys() == {"a", "b", "c"}
    await client.ask(CDS, "a")
    await client.taken_in()
    served.change(service("d", 4))
    assert await client.quiet()
    served.change(service("a", 1, limit=1))
    assert (await client.settle(CDS, "a")).keys() == {"a"}
    await client.ask(CDS)
    await client.taken_in()
    served.change(service("a", 1, limit=2))
    assert await client.quiet()


@pytest.mark.parametrize("resource_type", [EDS, RDS], ids=lambda each: each.name)
async def test_s14_endpoints_and_routes_have_no_wildcard(
    served: Plane, only: Surface, resource_type: ResourceType
) -> None:
    served.publish(service("foo", 1))
    client = served.sotw(only(resource_type))
    await client.ask(resource_type)
    assert await client.quiet()


async def test_s15_a_cluster_response_holds_all_clusters(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2), service("c", 3))
    client = served.sotw(only(CDS))
    await client.ask(CDS)
    await client.settle(CDS)
    served.change(service("b", 2, limit=1))
    assert (await client.settle(CDS)).keys() == {"a", "b", "c"}


async def test_s16_a_removed_cluster_is_left_out_and_the_last_leaves_an_empty_response(
    served: Plane, only: Surface
) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(only(CDS))
    await client.ask(CDS)
    await client.settle(CDS)
    served.remove("a")
    assert (await client.settle(CDS)).keys() == {"b"}
    served.remove("b")
    assert await client.settle(CDS) == {}


async def test_s16_removed_endpoints_are_passed_over_in_silence(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "a", "b")
    await client.settle(EDS, "a", "b")
    served.remove("a")
    assert await client.quiet()


async def test_s17_a_name_without_endpoints_stalls_nothing_and_is_pushed_when_it_has_some(
    served: Plane, only: Surface
) -> None:
    served.publish(service("a", 1))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "a", "later")
    assert (await client.settle(EDS, "a", "later")).keys() == {"a"}
    assert await client.quiet()
    served.change(service("later", 2))
    assert (await client.settle(EDS, "a", "later")).keys() == {"later"}


async def test_s18_a_name_asked_for_twice_is_sent_once(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1))
    for resource_type in (CDS, EDS):
        client = served.sotw(only(resource_type))
        await client.ask(resource_type, "a", "a")
        response = await client.receive(resource_type)
        assert len(response.resources) == 1


async def test_s22_a_client_that_reconnects_gets_its_endpoints(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1))
    before = served.sotw(only(EDS))
    await before.ask(EDS, "a")
    await before.settle(EDS, "a")
    after = served.sotw(only(EDS))
    await after.ask(EDS, "a", version=before.versions[EDS])
    assert (await after.settle(EDS, "a")).keys() == {"a"}


async def test_s23_another_content_has_another_version_also_after_a_restart(only: Surface) -> None:
    seen = []
    for port in (1, 2, 1):
        async with plane() as restarted:
            restarted.publish(service("a", port))
            client = restarted.sotw(only(EDS))
            await client.ask(EDS, "a", version=seen[-1] if seen else "")
            assert ports((await client.settle(EDS, "a"))["a"]) == [port]
            seen.append(client.versions[EDS])
    assert seen[0] != seen[1]
    assert seen[0] == seen[2]


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_s24_changes_behind_an_unanswered_response_become_one(
    served: Plane, only: Surface, resource_type: ResourceType
) -> None:
    served.publish(service("a", 1))
    client = served.sotw(only(resource_type))
    await client.ask(resource_type, "a")
    response = await client.receive(resource_type)
    for port in range(2, 7):
        served.change(service("a", port, limit=port))
        assert await client.quiet(0.05)
    await client.ask(resource_type, "a", version=response.version_info)
    newest = (await client.settle(resource_type, "a"))["a"]
    assert (limit(newest) if resource_type is CDS else ports(newest)[0]) == 6
    assert await client.quiet()


async def test_s25_an_ack_with_a_new_name_is_answered_once(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "a")
    response = await client.receive(EDS)
    await client.ask(EDS, "a", "b", version=response.version_info)
    assert (await client.settle(EDS, "a", "b")).keys() == {"b"}
    assert await client.quiet()
