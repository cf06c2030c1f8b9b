"""Clients for `bench.workers`, a process of their own: `python -m bench.worker_clients HOST:PORT`.

Each line of standard input is a command, answered by a line of JSON. It ends with its standard input.

    pick CONNECTIONS SECONDS     one unary Pick after the other on each connection: `picks` and `seconds`
    stream CONNECTIONS SECONDS   PickStream, `BATCH` hashes a message, one after the other: the same
    follow STREAMS               opens so many xDS streams; answers when each has its first assignment
    await PORT                   answers when each stream has an endpoint at this port: `at`, by the monotonic clock
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import numpy as np
import uvloop
from envoy.service.discovery.v3 import discovery_pb2

from bench.xds_fleet import ADS, EDS, Client, newest_port, sotw_answer
from lbcore.service.proto import picker_pb2 as pb

BATCH = 4096
STREAMS_PER_CONNECTION = 8
PICKER = "/lbcore.v1.Picker/"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel


async def repeat(ask: Callable[[], Awaitable[object]], until: float) -> int:
    """How often it has been answered by then."""
    count = 0
    while time.monotonic() < until:
        await ask()
        count += 1
    return count


def unary(channel: Any) -> Callable[[], Awaitable[object]]:
    method = channel.unary_unary(f"{PICKER}Pick")
    request = pb.PickRequest(service="web", key="user-1").SerializeToString()
    return lambda: method(request)


def stream(channel: Any) -> Callable[[], Awaitable[object]]:
    hashes = np.random.default_rng(9).integers(0, 2**64, BATCH, dtype=np.uint64).tobytes()
    request = pb.PickStreamRequest(service="web", hashes=hashes).SerializeToString()
    call = channel.stream_stream(f"{PICKER}PickStream")()

    async def ask() -> None:
        await call.write(request)
        await call.read()

    return ask


async def pick(
    target: str, kind: Callable[[Any], Callable[[], Awaitable[object]]], count: int, seconds: float
) -> dict[str, float]:
    channels = [grpc.aio.insecure_channel(target, OPTIONS) for _ in range(count)]
    asks = [kind(channel) for channel in channels]
    await asyncio.gather(*(ask() for ask in asks))  # connected, and told the table
    begun = time.monotonic()
    answers = sum(await asyncio.gather(*(repeat(ask, begun + seconds) for ask in asks)))
    ended = time.monotonic()
    await asyncio.gather(*(channel.close(None) for channel in channels))
    return {"picks": answers * (BATCH if kind is stream else 1), "seconds": ended - begun}


class Followers:
    """xDS streams that stay open."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, count: int) -> None:
        first = discovery_pb2.DiscoveryRequest(type_url=EDS, resource_names=["web"], node={"id": "bench"})
        for number in range(count):
            if number % STREAMS_PER_CONNECTION == 0:
                channel: Any = grpc.aio.insecure_channel(self._target, OPTIONS)
            client = Client(channel.stream_stream(f"{ADS}StreamAggregatedResources")())
            self._clients.append(client)
            self._tasks.append(asyncio.ensure_future(client.run(first.SerializeToString(), sotw_answer)))
        await asyncio.gather(*(client.arrived.wait() for client in self._clients))

    async def have(self, port: int) -> dict[str, float]:
        for client in self._clients:
            while newest_port(client.last) != port:
                client.arrived.clear()
                await client.arrived.wait()
        return {"at": max(client.at for client in self._clients)}


async def run(target: str) -> None:
    followers = Followers(target)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *numbers = line.split()
        answer: dict[str, float] = {}
        if command == "follow":
            await followers.open(int(numbers[0]))
        elif command == "await":
            answer = await followers.have(int(numbers[0]))
        else:
            answer = await pick(target, {"pick": unary, "stream": stream}[command], int(numbers[0]), float(numbers[1]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1]))
