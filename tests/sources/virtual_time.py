"""Time and chance in the hands of a test: an hour passes when the test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from lbcore.sources.feed import Timing

__all__ = ["VirtualTime", "settle"]


async def settle() -> None:
    """Lets all that can go on without time passing or bytes arriving go on."""
    for _ in range(50):
        await asyncio.sleep(0)


class VirtualTime:
    """`timing` is for what is tested; `advance` lets time pass, sleeper by sleeper.

    `slept` lists every sleep that was asked for, in seconds; `random` is what every draw gives.
    """

    def __init__(self, random: float = 0.0) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.random = random
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self._sleep, random=lambda: self.random)

    async def advance(self, seconds: float) -> None:
        until = self.now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self.now, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await settle()
        self.now = until

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), sleeper))
        await sleeper
