"""From a change in the Directory to the first request that follows it, through the real Envoy and a gRPC client.

    python -m bench.xds_propagation [ROUNDS]

A service moves between two backends while requests go out one after the other. The xDS server, the backends and the
client are processes of their own, as they are where it counts: threads of one would wait for each other's GIL, for
milliseconds. All share the machine, so the figures are upper bounds; the goals are medians on an idle one. What the
gRPC client takes by itself, to connect above all, a server shows that only sends what it has made before.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import grpc

from bench.backends import backends
from bench.xds_fleet import Server, server
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import ADDRESS_METHOD
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.parity.example_envoy import bootstrap_from, listening

PAUSE = 0.02  # seconds between two changes


def delays(rounds: int, addresses: list[str], move_to: Callable[[str], float], ask: Callable[[], str]) -> list[float]:
    """Milliseconds from each change until a request has reached where it leads; a first few are not counted."""
    found = []
    for number in range(-5, rounds):
        wanted = addresses[(number + 1) % 2]
        begun = move_to(wanted)
        while ask() != wanted:
            pass
        if number >= 0:
            found.append((time.monotonic() - begun) * 1e3)
        time.sleep(PAUSE)
    return found


def mover(running: Server, listener: str) -> Callable[[str], float]:
    """Moves the service to an address; returns the time at which the Directory was told."""
    return lambda address: running.say(f"move {address} {listener}")["time"]


def through_envoy(rounds: int) -> list[float]:
    with server(1, 1) as running, backends("http", 2) as addresses:
        move_to = mover(running, f"127.0.0.1:{free_port()}")
        move_to(addresses[0])
        with Envoy(bootstrap_from(running.port, "DELTA_GRPC")) as envoy, HttpClient(listening(envoy)) as client:
            return delays(rounds, addresses, move_to, lambda: client.get().headers["x-backend"])


def through_grpc(rounds: int, module: str = "bench.xds_server") -> list[float]:
    with server(1, 1, module) as running, backends("grpc", 2) as addresses:
        move_to = mover(running, f"127.0.0.1:{free_port()}")
        move_to(addresses[0])
        bootstrap = {"server_uri": f"127.0.0.1:{running.port}", "channel_creds": [{"type": "insecure"}]}
        os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps({"xds_servers": [bootstrap], "node": {"id": "bench"}})
        with grpc.insecure_channel("xds:///web") as channel:
            method = channel.unary_unary(ADDRESS_METHOD, bytes, bytes)
            return delays(rounds, addresses, move_to, lambda: method(b"", timeout=5).decode())


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for name, measure, goal in (
        ("Envoy", through_envoy, "goal: median <= 4 ms"),
        ("gRPC", through_grpc, "goal: median <= 3 ms"),
        (
            "gRPC, prepared responses",
            partial(through_grpc, module="bench.xds_prepared"),
            "what the client takes by itself",
        ),
    ):
        tenths = statistics.quantiles(values := measure(count), n=20)
        print(
            f"{name}: {statistics.median(values):.2f} ms [p10 {tenths[1]:.2f}, p95 {tenths[18]:.2f}]"
            f" from a change to the first request that follows it; {goal}"
        )
