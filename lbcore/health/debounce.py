"""One update a window: the first change goes out at once, what follows waits for the end of the window.

So an endpoint that flaps costs its readers one update a window, however often it does, and a single change loses no
time. Pure; the clock is the caller's.
"""

from __future__ import annotations

import math

__all__ = ["Debounce"]


class Debounce:
    """When an update may go out; times in seconds of any one clock.

    >>> debounce = Debounce(window=1.0)
    >>> debounce.due(10.0)
    10.0
    >>> debounce.sent(10.0)
    >>> debounce.due(10.25), debounce.due(12.0)
    (11.0, 12.0)
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._last = -math.inf

    def due(self, now: float) -> float:
        """When a change of this moment is to go out."""
        return max(now, self._last + self._window)

    def sent(self, now: float) -> None:
        """An update has gone out."""
        self._last = now
