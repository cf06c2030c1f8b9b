"""What an attempt may know of itself: its endpoint, its number and how long it has.

It is kept in a context variable, so that code deep inside the caller's coroutine can ask, and so that a `call` within
an attempt gets no more time than the attempt has.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

from lbcore.model import Endpoint

__all__ = ["Attempt", "current_attempt", "remaining", "running_attempt"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a call.

    Fields:
        endpoint: where it goes.
        number: 1 is the first of the call.
        deadline: when it must have ended, by the event loop's clock; None: whenever it likes.
    """

    endpoint: Endpoint
    number: int
    deadline: float | None


running_attempt: ContextVar[Attempt | None] = ContextVar("lbcore_running_attempt", default=None)


def current_attempt() -> Attempt | None:
    """The attempt that this code runs in."""
    return running_attempt.get()


def remaining() -> float | None:
    """Seconds that the attempt has left, for the time limits of whatever it calls; None: as many as it likes."""
    attempt = running_attempt.get()
    if attempt is None or attempt.deadline is None:
        return None
    return max(0.0, attempt.deadline - asyncio.get_running_loop().time())
