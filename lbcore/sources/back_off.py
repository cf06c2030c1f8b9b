"""How long to wait before a source that failed is asked again."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["BackOff"]

_BASE = 0.5  # seconds; with the bound those of Envoy's gRPC mux (RetryInitialDelayMs, RetryMaxDelayMs)
_MOST = 30.0  # seconds


class BackOff:
    """Waits that double with each failure, each spread over its upper half so that clients do not return together.

    >>> back_off = BackOff(lambda: 0.5)
    >>> [back_off.next() for _ in range(4)]
    [0.375, 0.75, 1.5, 3.0]
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        longest = min(_MOST, _BASE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return longest * (1.0 - 0.5 * self._random())

    def reset(self) -> None:
        """The source answers again."""
        self._failures = 0
