"""How many checks may begin at once. The invariant: a host that does not answer takes no place from the others.

A check holds its place while it costs the processor something: from its start until it has ended, or for
`_LONGEST_HOLD` seconds at most. Whoever only waits for a silent host waits outside. But while the event loop itself is
late nobody can tell who is silent, and places are held to the end: so a busy processor makes checks late, and does not
begin more than it can end in time.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Pace"]

_LONGEST_HOLD = 0.025  # seconds; a healthy host on the same network answers long before
_LATE = 0.01  # seconds by which the timer of that shows that the loop is busy


class Pace:
    """Lets `places` checks begin at once; the others wait in their order."""

    def __init__(self, places: int = 64) -> None:
        self._places = asyncio.Semaphore(places)

    async def place(self) -> Place:
        """A place, as soon as there is one; `with` it as long as it is needed."""
        await self._places.acquire()
        return Place(self._places)


class Place:
    """One place, given back once: at the end, or when it has been held for too long."""

    __slots__ = ("_loop", "_places", "_taken", "_timer")

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = True
        self._loop = asyncio.get_running_loop()
        self._wait()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._give_back()

    def _wait(self) -> None:
        due = self._loop.time() + _LONGEST_HOLD
        self._timer = self._loop.call_at(due, self._held_for_long, due)

    def _held_for_long(self, due: float) -> None:
        if self._loop.time() - due > _LATE:
            self._wait()
        else:
            self._give_back()

    def _give_back(self) -> None:
        if self._taken:
            self._taken = False
            self._places.release()
