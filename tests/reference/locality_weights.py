"""Locality-weighted balancing: which share of a level's requests goes to which of its localities.

Envoy common/locality_wrr.cc `effectiveLocalityWeight`: the weight discovery gave, scaled down by the part of the
locality that is eligible, once that falls below 100 / overprovisioning factor. A locality without a weight gets
nothing. Where no locality with a weight has an eligible endpoint, weights are ignored and all eligible ones serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lbcore.model import Endpoint, Health, Locality
from tests.reference.summing import plain_sum


def effective_weight(weight: int, eligible: int, total: int, overprovisioning_factor: int = 140) -> float:
    if total == 0:
        return 0.0
    return weight * min(1.0, overprovisioning_factor / 100.0 * (1.0 * eligible / total))


def locality_distribution(
    members: Sequence[Endpoint],
    eligible: Sequence[Endpoint],
    weights: Mapping[Locality, int],
    overprovisioning_factor: int = 140,
) -> dict[Locality, float] | None:
    """Each locality's share of the requests of one level; None where weights are ignored."""
    effective: dict[Locality, float] = {}
    for locality in sorted({endpoint.locality for endpoint in members}):
        effective[locality] = effective_weight(
            weights.get(locality, 0),
            sum(endpoint.locality == locality for endpoint in eligible),
            sum(endpoint.locality == locality and endpoint.health is not Health.DRAINING for endpoint in members),
            overprovisioning_factor,
        )
    total = plain_sum(effective.values())
    if total == 0.0:
        return None
    return {locality: weight / total for locality, weight in effective.items() if weight > 0.0}
