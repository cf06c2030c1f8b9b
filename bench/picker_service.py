"""A server for bench_service: the picker service, and beside it a method of each shape that does nothing.

Run as a process of its own: prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from bench.fleet import endpoints
from lbcore import Lease, Maglev
from lbcore.directory import Directory
from lbcore.service.clusters import Clusters
from lbcore.service.leases import LeaseTable
from lbcore.service.picker import Picker
from lbcore.snapshot import ServiceSnapshot

EMPTY = "bench.Empty"


async def _nothing(request: bytes, _context: object) -> bytes:
    return request[:0]


async def serve() -> None:
    directory = Directory()
    directory.publish("bench", [ServiceSnapshot(name="web", endpoints=tuple(endpoints(100)), policy=Maglev())])
    clusters = Clusters(directory)
    clusters.apply(directory.current)
    leases: LeaseTable[Lease] = LeaseTable()
    server = grpc.aio.server()
    Picker(clusters, leases).add_to(server)
    handlers = {"Nothing": grpc.unary_unary_rpc_method_handler(_nothing)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EMPTY, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
