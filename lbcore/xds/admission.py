"""Which new streams are taken: so many at once, and so many a second. What is refused may come back later.

A token bucket (RFC 2697 in essence). A fleet that reconnects after a restart would otherwise have to be answered all at
once, and the process could run out of memory before anybody is served.
"""

from __future__ import annotations

from collections.abc import Callable

from lbcore.delivery import XdsDelivery

__all__ = ["Admission"]

_BURST = 10.0  # seconds' worth of new streams that may come at once


class Admission:
    """Decides about each new stream. `clock` counts seconds."""

    def __init__(self, settings: XdsDelivery, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._clock = clock
        self._tokens = settings.max_new_streams * _BURST
        self._refilled: float | None = None

    def refusal(self, open_streams: int) -> str:
        """Why one more stream is not taken; empty if it is, and then it counts."""
        settings, now = self.settings, self._clock()
        if open_streams >= settings.max_streams:
            return f"{open_streams} streams are open, as many as max_streams allows: try another replica, or later"
        passed = 0.0 if self._refilled is None else now - self._refilled
        self._refilled = now
        most = max(settings.max_new_streams * _BURST, 1.0)
        self._tokens = min(most, self._tokens + passed * settings.max_new_streams)
        if self._tokens < 1.0:
            return f"more than {settings.max_new_streams:g} new streams a second: try again"
        self._tokens -= 1.0
        return ""
