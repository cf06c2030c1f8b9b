"""An xDS server in the test's own event loop, and raw clients that send it what a test says, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

from lbcore.directory import Directory, ServiceSnapshot
from lbcore.model import Endpoint
from lbcore.settings import CircuitBreakers
from lbcore.xds.observer import XdsObserver
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.server import XdsServer

CDS, EDS, LDS, RDS = ResourceType
TIME_LIMIT = 20.0  # seconds for an answer that must come
QUIET = 0.3  # seconds without an answer that must not come

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
PER_TYPE = {
    CDS: ("/envoy.service.cluster.v3.ClusterDiscoveryService/", "Clusters"),
    EDS: ("/envoy.service.endpoint.v3.EndpointDiscoveryService/", "Endpoints"),
    LDS: ("/envoy.service.listener.v3.ListenerDiscoveryService/", "Listeners"),
    RDS: ("/envoy.service.route.v3.RouteDiscoveryService/", "Routes"),
}
MESSAGES = {
    CDS: cluster_pb2.Cluster,
    EDS: endpoint_pb2.ClusterLoadAssignment,
    LDS: listener_pb2.Listener,
    RDS: route_pb2.RouteConfiguration,
}


def service(name: str, *ports: int, limit: int = 1024, **settings: Any) -> ServiceSnapshot:
    """A service with endpoints on these ports; its clusters differ by `limit`, the limit of requests."""
    settings.setdefault("endpoints", tuple(Endpoint(f"10.0.0.1:{port}") for port in ports))
    return ServiceSnapshot(name=name, circuit_breakers=CircuitBreakers(max_requests=limit), **settings)


async def eventually(condition: Callable[[], object], time_limit: float = TIME_LIMIT) -> None:
    """Returns as soon as the condition holds. Raises `TimeoutError` if it does not within the limit."""
    deadline = asyncio.get_running_loop().time() + time_limit
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not within {time_limit:g} s")
        await asyncio.sleep(0.01)


class Plane:
    """A running xDS server and the Directory that it serves.

    `publish` sets what there is; `sotw` and `delta` open streams.
    """

    def __init__(self, directory: Directory, xds: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        self.directory = directory
        self.xds = xds
        self.port = port
        self.channel = channel
        self._services: dict[str, ServiceSnapshot] = {}

    def publish(self, *services: ServiceSnapshot, listeners: Sequence[Any] = ()) -> None:
        """From now on there are these services and no others."""
        self._services = {each.name: each for each in services}
        self.directory.publish("test", services, listeners)

    def change(self, *services: ServiceSnapshot) -> None:
        """These services are new or different."""
        self.publish(*{**self._services, **{each.name: each for each in services}}.values())

    def remove(self, *names: str) -> None:
        """These services are gone."""
        self.publish(*(each for name, each in self._services.items() if name not in names))

    def sotw(self, only: ResourceType | None = None, **node: Any) -> SotwClient:
        """A stream of the aggregated service, or of one type's own."""
        return SotwClient(self.channel, method_path("Stream", only), only, node)

    def delta(self, only: ResourceType | None = None, **node: Any) -> DeltaClient:
        """The same for delta."""
        return DeltaClient(self.channel, method_path("Delta", only), only, node)


