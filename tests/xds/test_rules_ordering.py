"""Rules S19 to S21 and D16 of what a correct xDS server does: how the types of one stream depend on each other."""

from __future__ import annotations

import pytest

from lbcore.routing import Listener, Route
from tests.xds.clients import CDS, EDS, LDS, RDS, DeltaClient, Plane, SotwClient, limit, ports, resources, service


def ingress(*services: str) -> Listener:
    """An Envoy listener whose routes lead to these services."""
    routes = tuple(Route(prefix=f"/{name}", service=name) for name in services)
    return Listener(name="in", address="127.0.0.1:1", routes=routes)


async def test_s19_warming_resends_endpoints_after_their_cluster_changed(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS)
    await client.settle(CDS)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS, "a", "b")
    served.change(service("a", 1, limit=7))
    assert limit(resources(await client.receive(CDS))["a"]) == 7
    await client.ask(EDS, "a", "b")  # as Envoy does while it withholds the ACK of the cluster
    assert ports((await client.settle(EDS, "a", "b"))["a"]) == [1]
    assert await client.quiet()


async def test_s19_endpoints_are_not_resent_when_only_endpoints_changed(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS)
    await client.settle(CDS)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS, "a", "b")
    served.change(service("a", 3))
    assert {name: ports(each) for name, each in (await client.settle(EDS, "a", "b")).items()} == {"a": [3]}
    assert await client.quiet()


@pytest.mark.parametrize("agent", ["envoy", "gRPC C-core linux Python", ""])
async def test_s19_warming_resends_endpoints_on_a_stream_of_their_own(served: Plane, agent: str) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(EDS, user_agent_name=agent)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS, "a", "b")
    served.change(service("a", 1, limit=7))
    assert (await client.settle(EDS, "a", "b")).keys() == {"a"}
    assert await client.quiet()


async def test_d16_warming_resends_endpoints_unasked(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.delta(user_agent_name="envoy")
    await client.ask(CDS)
    await client.settle(CDS)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS)
    served.change(service("a", 1, limit=7))
    assert (await client.settle(CDS))[0].keys() == {"a"}
    changed, removed = await client.settle(EDS)
    assert (changed.keys(), removed) == ({"a"}, [])
    assert await client.quiet()


async def subscribed_sotw(served: Plane, *services: str) -> SotwClient:
    """A client that follows all that Envoy follows, and has accepted all of it."""
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS)
    await client.settle(CDS)
    await client.ask(EDS, *services)
    await client.settle(EDS, *services)
    await client.ask(LDS)
    await client.settle(LDS)
    await client.ask(RDS, "in")
    await client.settle(RDS, "in")
    return client


async def subscribed_delta(served: Plane, *services: str) -> DeltaClient:
    client = served.delta(user_agent_name="envoy")
    for resource_type, names in ((CDS, ()), (EDS, services), (LDS, ()), (RDS, ("in",))):
        await client.ask(resource_type, *names)
        await client.settle(resource_type)
    return client


async def test_s20_one_change_arrives_as_cds_eds_lds_rds(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a", "b")
    other = Listener(name="other", address="127.0.0.1:2", routes=())
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a", "b"), other])
    assert (await client.settle(CDS)).keys() == {"a", "b"}
    assert (await client.settle(EDS, "a", "b")).keys() == {"b"}
    assert (await client.settle(LDS)).keys() == {"in", "other"}
    assert (await client.settle(RDS, "in")).keys() == {"in"}


async def test_s21_a_route_moves_only_after_its_new_cluster_and_endpoints_were_accepted(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a")
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("b")])
    clusters = await client.receive(CDS)
    assert await client.quiet()
    await client.ask(EDS, "a", "b")
    assignments = await client.receive(EDS)
    assert await client.quiet()
    await client.ask(EDS, "a", "b", version=assignments.version_info)
    assert await client.quiet()
    await client.ask(CDS, version=clusters.version_info)
    assert (await client.settle(RDS, "in")).keys() == {"in"}


async def test_s21_a_route_to_a_refused_cluster_is_held(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a")
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("b")])
    await client.receive(CDS)
    await client.refuse(CDS)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS, "a", "b")
    assert await client.quiet()


