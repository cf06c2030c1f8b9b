"""Normalised weights for the hashing policies, in doubles: Envoy thread_aware_lb_impl.cc `normalizeWeights`.

All shares of a priority sum to 1, save where a locality that has a weight has no eligible endpoint: its share is lost,
as in Envoy. The order of operations matters to the last bit, because a ring's size depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lbcore.model import Endpoint


class Share(NamedTuple):
    endpoint: Endpoint
    share: float


def flat_shares(endpoints: Sequence[Endpoint], of: float = 1.0) -> list[Share]:
    """Each endpoint's weight as a part of `of`."""
    total = float(sum(endpoint.weight for endpoint in endpoints))
    return [Share(endpoint, endpoint.weight * of / total) for endpoint in endpoints]


def locality_shares(localities: Sequence[Sequence[Endpoint]], locality_weights: Sequence[int]) -> list[Share]:
    """Locality weights first, endpoint weights within; a locality of weight 0 gets nothing, all of them 0 nobody."""
    total = sum(locality_weights)
    shares: list[Share] = []
    for endpoints, weight in zip(localities, locality_weights, strict=True):
        if weight:
            shares += flat_shares(endpoints, weight / total)
    return shares
