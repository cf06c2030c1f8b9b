"""A control plane without any logic, for `bench.xds_propagation`: what a gRPC client takes however fast its server is.

It understands what `bench.xds_server` is told by `move A B` and answers alike, but decides nothing: each type is
answered once, and a move sends every stream an assignment that was made before its time is taken.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc
import grpc.aio
import uvloop
from envoy.service.discovery.v3 import discovery_pb2

from bench.xds_server import TURNS
from lbcore.directory import Directory
from lbcore.model import Endpoint
from lbcore.service.server_options import SERVER_OPTIONS
from lbcore.snapshot import ServiceSnapshot
from lbcore.xds.client_kind import ClientKind
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog
from lbcore.xds.wire import sotw_body, with_nonce

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


def prepared(resource_type: ResourceType, address: str, number: int) -> bytes:
    """The response that has the service `web` at one address."""
    directory = Directory()
    directory.publish("bench", [ServiceSnapshot(name="web", endpoints=(Endpoint(address),))])
    resource = Catalog(directory.current).resources(resource_type, ClientKind.GRPC).get("web")
    assert resource is not None
    return with_nonce(sotw_body(resource_type, str(number), [resource]), f"{resource_type.name}-{number}")


class Prepared:
    """The streams, and where they are told that the service is."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:1"
        self.contexts: set[Any] = set()
        self.moves = 0

    async def stream(self, _: object, context: Any) -> None:
        answered = set()
        self.contexts.add(context)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                resource_type = ResourceType.of(discovery_pb2.DiscoveryRequest.FromString(message).type_url)
                if resource_type is not None and resource_type not in answered:
                    answered.add(resource_type)
                    await context.write(prepared(resource_type, self.address, self.moves))
        finally:
            self.contexts.discard(context)

    def move(self, address: str) -> float:
        """Returns the time at which the service is at the address."""
        self.address = address
        self.moves += 1
        message = prepared(ResourceType.ASSIGNMENT, address, self.moves)
        moved = time.monotonic()
        self.writes = [asyncio.ensure_future(context.write(message)) for context in self.contexts]
        return moved


async def serve() -> None:
    plane = Prepared()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *SERVER_OPTIONS])
    handlers = {"StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(plane.stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        address = line.split()[1]
        moved = plane.move(address)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        print(json.dumps({"time": moved}), flush=True)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve())
