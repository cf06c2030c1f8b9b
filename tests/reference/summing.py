"""Sums of floats as C and C++ make them, one addition after the other: from Python 3.12 on `sum` is more exact."""

from __future__ import annotations

from collections.abc import Iterable


def plain_sum(numbers: Iterable[float]) -> float:
    total = 0.0
    for number in numbers:
        total += number
    return total
