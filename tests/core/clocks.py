"""A clock that stands still until it is told to go on."""

from __future__ import annotations


class ManualClock:
    """Called for the time in nanoseconds, as `Cluster(clock=...)` wants it."""

    def __init__(self) -> None:
        self.now = 10**18

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)
