"""When the next change goes out: the first after a quiet time at once, those on its heels together.

After a push nothing goes out for as long as the push itself took, so that clients and the rest of the process get their
turn however many streams there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lbcore.delivery import XdsDelivery

__all__ = ["gather"]


async def gather(settings: XdsDelivery, busy_since: float, revision: Callable[[], int]) -> None:
    """Waits after a push until changes, which `revision` counts, have settled.

    `busy_since` is the thread's CPU time (`time.thread_time`) when the push began.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)  # the streams begin to write meanwhile
    pause = max(settings.debounce_window, time.thread_time() - busy_since)
    deadline = loop.time() + settings.debounce_max
    while True:
        seen = revision()
        await asyncio.sleep(min(pause, max(deadline - loop.time(), 0.0)))
        if revision() == seen or loop.time() >= deadline:
            return
