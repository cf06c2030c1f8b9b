"""lbcore's xDS server in a thread of the test, which publishes what it serves and reads what clients answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, TypeVar

import grpc.aio

from lbcore.delivery import XdsDelivery
from lbcore.directory import Directory, ServiceSnapshot
from lbcore.model import Locality
from lbcore.routing import Listener
from lbcore.xds.observer import XdsObserver
from lbcore.xds.server import XdsServer

__all__ = ["ControlPlane", "Nack"]

Result = TypeVar("Result")


class Nack(NamedTuple):
    """A response that a client refused."""

    node: str
    type_url: str
    message: str


class _Answers(XdsObserver):
    def __init__(self) -> None:
        self.nacks: list[Nack] = []
        self.acks: list[tuple[str, str]] = []

    def acked(self, node: str, type_url: str, *_: str) -> None:
        self.acks.append((node, type_url.rpartition(".")[2]))

    def nacked(self, node: str, type_url: str, _version: str, message: str, *_: str) -> None:
        self.nacks.append(Nack(node, type_url.rpartition(".")[2], message))


class ControlPlane:
    """An xDS server on a port of its own, which it keeps when it is stopped and started again. A context manager.

    `nacks` and `acks` (node and type) collect what clients answer, over restarts.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="control-plane", daemon=True)
        self._answers = _Answers()
        self.port = 0

    def __enter__(self) -> ControlPlane:
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
        """Starts with nothing known: no client is answered before the first `publish`."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)

    def publish(self, *services: ServiceSnapshot, listeners: Sequence[Listener] = ()) -> None:
        """From now on there are these services and listeners and no others."""
        self._call(lambda: self._directory.publish("test", services, listeners))

    def deliver(self, settings: XdsDelivery) -> None:
        """From now on it delivers like this."""

        def apply() -> None:
            self._xds.settings = settings

        self._call(apply)

    def reported(self, service: str, locality: Locality) -> tuple[int, int]:
        """The successes and errors that clients have reported so far."""

        def read() -> tuple[int, int]:
            totals = {(name, place): each for name, place, each in self._directory.loads.totals()}
            found = totals.get((service, locality))
            return (found.successes, found.errors) if found else (0, 0)

        return self._call(read)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def stream_count(self) -> int:
        return self._call(lambda: self._xds.stream_count)

    @property
    def nacks(self) -> list[Nack]:
        return self._call(self._answers.nacks.copy)

    @property
    def acks(self) -> list[tuple[str, str]]:
        return self._call(self._answers.acks.copy)

    def _call(self, work: Callable[[], Result]) -> Result:
        async def run() -> Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _start(self) -> None:
        self._directory = Directory()
        self._directory.await_source("test")
        self._xds = XdsServer(self._directory, self._answers)
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._xds.add_to(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        self._following = asyncio.create_task(self._xds.run())

    async def _stop(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self._server.stop(None)
        # Handlers whose clients were still connected are on their way out; the loop must not close under them.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
