"""Waiting for an event and for a time, whichever comes first, again and again."""

from __future__ import annotations

import asyncio

__all__ = ["set_within"]


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits until the event is set, or so long; returns whether it is set. None: as long as it takes.

    For loops: a time limit that cancels takes a cancellation in the same turn of the event loop for its own before
    Python 3.11, and a task that is to end then goes on for ever.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()
    return event.is_set()
