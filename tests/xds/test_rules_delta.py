"""Rules D1 to D20 of what a correct xDS server does, as a client sees it: delta."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbcore.model import Endpoint
from lbcore.xds.observer import XdsObserver
from lbcore.xds.resource_type import ResourceType
from tests.xds.clients import CDS, EDS, RDS, Plane, limit, plane, ports, resources, service, versions

Surface = Callable[[ResourceType], ResourceType | None]


async def test_d1_resources_come_with_name_version_and_nonce(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a", "b")
    response = await client.receive(EDS)
    assert {name: ports(each) for name, each in resources(response).items()} == {"a": [1], "b": [2]}
    assert all(versions(response).values())
    assert response.nonce


@pytest.mark.parametrize("resource_type", list(ResourceType), ids=lambda each: each.name)
async def test_d2_an_ack_is_followed_by_silence(served: Plane, only: Surface, resource_type: ResourceType) -> None:
    served.publish(service("a", 1))
    client = served.delta(only(resource_type))
    await client.ask(resource_type, "a")
    await client.settle(resource_type)
    assert await client.quiet()


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_d3_a_response_holds_only_what_changed(served: Plane, only: Surface, resource_type: ResourceType) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(resource_type))
    await client.ask(resource_type, "a", "b")
    await client.settle(resource_type)
    served.change(service("a", 3, limit=3))
    changed, removed = await client.settle(resource_type)
    assert (changed.keys(), removed) == ({"a"}, [])


async def test_d4_what_was_refused_is_not_sent_again_and_the_rest_flows(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a", "b")
    await client.receive(EDS)
    await client.refuse(EDS)
    assert await client.quiet()
    served.change(service("b", 3))
    assert (await client.settle(EDS))[0].keys() == {"b"}


async def test_d4_a_nack_is_reported(only: Surface) -> None:
    class Nacks(XdsObserver):
        def __init__(self) -> None:
            self.heard: list[tuple[str, ...]] = []

        def nacked(self, *about: str) -> None:
            self.heard.append(about)

    nacks = Nacks()
    async with plane(observer=nacks) as running:
        running.publish(service("a", 1))
        client = running.delta(only(EDS))
        await client.ask(EDS, "a")
        response = await client.receive(EDS)
        await client.refuse(EDS, error="port is closed")
        assert await client.quiet(0.1)
    assert nacks.heard == [("raw", EDS.type_url, response.system_version_info, "port is closed", response.nonce)]


async def test_d5_a_name_that_does_not_exist_is_named_as_gone_and_pushed_when_it_does(
    served: Plane, only: Surface
) -> None:
    client = served.delta(only(EDS))
    served.publish(service("a", 1))
    await client.ask(EDS, "z")
    assert await client.settle(EDS) == ({}, ["z"])
    served.change(service("z", 2))
    assert (await client.settle(EDS))[0].keys() == {"z"}


async def test_d6_a_name_asked_for_again_is_sent_again(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a")
    await client.settle(EDS)
    await client.ask(EDS, "a")
    assert (await client.settle(EDS))[0].keys() == {"a"}


async def test_d7_a_name_dropped_is_not_followed(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a", "b")
    await client.settle(EDS)
    await client.ask(EDS, drop=["a", "unknown"])
    await client.taken_in()
    served.change(service("a", 3))
    assert await client.quiet()


async def test_d8_a_name_dropped_beside_a_wildcard_is_answered(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1))
    client = served.delta(only(CDS))
    await client.ask(CDS, "*", "a", "z")
    await client.settle(CDS)
    await client.ask(CDS, drop=["a"])
    changed, removed = await client.settle(CDS)
    assert (changed.keys(), removed) == ({"a"}, [])
    await client.ask(CDS, drop=["z"])
    assert await client.settle(CDS) == ({}, ["z"])


async def test_d9_a_wildcard_over_nothing_is_answered(served: Plane, only: Surface) -> None:
    served.publish()
    client = served.delta(only(CDS))
    await client.ask(CDS)
    assert await client.settle(CDS) == ({}, [])


async def test_d10_a_wildcard_dropped_does_not_come_back(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(CDS))
    await client.ask(CDS)
    assert (await client.settle(CDS))[0].keys() == {"a", "b"}
    await client.ask(CDS, "a")
    await client.settle(CDS)
    await client.ask(CDS, drop=["*"])
    await client.taken_in()
    served.publish(service("a", 1, limit=1), service("b", 2, limit=1))
    assert (await client.settle(CDS))[0].keys() == {"a"}
    await client.ask(CDS, drop=["a"])
    await client.ask(CDS)
    await client.taken_in()
    served.publish(service("a", 1, limit=2), service("b", 2, limit=2))
    assert await client.quiet()


@pytest.mark.parametrize(("resource_type", "names"), [(CDS, ()), (EDS, ("a", "b", "c"))])
async def test_d11_a_client_that_reconnects_is_told_only_the_difference(
    served: Plane, only: Surface, resource_type: ResourceType, names: tuple[str, ...]
) -> None:
    served.publish(service("a", 1), service("b", 2), service("c", 3))
    before = served.delta(only(resource_type))
    await before.ask(resource_type, *names)
    had = versions(await before.receive(resource_type))
    served.publish(service("a", 1), service("b", 4, limit=4))
    after = served.delta(only(resource_type))
    await after.ask(resource_type, *names, has=had)
    changed, removed = await after.settle(resource_type)
    assert (changed.keys(), removed) == ({"b"}, ["c"])


async def test_d12_versions_in_a_later_request_do_not_count(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a", "b")
    had = versions(await client.receive(EDS))
    await client.accept(EDS)
    await client.ask(EDS, drop=["b"])
    await client.taken_in()
    await client.ask(EDS, "b", has=had)
    assert (await client.settle(EDS))[0].keys() == {"b"}


async def test_d13_a_subscription_with_a_stale_nonce_counts(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a")
    await client.settle(EDS)
    await client.ask(EDS, "b", nonce="stale")
    assert (await client.settle(EDS))[0].keys() == {"b"}


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_d14_a_removal_is_told_once_and_a_return_is_pushed(
    served: Plane, only: Surface, resource_type: ResourceType
) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(resource_type))
    await client.ask(resource_type, "a", "b")
    await client.settle(resource_type)
    served.remove("a")
    assert await client.settle(resource_type) == ({}, ["a"])
    served.change(service("b", 3, limit=3))
    changed, removed = await client.settle(resource_type)
    assert (changed.keys(), removed) == ({"b"}, [])
    served.change(service("a", 1))
    assert (await client.settle(resource_type))[0].keys() == {"a"}


async def test_d15_a_name_is_never_twice_in_a_response(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a", "a", "z", "z")
    response = await client.receive(EDS)
    assert [each.name for each in response.resources] == ["a"]
    assert list(response.removed_resources) == ["z"]


async def test_d17_unsubscribed_endpoints_of_a_removed_cluster_are_never_sent_again(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta()
    await client.ask(CDS)
    await client.settle(CDS)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS)
    served.remove("b")
    assert await client.settle(CDS) == ({}, ["b"])
    await client.ask(EDS, drop=["b"])
    assert (await client.settle(EDS))[1] == ["b"]  # it was gone before the client said so
    served.change(service("b", 3))
    assert (await client.settle(CDS))[0].keys() == {"b"}
    assert await client.quiet()


async def test_d18_a_replica_sends_nothing_to_a_client_that_is_current(only: Surface) -> None:
    content = [service("a", 1), service("b", 2, limit=7)]
    for resource_type, names in ((CDS, ()), (EDS, ("a", "b"))):
        async with plane() as one, plane() as other:
            one.publish(*content)
            other.publish(*reversed(content))
            client = one.delta(only(resource_type))
            await client.ask(resource_type, *names)
            had = versions(await client.receive(resource_type))
            failed_over = other.delta(only(resource_type))
            await failed_over.ask(resource_type, *names, has=had)
            assert await failed_over.quiet()


async def test_d19_an_answer_above_4_mib_is_split(served: Plane, only: Surface) -> None:
    def large(name: str) -> tuple[Endpoint, ...]:
        padding = {"padding": "x" * 1000}
        return tuple(Endpoint(f"10.0.{i >> 8}.{i & 255}:{len(name)}", metadata=padding) for i in range(1000))

    names = [f"large-{number}" for number in range(6)]
    served.publish(*(service(name, endpoints=large(name)) for name in names))
    client = served.delta(only(EDS))
    await client.ask(EDS, *names)
    received: list[str] = []
    nonces: list[str] = []
    while len(received) < len(names):
        response = await client.receive(EDS)
        assert response.ByteSize() < 4 << 20
        received += resources(response)
        nonces.append(response.nonce)
    assert sorted(received) == names
    assert len(set(nonces)) == len(nonces) > 1


async def test_d20_subscribed_and_unsubscribed_at_once_is_unsubscribed(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(only(EDS))
    await client.ask(EDS, "a", "b", drop=["a"])
    assert (await client.settle(EDS))[0].keys() == {"b"}
    served.change(service("a", 3))
    assert await client.quiet()


async def test_s24_delta_changes_behind_an_unanswered_response_become_one(served: Plane, only: Surface) -> None:
    served.publish(service("a", 1))
    client = served.delta(only(CDS))
    await client.ask(CDS, "a")
    await client.receive(CDS)
    for number in range(2, 7):
        served.change(service("a", 1, limit=number))
        assert await client.quiet(0.05)
    await client.accept(CDS)
    assert limit((await client.settle(CDS))[0]["a"]) == 6
    assert await client.quiet()


@pytest.mark.parametrize("resource_type", [EDS, RDS], ids=lambda each: each.name)
async def test_s14_delta_endpoints_and_routes_have_no_wildcard(
    served: Plane, only: Surface, resource_type: ResourceType
) -> None:
    served.publish(service("foo", 1))
    client = served.delta(only(resource_type))
    await client.ask(resource_type)
    await client.ask(resource_type, "*")
    assert await client.quiet()
