"""Zone-aware routing: as much as possible stays in the caller's zone while every endpoint gets about the same.

Envoy load_balancer_impl.cc `regenerateLocalityRoutingStructures`, `calculateLocalityPercentages` and
`tryChooseLocalLocalityHosts`, in whole parts of 10 000. The callers are counted by zone (`local_hosts`), as Envoy
counts its local cluster.

Departure: Envoy does this for priority 0 only; lbcore does it for every priority.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lbcore.model import Endpoint, Locality

WHOLE = 10_000


class Routing(enum.Enum):
    NONE = "no locality routing"
    DIRECT = "all to the local locality"
    RESIDUAL = "a part to the local locality, the rest by residual capacity"


class ZoneRoute(NamedTuple):
    routing: Routing
    shares: dict[Locality, float]  # of the requests of one level; empty where routing is NONE


def zone_route(
    members: Sequence[Endpoint],
    healthy: Sequence[Endpoint],
    local_locality: Locality,
    local_hosts: Mapping[Locality, int],
    min_cluster_size: int = 6,
    force_local_zone_min_size: int | None = None,
    by_weight: bool = False,
) -> ZoneRoute:
    localities = _local_first({endpoint.locality for endpoint in members}, local_locality)
    callers = {locality: count for locality, count in local_hosts.items() if count > 0}
    if (
        len(localities) < 2
        or (len(callers) < 2 and force_local_zone_min_size is None)
        or local_locality not in callers
        or len(healthy) < min_cluster_size
    ):
        return ZoneRoute(Routing.NONE, {})
    by_locality = {here: sum(endpoint.locality == here for endpoint in healthy) for here in localities}
    capacity = {
        here: sum(endpoint.weight if by_weight else 1 for endpoint in healthy if endpoint.locality == here)
        for here in localities
    }
    upstream = {here: WHOLE * count // max(1, sum(capacity.values())) for here, count in capacity.items()}
    local = {
        here: WHOLE * callers.get(here, 0) // sum(callers.values()) if by_locality[here] else 0 for here in localities
    }
    has_local = local_locality in by_locality
    if has_local and (
        (upstream[local_locality] > 0 and upstream[local_locality] >= local[local_locality])
        or (force_local_zone_min_size is not None and by_locality[local_locality] >= force_local_zone_min_size)
    ):
        return ZoneRoute(Routing.DIRECT, {local_locality: 1.0})
    stays = upstream[local_locality] * WHOLE // local[local_locality] if has_local and local[local_locality] else 0
    return ZoneRoute(Routing.RESIDUAL, _residual(localities, local_locality, upstream, local, stays))


def _residual(
    localities: Sequence[Locality],
    local_locality: Locality,
    upstream: Mapping[Locality, int],
    local: Mapping[Locality, int],
    stays: int,
) -> dict[Locality, float]:
    """`stays` of 10 000 stay local; the rest goes where the endpoints' share exceeds the callers', by the excess, or,
    should rounding leave no excess anywhere, to any locality alike."""
    spare = {here: 0 if here == local_locality else max(0, upstream[here] - local[here]) for here in localities}
    if not any(spare.values()):
        spare = dict.fromkeys(localities, 1)
    leaves = (WHOLE - stays) / WHOLE
    shares = {here: leaves * count / sum(spare.values()) for here, count in spare.items() if count}
    if stays:
        shares[local_locality] = shares.get(local_locality, 0.0) + stays / WHOLE
    return shares


def _local_first(localities: set[Locality], local_locality: Locality) -> list[Locality]:
    return sorted(localities, key=lambda locality: (locality != local_locality, locality))
