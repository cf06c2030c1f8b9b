"""A feed that says and suffers what a test has written, step by step."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from lbcore.membership import Membership
from lbcore.model import Endpoint
from lbcore.sources.feed import Feed, Timing

__all__ = ["ScriptedFeed", "members"]


def members(*addresses: str) -> Membership:
    return Membership(tuple(map(Endpoint, addresses)))


class ScriptedFeed(Feed):
    """Asks `say` every `interval` seconds; it gives a membership or raises."""

    def __init__(self, say: Callable[[], Membership], timing: Timing, interval: float = 1.0) -> None:
        self._say = say
        self._timing = timing
        self._interval = interval
        self.followed = 0

    async def follow(self) -> AsyncGenerator[Membership, None]:
        self.followed += 1
        while True:
            yield self._say()
            await self._timing.sleep(self._interval)