@asynccontextmanager
async def plane(
    directory: Directory | None = None,
    observer: XdsObserver | None = None,
    *,
    synced: bool = True,
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[Plane]:
    """An xDS server on a free port; with `credentials` over TLS."""
    directory = directory or Directory()
    if not synced:
        directory.await_source("test")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    xds = XdsServer(directory, observer)
    xds.add_to(server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    following = asyncio.create_task(xds.run())
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", 4 << 20)])
    try:
        yield Plane(directory, xds, port, channel)
    finally:
        await channel.close()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await server.stop(None)


class RawStream:
    """A stream of raw messages, in both directions."""

    request_class: type[Message]
    response_class: type[Message]

    def __init__(
        self, channel: grpc.aio.Channel, method: str, only: ResourceType | None, node: Mapping[str, Any]
    ) -> None:
        self._call = channel.stream_stream(method)()
        self.only = only
        self._node: base_pb2.Node | None = base_pb2.Node(**{"id": "raw", "cluster": "tests", **node})
        self.nonces: dict[ResourceType, str] = {}

    async def send_bytes(self, message: bytes) -> None:
        await self._call.write(message)

    async def _send(self, resource_type: ResourceType | None, fields: dict[str, Any]) -> None:
        request = self.request_class(type_url=resource_type.type_url if resource_type else "", **fields)
        if self._node is not None:
            request.node.CopyFrom(self._node)  # type: ignore[attr-defined]
            self._node = None
        await self.send_bytes(request.SerializeToString())

    async def receive(self) -> Any:
        """The next response. Raises `TimeoutError`, or `grpc.aio.AioRpcError` when the stream has ended."""
        message = await asyncio.wait_for(self._call.read(), TIME_LIMIT)
        if message is grpc.aio.EOF:
            raise AssertionError(f"the stream has ended: {await self._call.code()}, {await self._call.details()}")
        response = self.response_class.FromString(message)
        resource_type = ResourceType.of(response.type_url)  # type: ignore[attr-defined]
        assert resource_type is not None
        self.nonces[resource_type] = response.nonce  # type: ignore[attr-defined]
        return response

    async def quiet(self, seconds: float = QUIET) -> bool:
        """Whether nothing comes for so long."""
        reading = asyncio.ensure_future(self._call.read())
        done, _ = await asyncio.wait([reading], timeout=seconds)
        if done:
            return False
        # A read that is under way cannot be taken back, so the next `receive` gets what it brings.
        self._call = _Resumed(self._call, reading)
        return True

    async def taken_in(self) -> None:
        """Waits until the server has read what was sent, where that is answered by nothing.

        Many short times, so that the server runs between them even where the machine stands still for a long one.
        """
        for _ in range(10):
            assert await self.quiet(0.02)

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended."""
        code = await asyncio.wait_for(self._call.code(), TIME_LIMIT)
        return code, await self._call.details()

    async def half_close(self) -> None:
        await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()


class _Resumed:
    """A call with a read under way."""

    def __init__(self, call: Any, reading: asyncio.Future[Any]) -> None:
        self._call = call
        self._reading: asyncio.Future[Any] | None = reading

    async def read(self) -> Any:
        reading, self._reading = self._reading, None
        return await (reading or self._call.read())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class SotwClient(RawStream):
    """A state-of-the-world stream; `ask` answers the newest response of its type unless told otherwise."""

    request_class = discovery_pb2.DiscoveryRequest
    response_class = discovery_pb2.DiscoveryResponse

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.versions: dict[ResourceType, str] = {}

    async def ask(
        self,
        resource_type: ResourceType,
        *names: str,
        nonce: str | None = None,
        version: str | None = None,
        error: str | None = None,
    ) -> None:
        fields: dict[str, Any] = {
            "resource_names": names,
            "response_nonce": self.nonces.get(resource_type, "") if nonce is None else nonce,
            "version_info": self.versions.get(resource_type, "") if version is None else version,
        }
        if error is not None:
            fields["error_detail"] = {"code": 3, "message": error}
        await self._send(resource_type, fields)

    async def receive(self, expected: ResourceType | None = None) -> Any:
        response = await super().receive()
        resource_type = ResourceType.of(response.type_url)
        assert expected is None or resource_type is expected, f"expected {expected}, received {resource_type}"
        return response

    async def settle(self, resource_type: ResourceType, *names: str) -> dict[str, Any]:
        """Receives one response and accepts it; its resources by name."""
        response = await self.receive(resource_type)
        self.versions[resource_type] = response.version_info
        await self.ask(resource_type, *names)
        return resources(response)

    async def refuse(self, resource_type: ResourceType, *names: str, error: str = "no good") -> None:
        await self.ask(resource_type, *names, error=error)


class DeltaClient(RawStream):
    """A delta stream."""

    request_class = discovery_pb2.DeltaDiscoveryRequest
    response_class = discovery_pb2.DeltaDiscoveryResponse

    async def ask(
        self,
        resource_type: ResourceType,
        *subscribe: str,
        drop: Sequence[str] = (),
        has: Mapping[str, str] | None = None,
        nonce: str = "",
        error: str | None = None,
    ) -> None:
        fields: dict[str, Any] = {
            "resource_names_subscribe": subscribe,
            "resource_names_unsubscribe": drop,
            "initial_resource_versions": has or {},
            "response_nonce": nonce,
        }
        if error is not None:
            fields["error_detail"] = {"code": 3, "message": error}
        await self._send(resource_type, fields)

    async def receive(self, expected: ResourceType | None = None) -> Any:
        response = await super().receive()
        resource_type = ResourceType.of(response.type_url)
        assert expected is None or resource_type is expected, f"expected {expected}, received {resource_type}"
        return response

    async def accept(self, resource_type: ResourceType) -> None:
        await self.ask(resource_type, nonce=self.nonces[resource_type])

    async def refuse(self, resource_type: ResourceType, error: str = "no good") -> None:
        await self.ask(resource_type, nonce=self.nonces[resource_type], error=error)

    async def settle(self, resource_type: ResourceType) -> tuple[dict[str, Any], list[str]]:
        """Receives one response and accepts it; its resources by name, and the names of what is gone."""
        response = await self.receive(resource_type)
        await self.accept(resource_type)
        return resources(response), list(response.removed_resources)


def resources(response: Any) -> dict[str, Any]:
    """The resources of a response, unpacked, by name."""
    unpacked = {}
    for each in response.resources:
        packed = each.resource if hasattr(each, "resource") else each
        resource_type = ResourceType.of(packed.type_url)
        assert resource_type is not None
        message: Any = MESSAGES[resource_type].FromString(packed.value)
        name = message.cluster_name if resource_type is EDS else message.name
        assert not hasattr(each, "resource") or each.name == name, "V6"
        assert name not in unpacked, "S18, D15"
        unpacked[name] = message
    return unpacked


def versions(response: Any) -> dict[str, str]:
    """The versions of a delta response's resources by name."""
    return {each.name: each.version for each in response.resources}


def ports(assignment: Any) -> list[int]:
    """The ports of an assignment's endpoints."""
    return [
        endpoint.endpoint.address.socket_address.port_value
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    ]


def limit(cluster: Any) -> int:
    """A cluster's limit of requests."""
    return int(cluster.circuit_breakers.thresholds[0].max_requests.value)


def method_path(prefix: str, only: ResourceType | None) -> str:
    if only is None:
        return f"{ADS}{prefix}AggregatedResources"
    path, plural = PER_TYPE[only]
    return f"{path}{prefix}{plural}"