async def test_s21_a_cluster_goes_only_after_the_route_that_leaves_it_was_accepted(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a", "b")
    served.publish(service("b", 2), listeners=[ingress("b")])
    routes = await client.receive(RDS)
    assert await client.quiet()
    served.publish(service("b", 3), listeners=[ingress("b")])
    await client.settle(EDS, "a", "b")
    assert await client.quiet()
    await client.ask(RDS, "in", version=routes.version_info)
    assert (await client.settle(CDS)).keys() == {"b"}


async def test_s21_a_cluster_without_routes_goes_at_once(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a", "b")
    served.publish(service("a", 1), listeners=[ingress("a")])
    assert (await client.settle(CDS)).keys() == {"a"}


async def test_s21_a_cluster_goes_although_a_route_keeps_leading_to_it(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a", "b")])
    client = await subscribed_sotw(served, "a", "b")
    served.publish(service("a", 1), listeners=[ingress("a", "b")])
    assert (await client.settle(CDS)).keys() == {"a"}


async def test_s21_a_cluster_kept_for_a_route_goes_when_the_route_is_gone(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a", "b")
    served.publish(service("b", 2), listeners=[ingress("b")])
    await client.receive(RDS)
    await client.refuse(RDS, "in")
    assert await client.quiet()
    served.publish(service("b", 2))
    assert await client.settle(LDS) == {}
    assert (await client.settle(CDS)).keys() == {"b"}


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_s21_a_cluster_goes_only_after_the_listener_that_leads_to_it_was_given_up(
    served: Plane, method: str
) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a")])
    client = await (subscribed_sotw if method == "sotw" else subscribed_delta)(served, "a", "b")
    served.publish(service("b", 2))
    listeners = await client.receive(LDS)
    assert not listeners.resources
    if isinstance(client, SotwClient):
        assert await client.quiet()
        await client.ask(LDS, version=listeners.version_info)
        assert (await client.settle(CDS)).keys() == {"b"}
    else:
        assert await client.settle(RDS) == ({}, ["in"])
        assert await client.quiet()
        await client.ask(LDS, nonce=listeners.nonce)
        assert await client.settle(CDS) == ({}, ["a"])
        assert await client.settle(EDS) == ({}, ["a"])


async def test_s21_a_cluster_kept_for_a_route_goes_when_the_route_is_not_wanted_any_more(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a", "b")
    served.publish(service("b", 2), listeners=[ingress("b")])
    await client.receive(RDS)
    await client.ask(RDS)
    await client.taken_in()
    served.publish(service("b", 3), listeners=[ingress("b")])
    assert (await client.settle(CDS)).keys() == {"b"}


async def test_s21_a_route_to_a_service_that_does_not_exist_is_not_held(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a")
    served.publish(service("a", 1), listeners=[ingress("nowhere")])
    assert (await client.settle(RDS, "in")).keys() == {"in"}


async def test_s21_a_route_to_a_cluster_that_the_client_does_not_ask_for_is_not_held(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS, "a")
    await client.settle(CDS, "a")
    await client.ask(RDS, "in")
    await client.settle(RDS, "in")
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a", "b")])
    assert (await client.settle(RDS, "in")).keys() == {"in"}


async def test_s21_delta_a_route_moves_between_the_new_and_the_old_cluster(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await subscribed_delta(served, "a")
    served.publish(service("b", 2), listeners=[ingress("b")])
    changed, removed = await client.settle(CDS)
    assert (changed.keys(), removed) == ({"b"}, [])
    assert await client.quiet()
    await client.ask(EDS, "b")
    assert (await client.settle(EDS))[0].keys() == {"b"}
    assert (await client.receive(RDS)).resources[0].name == "in"
    assert await client.quiet()
    await client.accept(RDS)
    assert await client.settle(CDS) == ({}, ["a"])
    assert await client.settle(EDS) == ({}, ["a"])


async def test_s21_a_route_from_before_a_reconnect_is_held_too(served: Plane) -> None:
    served.publish(service("b", 2), listeners=[ingress("b")])
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS)
    clusters = await client.receive(CDS)
    await client.ask(RDS, "in", version="from an earlier stream")
    assert await client.quiet()
    await client.ask(CDS, version=clusters.version_info)
    assert (await client.settle(RDS, "in")).keys() == {"in"}


async def test_s21_the_first_delivery_of_a_route_waits_for_its_cluster_too(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS)
    clusters = await client.receive(CDS)
    await client.ask(RDS, "in")
    assert await client.quiet()
    await client.ask(CDS, version=clusters.version_info)
    assert (await client.settle(RDS, "in")).keys() == {"in"}


async def test_s21_a_route_to_a_cluster_of_another_target_is_not_held(served: Plane) -> None:
    """A gRPC client asks for routes first, and for the clusters that they name afterwards."""
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(user_agent_name="gRPC C-core")
    await client.ask(CDS, "a")
    await client.receive(CDS)
    await client.ask(RDS, "b")
    assert (await client.settle(RDS, "b")).keys() == {"b"}


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbcore.xds.ordering.HOLD_LIMIT", 3.0)


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_s21_a_client_that_does_not_answer_is_not_waited_for_without_end(served: Plane, method: str) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await (subscribed_sotw if method == "sotw" else subscribed_delta)(served, "a")
    other = await subscribed_sotw(served, "a")
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("b")])
    await client.receive(CDS)
    assert (await other.settle(CDS)).keys() == {"a", "b"}
    await other.ask(EDS, "a", "b")
    await other.settle(EDS, "a", "b")
    assert (await other.settle(RDS, "in")).keys() == {"in"}, "nothing is held for anybody else"
    assert await client.quiet()
    await client.receive(RDS)


@pytest.mark.usefixtures("short_limit")
async def test_s21_a_cluster_is_not_kept_without_end_for_a_client_that_does_not_answer(served: Plane) -> None:
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a", "b")
    served.publish(service("b", 2), listeners=[ingress("b")])
    await client.receive(RDS)
    assert await client.quiet()
    assert (await client.settle(CDS)).keys() == {"b"}


@pytest.mark.usefixtures("short_limit")
async def test_s21_a_client_that_refused_the_new_cluster_keeps_its_route(served: Plane) -> None:
    served.publish(service("a", 1), listeners=[ingress("a")])
    client = await subscribed_sotw(served, "a")
    served.publish(service("a", 1), service("b", 2), listeners=[ingress("b")])
    await client.receive(CDS)
    await client.refuse(CDS)
    assert await client.quiet(4.0)
    served.publish(service("a", 1), service("b", 2, limit=7), listeners=[ingress("b")])
    await client.settle(CDS)
    await client.ask(EDS, "a", "b")
    await client.settle(EDS, "a", "b")
    assert (await client.settle(RDS, "in")).keys() == {"in"}
