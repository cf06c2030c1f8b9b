"""From a registration to a reader's watch: in one server with a file, and from one server to another through etcd.

    python -m bench.registry_propagation [SECONDS]

Goals on an idle machine: a median of 5 ms in one server, of 10 ms between two, where 99 % of 1 000 updates a second
come within 50 ms. Writer, servers, etcd and reader are processes of their own that share the machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc

from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from tests.harness.etcd import Etcd

RATES = (20, 1000)  # updates a second
ADDRESSES = 50
WRAP = 2**32 - 1  # the weight of a registration tells when it was sent, in microseconds


def now() -> int:
    """Microseconds, the same in every process of this machine."""
    return time.monotonic_ns() // 1000


def write(target: str, rate: int, seconds: float) -> None:
    """Registers so many times a second, one endpoint after the other."""

    def beats() -> Iterator[pb.HeartbeatRequest]:
        begun = time.monotonic()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            which = number % ADDRESSES
            said = pb.Announcement(service=f"s{which}", address=f"10.0.0.{which}:80", weight=1 + now() % WRAP)
            yield pb.HeartbeatRequest(lease_id=lease, announcements=[said])

    with grpc.insecure_channel(target) as channel:
        stub = RegistryStub(channel)
        lease = stub.Register(pb.RegisterRequest()).lease_id
        for _ in stub.Heartbeat(beats()):
            pass
        stub.Deregister(pb.DeregisterRequest(lease_id=lease, all=True))


def read(target: str, writer: str, rate: int, seconds: float) -> list[float]:
    """Milliseconds on the way, of each update that was seen: of one that another follows at once the newer alone is."""
    delays: list[float] = []
    with grpc.insecure_channel(target) as channel:
        watch = RegistryStub(channel).Watch(pb.WatchRequest())
        next(watch)
        writing = subprocess.Popen([sys.executable, "-m", __spec__.name, writer, str(rate), str(seconds)])
        for update in watch:
            arrived = now()
            if update.removed:
                watch.cancel()
                writing.wait(30)
                return delays
            delays += ((arrived - (each.endpoint.weight - 1)) % WRAP / 1e3 for each in update.registrations)
    raise AssertionError


def server(running: ExitStack, store: str) -> str:
    """The address of a service with that store."""
    command = [sys.executable, "-m", "bench.registry_service", store]
    process = running.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    running.callback(process.communicate, timeout=30)
    assert process.stdout is not None
    return f"127.0.0.1:{int(process.stdout.readline())}"


def report(name: str, goal: str, delays: list[float]) -> None:
    hundredths = statistics.quantiles(delays, n=100)
    print(f"{name}: {len(delays)} seen, p50 {hundredths[49]:.2f} ms, p99 {hundredths[98]:.2f} ms; goal: {goal}")


def main(seconds: float) -> None:
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        one = server(running, str(Path(folder, "registry.db")))
        etcd = running.enter_context(Etcd())
        first, second = (server(running, f"etcd://{etcd.address}/lbcore") for _ in range(2))
        for rate in RATES:
            report(f"one server, {rate}/s", "p50 <= 5 ms", read(one, one, rate, seconds))
            report(f"through etcd, {rate}/s", "p50 <= 10 ms, p99 <= 50 ms", read(second, first, rate, seconds))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [target, rate, length]:
            write(target, int(rate), float(length))
        case [length]:
            main(float(length))
        case _:
            main(10.0)
