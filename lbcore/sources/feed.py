"""What a source is to whoever runs it: a `Feed` of memberships that breaks when the source fails, and resumes.

Time and randomness come with `Timing`, so that tests run hours in a moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from lbcore.errors import LbError
from lbcore.membership import Membership

__all__ = ["Feed", "FeedBroken", "Timing"]


class FeedBroken(LbError):
    """The source cannot say anything now; the message says why. What it said last still stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How a source perceives time and chance.

    Fields:
        clock: seconds that only go up.
        sleep: waits for some seconds.
        random: 0.0 to 1.0, which it never reaches.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


class Feed(ABC):
    """One source's view of one service."""

    @abstractmethod
    def follow(self) -> AsyncGenerator[Membership | FeedBroken, None]:
        """Yields everybody who belongs to the service: first as it is now, then whenever the source has been heard
        from, changed or not. Raises `FeedBroken` when the source fails; yields one when what it says cannot be used,
        but it may be listened to further.

        Called again after a pause, it resumes where it broke. What is yielded is always whole: never half of a list.
        """
