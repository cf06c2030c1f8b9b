"""A registry service for the benchmarks; run it as a module with its store, the path of a file or etcd://HOST:PORT/PREFIX.

Says its port, serves until its standard input ends. Beside it an empty stream of its own, the floor of a message.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import uvloop
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.directory import Directory
from lbcore.etcd.address import EtcdAddress
from lbcore.registry.embedded import EmbeddedRegistry
from lbcore.registry.etcd.registry import EtcdRegistry
from lbcore.registry.journal import Journal
from lbcore.registry.registry import RegistryStore
from lbcore.service.registry import RegistryService

ECHO = "bench.Echo"


async def _echo(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    while (message := await context.read()) is not EOF:
        await context.write(message)


async def serve(store: str) -> None:
    directory = Directory()
    registry: RegistryStore
    if store.startswith("etcd:"):
        registry = EtcdRegistry(directory, EtcdAddress.parse(store))
    else:
        registry = EmbeddedRegistry(directory, journal=Journal(Path(store)))
    registry.open()
    running = asyncio.ensure_future(registry.run())
    async for _ in directory.watch():
        break
    server = grpc.aio.server()
    RegistryService(registry).add_to(server)
    handlers = {"Echo": grpc.stream_stream_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop(None)
    await registry.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))  # as `lbcore serve` does
