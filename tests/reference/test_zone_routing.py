"""Zone routing against the worked examples in Envoy's comments and documentation (zone_aware.rst)."""

from __future__ import annotations

import pytest

from lbcore.model import Endpoint, Locality
from tests.reference.zone_routing import Routing, ZoneRoute, zone_route

A, B, C = Locality(zone="A"), Locality(zone="B"), Locality(zone="C")


def endpoints(counts: dict[Locality, int]) -> list[Endpoint]:
    return [
        Endpoint(f"10.0.{number}.{i + 1}:80", locality=here)
        for number, (here, count) in enumerate(counts.items())
        for i in range(count)
    ]


def route(upstream: dict[Locality, int], local: dict[Locality, int], **settings: int) -> ZoneRoute:
    members = endpoints(upstream)
    return zone_route(members, members, A, local, **settings)


def test_residual_capacity_shares_what_does_not_stay_local() -> None:
    result = route({A: 5, B: 10, C: 5}, {A: 4, B: 4, C: 2})
    assert result.routing is Routing.RESIDUAL
    assert result.shares == pytest.approx({A: 0.625, B: 0.25, C: 0.125})


def test_all_stays_local_where_the_local_share_suffices() -> None:
    assert route({A: 4, B: 4}, {A: 1, B: 1}).routing is Routing.DIRECT


def test_nothing_stays_local_without_an_endpoint_there() -> None:
    assert route({B: 6, C: 6}, {A: 2, B: 1, C: 1}).shares == pytest.approx({B: 0.5, C: 0.5})


@pytest.mark.parametrize(
    ("upstream", "local"),
    [
        ({A: 8}, {A: 1, B: 1}),
        ({A: 4, B: 4}, {A: 2}),
        ({A: 4, B: 4}, {B: 1, C: 1}),
        ({A: 2, B: 3}, {A: 1, B: 1}),
    ],
    ids=["one upstream zone", "one local zone", "no local caller", "fewer than min_cluster_size"],
)
def test_zones_do_not_matter_where_envoy_cannot_tell(upstream: dict[Locality, int], local: dict[Locality, int]) -> None:
    assert route(upstream, local).routing is Routing.NONE


def test_force_local_zone_keeps_all_while_enough_endpoints_are_there() -> None:
    upstream, local = {A: 2, B: 8}, {A: 9, B: 1}
    assert route(upstream, local, force_local_zone_min_size=2).routing is Routing.DIRECT
    assert route(upstream, local, force_local_zone_min_size=3).routing is Routing.RESIDUAL
