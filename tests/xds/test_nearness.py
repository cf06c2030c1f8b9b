"""Views by the client's locality: who is near, who shares a view, and that each client is sent its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Locality
from lbcore.xds.nearness import NOWHERE, distance, viewpoint
from tests.xds.clients import CDS, EDS, Plane, resources

EU_A1, EU_A2, EU_B, US = (Locality.parse(text) for text in ("eu/a/1", "eu/a/2", "eu/b", "us/c"))
WEB = ServiceSnapshot(
    name="web",
    endpoints=tuple(
        Endpoint(f"10.0.0.{number}:80", locality=place) for number, place in enumerate((US, EU_B, EU_A1, EU_A2), 1)
    ),
    nearest_first=True,
)
places = st.builds(Locality, *[st.sampled_from(["", "a", "b", "b~"])] * 3)


@pytest.mark.parametrize(("place", "expected"), [(EU_A1, 0), (EU_A2, 1), (EU_B, 2), (US, 3), (NOWHERE, 3)])
def test_distance_counts_sub_zone_zone_and_region(place: Locality, expected: int) -> None:
    assert distance(EU_A1, place) == expected


def test_nothing_is_near_to_nowhere() -> None:
    assert distance(NOWHERE, NOWHERE) == 3


@given(locality=places, known=st.frozensets(places, max_size=5))
def test_a_viewpoint_sees_every_place_as_the_client_does(locality: Locality, known: frozenset[Locality]) -> None:
    seen = viewpoint(locality, known)
    assert [distance(seen, place) for place in known] == [distance(locality, place) for place in known]
    assert viewpoint(seen, known) == seen


def node(locality: Locality) -> dict[str, object]:
    place = {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone}
    return {"user_agent_name": "envoy", "locality": place}


def priorities(assignment: object) -> dict[str, int]:
    """The priority of each endpoint's last number."""
    return {
        endpoint.endpoint.address.socket_address.address[-1]: group.priority
        for group in assignment.endpoints  # type: ignore[attr-defined]
        for endpoint in group.lb_endpoints
    }


@pytest.mark.parametrize("method", ["sotw", "delta"])
@pytest.mark.parametrize(
    ("locality", "expected"),
    [
        (EU_A1, {"3": 0, "4": 1, "2": 2, "1": 3}),
        (Locality.parse("eu/b/9"), {"2": 0, "3": 1, "4": 1, "1": 2}),
        (Locality.parse("us/d"), {"1": 0, "2": 1, "3": 1, "4": 1}),
        (Locality.parse("asia"), {"1": 0, "2": 0, "3": 0, "4": 0}),
        (NOWHERE, {"1": 0, "2": 0, "3": 0, "4": 0}),
    ],
)
async def test_priorities_follow_the_clients_locality(
    served: Plane, method: str, locality: Locality, expected: dict[str, int]
) -> None:
    served.publish(WEB)
    client = getattr(served, method)(**node(locality))
    await client.ask(EDS, "web")
    assert priorities(resources(await client.receive(EDS))["web"]) == expected


async def test_a_view_follows_changes_and_is_given_up_with_the_setting(served: Plane) -> None:
    served.publish(WEB, replace(WEB, name="api", nearest_first=False))
    client = served.sotw(**node(EU_A1))
    await client.ask(CDS)
    await client.settle(CDS)
    await client.ask(EDS, "web", "api")
    assert {
        name: max(priorities(each).values()) for name, each in (await client.settle(EDS, "web", "api")).items()
    } == {
        "web": 3,
        "api": 0,
    }
    served.change(replace(WEB, endpoints=WEB.endpoints[:3]))
    assert priorities((await client.settle(EDS, "web", "api"))["web"]) == {"3": 0, "2": 1, "1": 2}
    served.change(replace(WEB, endpoints=WEB.endpoints[:3], nearest_first=False))
    assert priorities((await client.settle(EDS, "web", "api"))["web"]) == {"3": 0, "2": 0, "1": 0}
    served.change(replace(WEB, name="api"))
    assert (await client.settle(EDS, "web", "api")).keys() == {"api"}


async def test_nearness_comes_within_a_priority(served: Plane) -> None:
    first = tuple(replace_priority(each, 0 if index < 2 else 1) for index, each in enumerate(WEB.endpoints))
    served.publish(replace(WEB, endpoints=first))
    client = served.sotw(**node(EU_A1))
    await client.ask(EDS, "web")
    assert priorities((await client.settle(EDS, "web"))["web"]) == {"2": 0, "1": 1, "3": 2, "4": 3}


def replace_priority(endpoint: Endpoint, priority: int) -> Endpoint:
    return Endpoint(endpoint.address, locality=endpoint.locality, priority=priority)
