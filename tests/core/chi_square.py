"""Pearson's chi-square test, so that a statistical claim in a test has one stated error probability.

The quantile is Wilson and Hilferty's approximation (1931), good to a percent for the degrees of freedom used here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

Z_OF_ONE_IN_A_MILLION = 4.753


Name = TypeVar("Name", bound=Hashable)


def assert_follows(counts: Mapping[Name, int], shares: Mapping[Name, float]) -> None:
    """Fails if the counts would come out of these shares by chance less than once in a million times.

    Each share that is not 0 needs to give 5 or more expected counts, or the approximation means little.
    """
    total = sum(counts.values())
    strangers = {name: count for name, count in counts.items() if count and not shares.get(name)}
    assert not strangers, f"counts where the expected share is 0: {strangers}"
    expected = {name: share * total for name, share in shares.items() if share > 0.0}
    assert min(expected.values()) >= 5, "too few samples for a chi-square test"
    statistic = sum((counts.get(name, 0) - mean) ** 2 / mean for name, mean in expected.items())
    limit = _quantile(len(expected) - 1)
    assert statistic <= limit, f"chi-square {statistic:.1f} above {limit:.1f}: counts {counts}, expected {expected}"


def _quantile(degrees: int) -> float:
    if degrees == 0:
        return 0.0
    spread = 2.0 / (9.0 * degrees)
    return degrees * (1.0 - spread + Z_OF_ONE_IN_A_MILLION * math.sqrt(spread)) ** 3
