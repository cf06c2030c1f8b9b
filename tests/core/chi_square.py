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

    Names whose share gives fewer than 5 expected counts are counted as one, or the approximation would mean little.
    """
    total = sum(counts.values())
    strangers = {name: count for name, count in counts.items() if count and not shares.get(name)}
    assert not strangers, f"counts where the expected share is 0: {strangers}"
    large = {name: share * total for name, share in shares.items() if share * total >= 5}
    pairs = [(counts.get(name, 0), expected) for name, expected in large.items()]
    rest = total - sum(expected for _, expected in pairs)
    if rest >= 5:
        pairs.append((total - sum(count for count, _ in pairs), rest))
    statistic = sum((count - expected) ** 2 / expected for count, expected in pairs)
    limit = _quantile(len(pairs) - 1)
    assert statistic <= limit, f"chi-square {statistic:.1f} above {limit:.1f}: counts {counts}, shares {shares}"


def _quantile(degrees: int) -> float:
    if degrees < 1:
        return 1e-6
    spread = 2.0 / (9.0 * degrees)
    return degrees * (1.0 - spread + Z_OF_ONE_IN_A_MILLION * math.sqrt(spread)) ** 3
