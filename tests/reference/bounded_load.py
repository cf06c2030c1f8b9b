"""Consistent hashing with bounded loads: Envoy thread_aware_lb_impl.cc `BoundedLoadHashingLoadBalancer`.

An endpoint is overloaded once it has more requests in flight than its slots; then the others are tried in an order
shuffled by the key's hash (Mirrokni et al., arXiv:1608.01350; the random jumps are arXiv:1908.08762). Where all are
overloaded, the least overloaded one serves: first the hashed one, then in the order of the probe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy

from lbcore.model import Endpoint
from tests.reference.shares import Share


def slots(total_active: int, share: float, balance_factor: int) -> int:
    """How many requests an endpoint may have in flight, when `total_active` are in flight in the cluster."""
    total = ((total_active + 1) * balance_factor + 99) // 100
    return max(1, math.ceil(total * share))


def overload(endpoint: Endpoint, share: float, active: Mapping[str, int], balance_factor: int) -> float:
    """Above 1 the endpoint is overloaded."""
    return active.get(endpoint.address, 0) / slots(sum(active.values()), share, balance_factor)


def probe_order(key_hash: int, count: int) -> list[int]:
    """The shuffle of 0..count-1 that the key's hash seeds; drawn without modulo bias from std::mt19937."""
    generator = numpy.random.RandomState(key_hash & 0xFFFFFFFF)
    order = list(range(count))
    for i in range(count):
        bound = count - i
        draw = bound
        while draw >= bound:
            draw = int(generator.randint(0, 2**32, dtype=numpy.uint32)) // (2**32 // bound)
        order[i], order[i + draw] = order[i + draw], order[i]
    return order


def choose_bounded(
    preferred: Endpoint, shares: Sequence[Share], key_hash: int, active: Mapping[str, int], balance_factor: int
) -> Endpoint:
    """`preferred` (what the ring or the table says), or who takes its place while it is overloaded."""
    share_of = {endpoint.address: share for endpoint, share in shares}
    least, least_overload = preferred, overload(preferred, share_of[preferred.address], active, balance_factor)
    if least_overload <= 1.0:
        return preferred
    for index in probe_order(key_hash, len(shares)):
        endpoint, share = shares[index]
        if endpoint.address == preferred.address:
            continue
        candidate = overload(endpoint, share, active, balance_factor)
        if candidate <= 1.0:
            return endpoint
        if candidate < least_overload:
            least, least_overload = endpoint, candidate
    return least
