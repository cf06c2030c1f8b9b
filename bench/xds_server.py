"""A server for `bench.xds_fleet`: the xDS service, and beside it a bare stream that sends the same bytes.

Run as a process of its own: prints its port; then each line of standard input is a command, answered by a line of JSON
with the time of the change (CLOCK_MONOTONIC), CPU seconds and resident bytes. It ends with its standard input.

    publish N     the service `web`, or of many services the first, has its one changing endpoint at port N
    flood R S     the same R times a second, for S seconds; the answer says which was the last
    move A B      `web` has the endpoint at A alone, and Envoys a listener at B that leads there
    bare SIZE     every bare stream is sent so many bytes
    usage         nothing else
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from lbcore.directory import Directory
from lbcore.model import Endpoint
from lbcore.routing import Listener, Route
from lbcore.service.server_options import SERVER_OPTIONS
from lbcore.snapshot import ServiceSnapshot
from lbcore.xds.server import XdsServer

BARE = "bench.Bare"
TURNS = 3  # of the event loop, in which a change is noticed and begins to be written


class Bare:
    """Streams that are sent bytes, without a protocol. The first message is answered: then a client knows it is in."""

    def __init__(self) -> None:
        self.contexts: set[Any] = set()

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            async for _ in requests:
                if context not in self.contexts:
                    self.contexts.add(context)
                    await context.write(b"in")
        finally:
            self.contexts.discard(context)

    def push(self, size: int) -> None:
        message = bytes(size)
        self.tasks = [asyncio.ensure_future(context.write(message)) for context in self.contexts]


def services(count: int, endpoints: int, port: int) -> list[ServiceSnapshot]:
    """So many services of so many endpoints each; one endpoint of the first is at the port."""
    made = []
    for number in range(count):
        members = tuple(
            Endpoint(f"10.{number >> 8}.{number & 255}.{n & 255}:{8000 + (n >> 8)}", locality=f"eu/z{n % 20}")
            for n in range(endpoints)
        )
        if number == 0:
            members = (Endpoint(f"10.99.0.1:{port}", locality=members[0].locality), *members[1:])
        made.append(ServiceSnapshot(name="web" if number == 0 else f"web-{number}", endpoints=members))
    return made


def with_first_at(port: int, fleet: list[ServiceSnapshot]) -> list[ServiceSnapshot]:
    """The fleet after a change of the one endpoint that changes."""
    first = fleet[0].endpoints
    changed = Endpoint(f"10.99.0.1:{port}", locality=first[0].locality)
    return [ServiceSnapshot(name="web", endpoints=(changed, *first[1:])), *fleet[1:]]


async def flood(directory: Directory, fleet: list[ServiceSnapshot], rate: float, seconds: float) -> int:
    """Publishes as often as it is told, or as it can; returns how often."""
    begun, count = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds:
        due = min(int(elapsed * rate), count + 100)
        while count < due:
            count += 1
            directory.publish("bench", with_first_at(count, fleet))
        await asyncio.sleep(0.001)
    return count


async def serve(count: int, endpoints: int) -> None:
    directory, bare = Directory(), Bare()
    fleet = services(count, endpoints, 1)
    directory.publish("bench", fleet)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *SERVER_OPTIONS])
    xds = XdsServer(directory)
    xds.add_to(server)
    handlers = {"Stream": grpc.stream_stream_rpc_method_handler(bare.stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(BARE, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    following = asyncio.ensure_future(xds.run())
    gc.freeze()
    published = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, _, argument = line.strip().partition(" ")
        now = time.monotonic()
        if command == "publish":
            changed = with_first_at(int(argument), fleet)
            now = time.monotonic()
            directory.publish("bench", changed)
        elif command == "flood":
            rate, _, seconds = argument.partition(" ")
            published = await flood(directory, fleet, float(rate), float(seconds))
            now = time.monotonic()
        elif command == "move":
            endpoint, _, bound = argument.partition(" ")
            web = ServiceSnapshot(name="web", endpoints=(Endpoint(endpoint),))
            listener = Listener(name="in", address=bound, routes=(Route(prefix="/", service="web"),))
            now = time.monotonic()
            directory.publish("bench", [web], [listener])
        elif command == "bare":
            bare.push(int(argument))
        for _ in range(TURNS):  # else who reads the answer is in the way of what is measured, where processors are few
            await asyncio.sleep(0)
        usage = {"time": now, "cpu": time.process_time(), "rss": resident(), "published": published}
        print(json.dumps(usage), flush=True)
    following.cancel()
    await server.stop(None)


def resident() -> int:
    """Bytes of memory that the process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
