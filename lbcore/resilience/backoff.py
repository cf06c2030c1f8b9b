"""How long to wait before a retry. Pure; chance is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lbcore.retry import RetryBackOff

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff(RetryBackOff):
    """Before the n-th retry, a random part of base_interval x 2^(n-1), but of no more than max_interval.

    `max_interval` is by default ten times the base.
    Source: Envoy JitteredExponentialBackOffStrategy (source/common/common/backoff_strategy.cc), "full jitter"; Envoy's
    documentation rounds it up to (2^n - 1) times the base.

    >>> [Backoff().delay(retry, lambda: 1.0) for retry in (1, 2, 3, 9)]
    [0.025, 0.05, 0.1, 0.25]
    """

    def delay(self, retry: int, random: Callable[[], float]) -> float:
        """Seconds before that retry, counted from 1; `random` gives numbers from 0 to 1."""
        longest = 10 * self.base_interval if self.max_interval is None else self.max_interval
        doublings = min(retry - 1, 64)
        return random() * min(longest, self.base_interval * 2.0**doublings)
