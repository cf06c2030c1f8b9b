"""One message on its way to a client, without a task for it.

A push to a thousand streams would make a thousand tasks, and begin to write in the next turn of the event loop only.
gRPC's coroutine waits for a single thing, that its core has taken the message (`execute_batch` in grpc's
callback_common.pyx.pxi), so it is driven by hand: begun at once, and continued when that has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio

__all__ = ["Write"]


class Write:
    """A write that has begun with the first `proceed`.

    Arguments:
        writing: the coroutine that writes.
        ended: called once when it is over, with whether it succeeded; it did not where the client has gone.
    """

    __slots__ = ("_cancelled", "_ended", "_waits_for", "_writing")

    def __init__(self, writing: Coroutine[Any, Any, None], ended: Callable[[bool], None]) -> None:
        self._writing = writing
        self._ended = ended
        self._waits_for: asyncio.Future[None] | None = None
        self._cancelled = False

    def proceed(self, _: object = None) -> None:
        """Goes on until it has to wait, or is over."""
        if self._cancelled:  # after what it waited for had happened: this call was on its way already
            return
        try:
            waits_for: asyncio.Future[None] = self._writing.send(None)
        except StopIteration:
            self._ended(True)
        except grpc.aio.BaseError:
            self._ended(False)
        else:
            self._waits_for = waits_for
            waits_for.add_done_callback(self.proceed)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._cancelled = True
        if self._waits_for is not None:
            self._waits_for.remove_done_callback(self.proceed)
        self._writing.close()
