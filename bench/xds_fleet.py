"""The xDS server with a fleet of raw clients: memory, CPU for a push, how long a change takes to all of them.

    python -m bench.xds_fleet [STREAMS]

Server and clients are processes of their own on loopback. Each figure stands beside its goal; those that depend on the
machine are compared with a bare grpc.aio server in the same process, whose rounds take turns with those measured.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import grpc.aio
import uvloop
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from bench.xds_server import BARE

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
STREAMS_PER_CHANNEL = 100
ROUNDS = 20


class Server:
    """The server process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def say(self, command: str) -> dict[str, float]:
        """Gives a command and returns what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def server(services: int, endpoints: int, module: str = "bench.xds_server") -> Iterator[Server]:
    command = [sys.executable, "-m", module, str(services), str(endpoints)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process)
        process.communicate(timeout=30)


class Client:
    """One stream that answers everything at once, and notes when the last message came."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.arrived = asyncio.Event()
        self.at = 0.0
        self.last = b""
        self.received = 0

    async def run(self, first: bytes, answer: Any) -> None:
        await self._call.write(first)
        while (message := await self._call.read()) is not grpc.aio.EOF:
            self.at = time.monotonic()
            self.last = message
            self.received += 1
            self.arrived.set()
            await self._call.write(answer(message))


@asynccontextmanager
async def fleet(port: int, streams: int, method: str, first: bytes, answer: Any) -> AsyncIterator[list[Client]]:
    """So many clients, connected and answered once."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        for _ in range(-(-streams // STREAMS_PER_CHANNEL))
    ]
    clients = [Client(channels[n // STREAMS_PER_CHANNEL].stream_stream(method)()) for n in range(streams)]
    tasks = [asyncio.ensure_future(client.run(first, answer)) for client in clients]
    try:
        yield clients
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in channels))


def sotw_answer(message: bytes) -> bytes:
    response = discovery_pb2.DiscoveryResponse.FromString(message)
    return bytes(
        discovery_pb2.DiscoveryRequest(
            type_url=EDS,
            resource_names=["web"],
            version_info=response.version_info,
            response_nonce=response.nonce,
        ).SerializeToString()
    )


def delta_answer(message: bytes) -> bytes:
    nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(message).nonce
    return bytes(discovery_pb2.DeltaDiscoveryRequest(type_url=EDS, response_nonce=nonce).SerializeToString())


def bare_answer(_: bytes) -> bytes:
    return bytes(120)  # about as long as an ACK


class Pushes:
    """What was measured of rounds of pushes: CPU seconds of a push in each round, and the delays of all of them."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.delays: list[float] = []

    async def add(self, to: Server, clients: list[Client], command: str) -> None:
        """A round: what the command changes goes to all."""
        for client in clients:
            client.arrived.clear()
        before = to.say("usage")
        begun = await asyncio.to_thread(to.say, command)
        await asyncio.gather(*(client.arrived.wait() for client in clients))
        await asyncio.sleep(0.1)  # their answers are on the way
        after = to.say("usage")
        self.cpu.append((after["cpu"] - before["cpu"]) / len(clients))
        self.delays += [client.at - begun["time"] for client in clients]


async def pushes(to: Server, clients: list[Client]) -> tuple[Pushes, Pushes]:
    """Rounds of a change that goes to all, and between them rounds of the bare server, of as many streams and bytes."""
    measured, floor = Pushes(), Pushes()
    async with fleet(to.port, len(clients), f"/{BARE}/Stream", bare_answer(b""), bare_answer) as bare:
        await asyncio.gather(*(client.arrived.wait() for client in bare))
        for number in range(ROUNDS):
            await measured.add(to, clients, f"publish {number + 2}")
            await floor.add(to, bare, f"bare {len(clients[0].last)}")
    return measured, floor


