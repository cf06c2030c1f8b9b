"""The lock of `lbcore.registry.lock` for programs of threads: a thread of its own keeps it, whatever the others do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from lbcore.registry import lock

__all__ = ["Held", "locked"]


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held; see `lbcore.registry.lock.Held`."""

    key: bytes
    fence: int
    lost: threading.Event


@contextmanager
def locked(store: str, name: str, *, ttl: float = 15.0, timeout: float | None = None) -> Iterator[Held]:
    """`lbcore.registry.lock.locked`, waiting in this thread."""
    keeper = _Keeper(store, name, ttl, timeout)
    try:
        yield keeper.acquired.result()
    finally:
        keeper.end()


class _Keeper:
    """The thread that waits for the lock and keeps it."""

    def __init__(self, store: str, name: str, ttl: float, timeout: float | None) -> None:
        self.acquired: Future[Held] = Future()
        self._lost = threading.Event()
        self._running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()
        # A daemon, so that a program whose main thread ends is not held up; the lease runs out then.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(store, name, ttl, timeout)), name="lbcore-lock", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        loop, holding = self._running.result()
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(holding.cancel)
        self._thread.join()

    async def _run(self, store: str, name: str, ttl: float, timeout: float | None) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._running.set_result((asyncio.get_running_loop(), this))
        try:
            async with lock.locked(store, name, ttl=ttl, timeout=timeout) as held:
                self.acquired.set_result(Held(held.key, held.fence, self._lost))
                await held.lost.wait()
                self._lost.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass  # the block has ended
        except BaseException as wrong:
            if self.acquired.done():
                raise
            self.acquired.set_exception(wrong)
        finally:
            self._lost.set()
