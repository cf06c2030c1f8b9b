"""The order of a weighted round robin: earliest deadline first, as Envoy's common/upstream/edf_scheduler.h.

The k-th pick of an endpoint of weight w is due at k / w. A cycle is as long as the sum of the weights divided by their
greatest common divisor, and holds each endpoint as often as its weight says so divided.

Departures: deadlines are exact fractions, and of equal ones the lighter endpoint comes first, then the one that stands
first in the cluster (in Envoy floating-point rounding and the order of insertion decide); the order is a fixed cycle
begun anywhere (in Envoy a heap advanced by up to a whole rotation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def turns(weights: Sequence[int]) -> list[int]:
    """How often each comes in one cycle."""
    divisor = math.gcd(*weights)
    return [weight // divisor for weight in weights]


def cycle(weights: Sequence[int]) -> list[int]:
    """One cycle, of positions in `weights`."""
    due = [
        (Fraction(k, count), count, position)
        for position, count in enumerate(turns(weights))
        for k in range(1, count + 1)
    ]
    return [position for _, _, position in sorted(due)]


def is_rotation(picks: Sequence[int], order: Sequence[int]) -> bool:
    """Whether the picks are the order, begun anywhere and repeated."""
    length = len(order)
    return any(
        all(pick == order[(start + number) % length] for number, pick in enumerate(picks)) for start in range(length)
    )
