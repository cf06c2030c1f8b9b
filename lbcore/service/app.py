"""The composition root of `lbcore serve`: the one place that makes the parts and joins them.

Order matters at both ends. Nothing listens before the configuration has been read and applied, so no answer is ever
given from an empty directory; and a drain first tells (health, `/ready`), then ends the streams, then waits for calls
under way, then goes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import prometheus_client
import uvloop
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lbcore._core import Lease
from lbcore.directory import Directory
from lbcore.health.overlay import DirectoryHealth
from lbcore.registry.opening import make_registry_store
from lbcore.service.admin import Admin
from lbcore.service.binding import Binding
from lbcore.service.clusters import Clusters
from lbcore.service.leases import LeaseTable
from lbcore.service.load_metrics import LoadCollector
from lbcore.service.metrics import XdsMetrics, make_registry
from lbcore.service.picker import SERVICE_NAME as PICKER
from lbcore.service.picker import Picker
from lbcore.service.registry import SERVICE_NAME as REGISTRY
from lbcore.service.registry import RegistryService
from lbcore.service.registry_metrics import RegistryCollector
from lbcore.service.security import Security
from lbcore.service.server_options import GRACE, SERVER_OPTIONS, connection_age
from lbcore.service.workers.forwarding import ForwardedCallers, permit_of_forwarded
from lbcore.service.workers.supervisor import Workers
from lbcore.sources.file import FileSource
from lbcore.sources.remembered import RememberedMembers
from lbcore.sources.running import RunningSources
from lbcore.xds.client_status import ClientStatusService
from lbcore.xds.server import SERVICES as XDS_SERVICES
from lbcore.xds.server import XdsServer

__all__ = ["Service", "serve"]

logger = logging.getLogger(__name__)

SERVICES = (PICKER, REGISTRY, *XDS_SERVICES, health.SERVICE_NAME)
_SAME_SIGNAL = 0.3  # seconds within which a second SIGINT is the first one, delivered twice


def serve(config: Path, grpc_binding: Binding, admin_binding: Binding, store: str = "", workers: int = 0) -> int:
    """Serves until a signal ends it, and returns the exit code. `store`: see `lbcore.registry.opening`; `workers`: how
    many processes carry the streams of xDS; 0: this one does.

    Raises `ConfigError` where the configuration is bad at the start, `CannotListen` where an address cannot be had,
    `StoreFailed` where the store of registrations cannot be read.
    """
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the number of series, and nobody reads them
    return uvloop.run(Service(config, grpc_binding, admin_binding, store, workers).run())


@dataclass(frozen=True)
class Bound:
    """The addresses that the service listens on."""

    grpc: Binding
    admin: Binding


class Service:
    """Everything that runs, from the configuration file to the two ports."""

    def __init__(
        self, config: Path, grpc_binding: Binding, admin_binding: Binding, store: str = "", workers: int = 0
    ) -> None:
        self._grpc_binding = grpc_binding
        self._admin_binding = admin_binding
        self._stop = asyncio.Event()
        self._signalled_at = 0.0
        directory = Directory()
        self._sources = RunningSources(directory)
        self._source = FileSource(config, directory, self._sources)
        self._source.read_first()
        settings = self._source.registry
        self._sources.remembered = RememberedMembers.beside(config, store or settings.store)
        self._clusters = Clusters(directory)
        self._leases: LeaseTable[Lease] = LeaseTable()
        self._registrations = make_registry_store(store, config, directory, settings)
        self._checks = DirectoryHealth(directory, passed=self._clusters.passed_check, board=self._registrations.board)
        registry = make_registry(self._clusters, self._leases, self._source, self._checks, self._sources)
        registry.register(RegistryCollector(self._registrations))
        registry.register(LoadCollector(directory.loads))
        self._registry = RegistryService(self._registrations)
        self._picker = Picker(self._clusters, self._leases)
        self._security = Security()
        registry.register(self._security)
        metrics = XdsMetrics(registry)
        self._workers: Workers | None = None
        if workers:
            self._workers = Workers(workers, directory, metrics)
            registry.register(self._workers)
        access = self._security.access if self._workers is None else permit_of_forwarded
        self._xds = XdsServer(directory, metrics, access=access)
        self._source.when_loaded = self._take_settings
        self._admin = Admin(self._clusters, registry)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # grpc-stubs lacks it

    async def run(self) -> int:
        """Loads, listens, serves until a signal or a failure, drains; returns the exit code."""
        self._handle_signals()
        self._source.load_first()
        self._security.open(self._source.settings)
        self._registrations.open()
        gc.freeze()  # what was restored stays; to look through 100 000 endpoints for garbage takes a tenth of a second
        await self._checks.first_round()  # or a restart would send clients to endpoints that are known to fail
        server = self._make_server()
        runner = web.AppRunner(self._admin.application(), access_log=None)
        parts: list[asyncio.Task[None]] = []
        try:
            bound = Bound(await self._listen_grpc(server), await self._listen_admin(runner))
            parts = [asyncio.ensure_future(part) for part in self._parts()]
            parts.append(asyncio.ensure_future(self._tell_when_ready(bound)))
            failed = await self._until_stopped(parts)
            await self._drain(server)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await server.stop(None)
            if self._workers is not None:
                await self._workers.stop()
            await runner.cleanup()
            await self._registrations.close()
            await self._checks.close()
        return 1 if failed else 0

    def _take_settings(self) -> None:
        self._xds.settings = self._source.settings.xds
        self._security.take(self._source.settings)
        if self._workers is not None:
            self._workers.take(self._source.settings)

    def _parts(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs beside the two ports, for ever."""
        return (
            self._source.run(),
            self._registrations.run(),
            self._sources.run(),
            self._clusters.run(),
            self._clusters.tick(),
            self._leases.run(),
            self._checks.run(),
            self._xds.run() if self._workers is None else self._workers.run(),
            # Who calls a worker, the worker judges: here is no certificate to look at again.
            self._security.run(self._xds.look_again if self._workers is None else lambda: None),
        )

    def _make_server(self) -> grpc.aio.Server:
        """The server of the port; with workers, of what they do not serve themselves."""
        if (workers := self._workers) is not None:
            callers = ForwardedCallers(lambda: workers.settings.access)
            return grpc.aio.server(interceptors=(callers,), options=SERVER_OPTIONS)
        # Without it a second server on the same port would share the connections instead of being refused.
        alone = ("grpc.so_reuseport", 0)
        options = [alone, *SERVER_OPTIONS, *connection_age(self._source.settings.xds)]
        return grpc.aio.server(interceptors=self._security.interceptors(), options=options)

    async def _listen_grpc(self, server: grpc.aio.Server) -> Binding:
        self._picker.add_to(server)
        self._registry.add_to(server)
        if self._workers is None:
            self._xds.add_to(server)
        else:
            ClientStatusService(self._workers.clients).add_to(server)
            self._xds.add_load_reports_to(server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*SERVICES, reflection.SERVICE_NAME), server)
        if self._workers is not None:
            bound = self._workers.reserve(self._grpc_binding)
            server.add_insecure_port(self._workers.forward_to)
            await server.start()
            await self._workers.start(bound)
            return bound
        try:
            port = self._security.add_port(server, str(self._grpc_binding))
        except RuntimeError:
            raise self._grpc_binding.refused() from None
        await server.start()
        return replace(self._grpc_binding, port=port)

    async def _listen_admin(self, runner: web.AppRunner) -> Binding:
        await runner.setup()
        try:
            await web.TCPSite(runner, self._admin_binding.host, self._admin_binding.port).start()
        except OSError:
            raise self._admin_binding.refused() from None
        return replace(self._admin_binding, port=runner.addresses[0][1])

    async def _tell_when_ready(self, bound: Bound) -> None:
        """Until every source has been heard from, callers are told to wait or to ask elsewhere."""
        async with aclosing(self._clusters.directory.watch()) as snapshots:
            self._clusters.apply(await anext(snapshots))
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        _announce(bound, encrypted=self._security.encrypted)
        await asyncio.Event().wait()  # as the other parts, it goes on until it is cancelled

    async def _until_stopped(self, parts: list[asyncio.Task[None]]) -> bool:
        """Waits for a signal; returns whether a part has failed instead."""
        stopped = asyncio.ensure_future(self._stop.wait())
        done, _ = await asyncio.wait({stopped, *parts}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for part in done - {stopped}:
            reason = None if part.cancelled() else part.exception()
            logger.critical("a part of the service has failed: the service stops", exc_info=reason)
        return stopped not in done

    async def _drain(self, server: grpc.aio.Server) -> None:
        logger.info("draining")
        self._admin.draining = True
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._picker.streams.drain()
        self._registry.streams.drain()
        self._xds.drain()
        if self._workers is not None:
            await self._workers.stop()
        await server.stop(GRACE)
        logger.info("stopped")

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *SERVICES):
            await self._health.set(name, status)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        """The first one drains, and an impatient Ctrl-C stops at once. SIGTERM does not: `timeout` and supervisors send
        it twice, to the process and to its group; nor does one Ctrl-C that comes two ways."""
        now = asyncio.get_running_loop().time()
        if not self._stop.is_set():
            logger.info("%s", number.name)
            self._signalled_at = now
            self._stop.set()
        elif number == signal.SIGINT and now - self._signalled_at > _SAME_SIGNAL:
            logger.warning("SIGINT again: stopping at once")
            logging.shutdown()
            os._exit(128 + number)
        else:
            logger.info("%s again: already draining; SIGINT stops at once", number.name)


def _announce(bound: Bound, *, encrypted: bool) -> None:
    for name, binding, safe in (("gRPC", bound.grpc, encrypted), ("admin", bound.admin, False)):
        if not (binding.loopback or safe):
            logger.warning("the %s port listens on %s, beyond this machine, unencrypted and open to all", name, binding)
    print(f"ready grpc={bound.grpc} admin={bound.admin}", flush=True)