async def coalesced(to: Server, clients: list[Client], rate: int, seconds: float) -> None:
    """Far more changes than anybody could send: how long after the last one all have it."""
    before = [client.received for client in clients]
    over = await asyncio.to_thread(to.say, f"flood {rate} {seconds}")
    last = int(over["published"])
    for client in clients:
        while newest_port(client.last) != last:
            client.arrived.clear()
            await client.arrived.wait()
    row(
        f"{last / seconds:.0f} changes/s to {len(clients)} streams: s from the last until all have it",
        f"{max(client.at for client in clients) - over['time']:.2f}",
        f"<= 1 at {rate}/s",
    )
    told = [client.received - earlier for client, earlier in zip(clients, before, strict=True)]
    row("  messages to a stream", f"{min(told)} to {max(told)}, of {last} changes", "")


def newest_port(message: bytes) -> int:
    """The port of the endpoint that changes."""
    response = discovery_pb2.DiscoveryResponse.FromString(message)
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(response.resources[0].value)
    addresses = (
        each.endpoint.address.socket_address for locality in assignment.endpoints for each in locality.lb_endpoints
    )
    return next(int(address.port_value) for address in addresses if address.address == "10.99.0.1")


def row(subject: str, measured: str, goal: str) -> None:
    print(f"{subject:58} {measured:42} goal {goal}", flush=True)


def spread(values: list[float], unit: float) -> str:
    low, middle, high = (statistics.quantiles(values, n=100)[at - 1] * unit for at in (10, 50, 95))
    return f"{middle:.2f} [p10 {low:.2f}, p95 {high:.2f}]"


def ratio(measured: Pushes, floor: Pushes) -> str:
    return spread([one / other for one, other in zip(measured.cpu, floor.cpu, strict=True)], 1.0)


async def fan_out(streams: int) -> None:
    first = discovery_pb2.DiscoveryRequest(type_url=EDS, resource_names=["web"], node={"id": "bench"})
    with server(1, 10) as running:
        empty = running.say("usage")
        async with fleet(
            running.port, streams, f"{ADS}StreamAggregatedResources", first.SerializeToString(), sotw_answer
        ) as clients:
            begun = time.monotonic()
            await asyncio.gather(*(client.arrived.wait() for client in clients))
            connected = time.monotonic() - begun
            await asyncio.sleep(1)
            usage = running.say("usage")
            row(f"{streams} clients connect at once, all answered", f"{connected:.2f} s", "<= 10 s for 1000")
            row("memory of a stream", f"{(usage['rss'] - empty['rss']) / streams / 1024:.1f} KiB", "<= 40 KiB")
            measured, floor = await pushes(running, clients)
            size = len(clients[0].last)
            await coalesced(running, clients, 10_000, 3.0)
    row(f"one change to {streams} streams, ms until it is there", spread(measured.delays, 1e3), "p95 <= 150 at 1000")
    row("  a bare server, the same", spread(floor.delays, 1e3), "")
    row(f"CPU for a push of {size} bytes and its answer, us", spread(measured.cpu, 1e6), "")
    row("  a bare server, the same", spread(floor.cpu, 1e6), "")
    row("  ratio, round by round", ratio(measured, floor), "<= 1.1")


async def many_endpoints(services: int, endpoints: int, streams: int) -> None:
    names = ["web", *(f"web-{number}" for number in range(1, services))]
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=EDS, resource_names_subscribe=names, node={"id": "bench"})
    with server(services, endpoints) as running:
        async with fleet(
            running.port, streams, f"{ADS}DeltaAggregatedResources", first.SerializeToString(), delta_answer
        ) as clients:
            await asyncio.gather(*(client.arrived.wait() for client in clients))
            await asyncio.sleep(1)
            measured, floor = await pushes(running, clients)
    subject = f"{services} x {endpoints} endpoints, 1 changed, {streams} delta clients"
    row(f"{subject}: bytes", str(len(clients[0].last)), "<= 2x the assignment's")
    row("  CPU for a push and its share of the change, us", spread(measured.cpu, 1e6), "")
    row("  a bare server that pushes as many bytes", spread(floor.cpu, 1e6), "")
    row("  ratio, round by round", ratio(measured, floor), "<= 2")
    row("  ms until it is there", spread(measured.delays, 1e3), "")


async def run(streams: int) -> None:
    await fan_out(streams)
    await many_endpoints(1000, 10, 100)
    await many_endpoints(1, 10_000, 100)


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
