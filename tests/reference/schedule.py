"""What a weighted round robin must hold, whatever algorithm orders it: exact shares in each cycle, spread evenly.

A cycle is as long as the sum of the weights divided by their greatest common divisor. The measure of evenness is the
lag: how far an endpoint's count ever is from its fair share, in requests (Tijdeman 1980: an order with a lag below 1
exists for any weights; a heap of deadlines can lag by as many requests as there are endpoints).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction


def cycle_counts(weights: Mapping[Hashable, int]) -> dict[Hashable, int]:
    """How often each name comes in one cycle."""
    divisor = math.gcd(*weights.values())
    return {name: weight // divisor for name, weight in weights.items()}


def largest_lag(picks: Sequence[Hashable], weights: Mapping[Hashable, int]) -> Fraction:
    """The greatest |count - fair share| of any name after any stretch that begins with the first pick."""
    total = sum(weights.values())
    counts = dict.fromkeys(weights, 0)
    largest = Fraction(0)
    for number, name in enumerate(picks, start=1):
        counts[name] += 1
        for each, count in counts.items():
            largest = max(largest, abs(count - Fraction(number * weights[each], total)))
    return largest
