"""The picker service on a real gRPC port, in a thread of the test's process, with its directory in the test's hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar

import grpc

from lbcore import Lease
from lbcore.directory import Directory
from lbcore.service.clusters import Clusters
from lbcore.service.leases import LeaseTable
from lbcore.service.picker import Picker
from lbcore.snapshot import ServiceSnapshot

__all__ = ["PickerServer"]

T = TypeVar("T")


class PickerServer:
    """Use it as a context manager; `address` is where it listens."""

    def __init__(
        self, *services: ServiceSnapshot, port: int = 0, awaited_source: str = "", **lease_options: Any
    ) -> None:
        self.port = port
        self.leases: LeaseTable[Lease] = LeaseTable(**lease_options)
        self.directory = Directory()
        if awaited_source:
            self.directory.await_source(awaited_source)
        else:
            self.directory.publish("test", services)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> PickerServer:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the server's loop."""

        async def wrapped() -> T:
            return function()

        return self.run(wrapped())

    def publish(self, *services: ServiceSnapshot, source: str = "test") -> None:
        """Replaces the services; every later call sees the new ones."""

        def apply() -> None:
            self.directory.publish(source, services)
            self.clusters.apply(self.directory.current)

        self.call(apply)

    def active(self, service: str) -> int:
        """Requests in flight to a service."""
        return self.call(lambda: self.clusters.get(service).cluster.stats().active)

    def drain(self) -> None:
        """Ends the open streams as a stopping service does."""
        self.call(self.picker.streams.drain)

    async def _start(self) -> None:
        self.clusters = Clusters(self.directory)
        if self.directory.synced:
            self.clusters.apply(self.directory.current)
        self.picker = Picker(self.clusters, self.leases)
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.picker.add_to(self._server)
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()
        self._parts: Iterable[asyncio.Task[None]] = [
            asyncio.ensure_future(self.clusters.run()),
            asyncio.ensure_future(self.leases.run()),
        ]

    async def _stop(self) -> None:
        for part in self._parts:
            part.cancel()
        await asyncio.gather(*self._parts, return_exceptions=True)
        await self._server.stop(0)
