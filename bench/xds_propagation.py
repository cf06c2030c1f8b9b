"""From a change in the Directory to the first request that follows it, through the real Envoy and a gRPC client.

    python -m bench.xds_propagation [ROUNDS]

A service moves between two backends while requests go out one after the other. Server, client and backends share the
machine, so that the figures are upper bounds; the goals are medians on an idle one.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint
from lbcore.routing import Listener, Route
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import ADDRESS_METHOD, GrpcBackends
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.parity.example_envoy import bootstrap, listening

PAUSE = 0.02  # seconds between two changes


def delays(rounds: int, backends: list[str], move_to: Callable[[str], None], ask: Callable[[], str]) -> list[float]:
    """Milliseconds from each change until a request reaches where it leads."""
    found = []
    for number in range(rounds):
        wanted = backends[(number + 1) % 2]
        begun = time.perf_counter()
        move_to(wanted)
        while ask() != wanted:
            pass
        found.append((time.perf_counter() - begun) * 1e3)
        time.sleep(PAUSE)
    return found


def through_envoy(rounds: int) -> list[float]:
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=(Route(prefix="/", service="web"),))
    with ControlPlane() as plane, HttpBackends(["127.0.0.1"] * 2) as backends:

        def move_to(address: str) -> None:
            plane.publish(ServiceSnapshot(name="web", endpoints=(Endpoint(address),)), listeners=[listener])

        move_to(backends.addresses[0])
        with Envoy(bootstrap(plane, "DELTA_GRPC")) as envoy, HttpClient(listening(envoy)) as client:
            return delays(rounds, backends.addresses, move_to, lambda: client.get().headers["x-backend"])


def through_grpc(rounds: int) -> list[float]:
    with ControlPlane() as plane, GrpcBackends(["127.0.0.1:0"] * 2) as backends:

        def move_to(address: str) -> None:
            plane.publish(ServiceSnapshot(name="web", endpoints=(Endpoint(address),)))

        move_to(backends.addresses[0])
        server = {"server_uri": plane.address, "channel_creds": [{"type": "insecure"}]}
        os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps({"xds_servers": [server], "node": {"id": "bench"}})
        import grpc

        with grpc.insecure_channel("xds:///web") as channel:
            method = channel.unary_unary(ADDRESS_METHOD)
            return delays(rounds, backends.addresses, move_to, lambda: method(b"", timeout=5).decode())


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for name, measure, goal in (("Envoy", through_envoy, 4), ("gRPC", through_grpc, 3)):
        tenths = statistics.quantiles(values := measure(count), n=20)
        print(
            f"{name}: {statistics.median(values):.2f} ms [p10 {tenths[1]:.2f}, p95 {tenths[18]:.2f}]"
            f" from a change to the first request that follows it; goal: median <= {goal} ms"
        )
