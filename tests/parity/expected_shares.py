"""Whether counted picks are what shares of the traffic foretell, within what chance allows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

__all__ = ["unexpected_counts"]

Choice = TypeVar("Choice", bound=Hashable)
_DEVIATIONS = 5.0  # of a binomial count: one in a million lies beyond
_SLACK = 5.0  # picks, for counts too small to be normally distributed


def unexpected_counts(
    picks: Iterable[Choice], shares: Mapping[Choice, float], *, tolerance: float | None = None
) -> dict[Choice, tuple[int, float]]:
    """Counts that chance does not explain, beside what was expected; choices that have no share must not appear.

    Args:
        tolerance: picks by which a count may differ, for orders that are not random.
    """
    counted = Counter(picks)
    total = sum(counted.values())
    wrong = {}
    for choice in counted.keys() | shares.keys():
        share = shares.get(choice, 0.0)
        allowed = tolerance
        if allowed is None:
            allowed = _DEVIATIONS * math.sqrt(total * share * (1.0 - share)) + _SLACK
        if share == 0.0:
            allowed = 0.0
        if abs(counted[choice] - total * share) > allowed:
            wrong[choice] = (counted[choice], total * share)
    return wrong
