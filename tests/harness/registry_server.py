"""The registry service on a real gRPC port, in a thread of the test, its Directory in the test's hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import grpc

from lbcore.directory import Directory
from lbcore.registration import RegistrySettings
from lbcore.registry.embedded import EmbeddedRegistry
from lbcore.registry.journal import Journal
from lbcore.service.registry import RegistryService

__all__ = ["RegistryServer"]

T = TypeVar("T")


class RegistryServer:
    """Use it as a context manager; `address` is where it listens, kept over `stop` and `start`.

    With a `path` registrations are kept there over restarts, else they are lost with each.
    """

    def __init__(self, path: Path | None = None, **settings: float) -> None:
        self.port = 0
        self._path = path
        self._settings = RegistrySettings(**settings)  # type: ignore[arg-type]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="registry", daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> RegistryServer:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self) -> None:
        """Starts it, after `stop` at the same address."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the server's loop."""

        async def wrapped() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(30)

    def addresses(self, service: str) -> set[str]:
        """What the Directory has of a service."""
        snapshot = self.call(lambda: self.directory.current.services.get(service))
        return {each.address for each in snapshot.endpoints} if snapshot else set()

    async def _start(self) -> None:
        self.directory = Directory()
        self.registry = EmbeddedRegistry(
            self.directory, self._settings, Journal(self._path) if self._path is not None else None
        )
        self.registry.open()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.service = RegistryService(self.registry)
        self.service.add_to(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        self._running = asyncio.ensure_future(self.registry.run())

    async def _stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._server.stop(None)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        await self.registry.close()
