"""The discovery service on grpc.aio: ADS, and CDS, EDS, LDS and RDS as services of their own.

It follows the Directory and makes each new `Catalog` once, for all streams. Nothing is answered before the Directory is
in sync. Source: envoy/service/discovery/v3/ads.proto.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio

from lbcore.access import Permit
from lbcore.delivery import XdsDelivery
from lbcore.directory import Directory
from lbcore.errors import NotPermitted
from lbcore.xds.admission import Admission
from lbcore.xds.client_status import SERVICE as CSDS
from lbcore.xds.client_status import ClientStatusService
from lbcore.xds.debounce import gather
from lbcore.xds.delta import DeltaSubscription
from lbcore.xds.load_reports import SERVICE as LRS
from lbcore.xds.load_reports import LoadReportService
from lbcore.xds.observer import XdsObserver
from lbcore.xds.requests import read_delta, read_sotw
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog
from lbcore.xds.session import ProtocolError, Session
from lbcore.xds.sotw import SotwRequest, sotw_subscription
from lbcore.xds.status import ClientStatus
from lbcore.xds.stream import Access, Context, Stream

__all__ = ["JUDGED_BY_SERVER", "SERVICES", "XdsServer"]

_AGGREGATED = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_PER_TYPE = {
    ResourceType.CLUSTER: ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"),
    ResourceType.ASSIGNMENT: ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    ResourceType.LISTENER: ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"),
    ResourceType.ROUTE: ("envoy.service.route.v3.RouteDiscoveryService", "Routes"),
}

JUDGED_BY_SERVER = frozenset((_AGGREGATED, *(service for service, _ in _PER_TYPE.values()), LRS))
"""Those of them whose callers are judged here, by `access`."""

SERVICES = (_AGGREGATED, *(service for service, _ in _PER_TYPE.values()), CSDS, LRS)
"""The full names of the gRPC services, as reflection lists them."""


StreamHandler = Callable[[object, Context], Awaitable[None]]


class XdsServer:
    """Serves the Directory's content as xDS: `add_to` a gRPC server, and keep `run` running beside it.

    `access` says what the client of a call may see; without it, everybody sees everything.
    """

    def __init__(
        self,
        directory: Directory,
        observer: XdsObserver | None = None,
        settings: XdsDelivery | None = None,
        access: Access | None = None,
    ) -> None:
        self._directory = directory
        self._access: Access = access or (lambda _: None)
        self._admission = Admission(settings or XdsDelivery(), _now)
        self._observer = observer or XdsObserver()
        self._load_reports = LoadReportService(directory, self._observer, self._admit, lambda: self.settings)
        self._catalog: Catalog | None = None
        self._streams: dict[Stream[Any], str] = {}  # and the methods that were called

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers all xDS services; to be called before the server starts."""
        self.add_discovery_to(server)
        ClientStatusService(self._clients).add_to(server)
        self.add_load_reports_to(server)

    def add_load_reports_to(self, server: grpc.aio.Server) -> None:
        """Registers the service that clients report their load to."""
        self._load_reports.add_to(server)

    def add_discovery_to(self, server: grpc.aio.Server) -> None:
        """Registers the services that resources come from."""
        self._register(server, _AGGREGATED, "AggregatedResources", None)
        for resource_type, (service, resources) in _PER_TYPE.items():
            self._register(server, service, resources, resource_type)

    async def run(self) -> None:
        """Follows the Directory for ever; the caller cancels it."""
        async for snapshot in self._directory.watch():
            busy_since = time.thread_time()
            self.advance(Catalog(snapshot, self._catalog))
            if self._streams:
                await gather(self.settings, busy_since, lambda: self._directory.current.revision)

    def advance(self, catalog: Catalog) -> None:
        """The resources are now these: everybody is sent what is due because of that."""
        self._catalog = catalog
        for stream in list(self._streams):
            stream.advance(catalog)

    @property
    def settings(self) -> XdsDelivery:
        """How it delivers; may be replaced while it serves."""
        return self._admission.settings

    @settings.setter
    def settings(self, settings: XdsDelivery) -> None:
        self._admission.settings = settings

    def drain(self) -> None:
        """Ends every stream: clients keep what they have, and open the next one elsewhere."""
        for stream in list(self._streams):
            stream.drain()
        self._load_reports.drain()

    def look_again(self) -> None:
        """Ends the streams of clients that may not have them any more, or that are to see something else."""
        for stream in list(self._streams):
            stream.judge(self._access)
        self._load_reports.look_again(self._access)

    def clients(self) -> Iterator[ClientStatus]:
        """How far the client of each open stream is."""
        for stream, method in self._streams.items():
            yield stream.status(method)

    async def _clients(self) -> Iterable[ClientStatus]:
        return self.clients()

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def _register(self, server: grpc.aio.Server, service: str, resources: str, only: ResourceType | None) -> None:
        # Without serializers gRPC passes bytes through: a response is made of bytes that streams share.
        handlers = {
            f"Stream{resources}": grpc.stream_stream_rpc_method_handler(self._sotw(f"Stream{resources}", only)),
            f"Delta{resources}": grpc.stream_stream_rpc_method_handler(self._delta(f"Delta{resources}", only)),
        }
        if only is not None:
            handlers[f"Fetch{resources}"] = grpc.unary_unary_rpc_method_handler(self._fetch(only))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _sotw(self, method: str, only: ResourceType | None) -> StreamHandler:
        async def handle(_: object, context: Context) -> None:
            permit = await self._admit(method, context)
            await self._serve(method, Stream(self._sotw_session(only, permit), read_sotw, context))

        return handle

    def _delta(self, method: str, only: ResourceType | None) -> StreamHandler:
        async def handle(_: object, context: Context) -> None:
            permit = await self._admit(method, context)
            session = Session(DeltaSubscription, self._catalog, only, self._observer, _now, permit)
            await self._serve(method, Stream(session, read_delta, context))

        return handle

    def _fetch(self, only: ResourceType) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def handle(message: bytes, context: Context) -> bytes:
            permit = await self._permit(context)
            if self._catalog is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no source has been read to its end yet")
            session = self._sotw_session(only, permit)
            try:
                session.receive(read_sotw(message))
            except ProtocolError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except NotPermitted as error:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            response = session.next_response()
            if response is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "none of the resources asked for exists")
            return response

        return handle

    def _sotw_session(self, only: ResourceType | None, permit: Permit | None) -> Session[SotwRequest]:
        return Session(sotw_subscription, self._catalog, only, self._observer, _now, permit)

    async def _permit(self, context: Context) -> Permit | None:
        """What the caller may see; ends the call where that is nothing."""
        try:
            permit = self._access(context)
            if permit is not None and not permit.may("xds"):
                raise NotPermitted("xds is not granted")
        except NotPermitted as refused:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refused))
        return permit

    async def _admit(self, method: str, context: Context) -> Permit | None:
        """Takes a stream, or ends it; returns what its client may see."""
        if why := self._admission.refusal(len(self._streams) + self._load_reports.stream_count):
            self._observer.stream_refused(method)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        return await self._permit(context)

    async def _serve(self, method: str, stream: Stream[Any]) -> None:
        self._streams[stream] = method
        self._observer.stream_opened(method)
        try:
            await stream.serve()
        finally:
            del self._streams[stream]
            self._observer.stream_closed(method)


def _now() -> float:
    """Seconds on the event loop's clock, by which streams are woken."""
    return asyncio.get_running_loop().time()
