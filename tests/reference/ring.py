"""The hash ring: Envoy ring_hash/ring_hash_lb.cc, point for point.

Departures: a ring never holds more than `maximum_size` points (in Envoy rounding can add one); equal points are
ordered by the endpoint's position in the cluster (in Envoy by chance).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lbcore.model import Endpoint
from tests.reference.hash_key import hash_key
from tests.reference.hashing import MASK_64, xxh64
from tests.reference.shares import Share


class Ring(NamedTuple):
    positions: list[int]
    owners: list[Endpoint]

    def choose(self, key_hash: int, attempt: int = 0) -> Endpoint:
        """The owner of the first point at or after the hash, past the end of the first point of all; a retry goes to
        the owner of the point `attempt` further on, whoever that is."""
        index = bisect.bisect_left(self.positions, key_hash & MASK_64) % len(self.positions)
        return self.owners[(index + attempt) % len(self.positions)]


def build_ring(
    shares: Sequence[Share],
    minimum_size: int = 1024,
    maximum_size: int = 8_388_608,
    hash_function: Callable[[bytes], int] = xxh64,
    use_hostname: bool = False,
) -> Ring:
    """The endpoint of the least share gets a whole number of points; the rest follow by running sums of doubles."""
    least = min([1.0, *(share for _, share in shares)])
    scale = min(math.ceil(least * minimum_size) / least, float(maximum_size))
    points: list[tuple[int, Endpoint]] = []
    target = 0.0
    for endpoint, share in shares:
        target += scale * share
        number = 0
        while len(points) < target and len(points) < maximum_size:
            points.append((hash_function(hash_key(endpoint, use_hostname) + b"_%d" % number), endpoint))
            number += 1
    points.sort(key=lambda point: point[0])
    return Ring([position for position, _ in points], [owner for _, owner in points])
