"""Active checks of many endpoints from one process: `python -m bench.health_checks [--endpoints N] [--hang PERCENT]`.

A closed loop: a child process answers at N addresses of the loopback network, one `HealthChecker` checks them at an
interval, on uvloop. Printed: checks a second beside the rate that the interval asks for, the checker's share of one
processor, and how much later than due checks began.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import resource
import time
from typing import cast

import numpy as np
import uvloop

from lbcore import Cluster, Endpoint
from lbcore.health import Cause, HealthCheck, HttpCheck, TcpCheck
from lbcore.health.checks import Checks, Timing
from lbcore.health.pace import Pace
from lbcore.health.probe import make_probe

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Answering(asyncio.Protocol):
    """Answers each request on a connection, or nothing at all at an address that hangs."""

    hanging = 0.0  # of the addresses, 0 to 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        host = transport.get_extra_info("sockname")[0]
        _, high, middle, low = map(int, host.split("."))
        self._hangs = (high * 65536 + middle * 256 + low) % 1000 < self.hanging * 1000

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        if not self._hangs:
            self._transport.write(ANSWER)


async def serve(ready: multiprocessing.connection.Connection) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "0.0.0.0", 0, backlog=4096)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def backends(ready: multiprocessing.connection.Connection, hanging: float) -> None:
    raise_file_limit()
    Answering.hanging = hanging
    uvloop.run(serve(ready))


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def measure(check: HealthCheck, addresses: list[str], warm_up: float, seconds: float) -> None:
    late: list[float] = []
    measuring = False

    def note(lateness: float) -> None:
        if measuring:
            late.append(lateness)

    cluster = Cluster("web", map(Endpoint, addresses))
    timing = Timing(lateness=note)
    checks = Checks("web", check, make_probe("web", check), lambda *_: None, Pace(), timing)
    began = time.perf_counter()
    checks.follow(cluster.endpoints)
    await checks.first_round()
    first = time.perf_counter() - began
    await asyncio.sleep(max(0.0, warm_up - first))
    measuring = True
    wall, processor, passed = time.perf_counter(), time.process_time(), checks.counts.success
    await asyncio.sleep(seconds)
    measuring = False
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    passed = checks.counts.success - passed
    p50, p99 = np.percentile(late, [50, 99])
    failures = {cause.value: checks.counts.failures[cause] for cause in Cause if checks.counts.failures[cause]}
    print(f"{len(addresses)} endpoints, interval {check.interval:g} s: first round {first:.2f} s")
    print(f"checks begun {len(late) / wall:.0f} a second, {passed / wall:.0f} passed; failures so far {failures}")
    print(f"processor {processor / wall:.0%} of one, {processor / max(len(late), 1) * 1e6:.0f} us a check")
    print(f"late by p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, max {max(late) * 1e3:.2f} ms")
    await checks.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--hang", type=float, default=0.0, help="percent of the endpoints that never answer")
    parser.add_argument("--kind", choices=["http", "tcp"], default="http")
    arguments = parser.parse_args()
    raise_file_limit()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    child = context.Process(target=backends, args=(theirs, arguments.hang / 100), daemon=True)
    child.start()
    port = mine.recv()
    numbers = range(1, arguments.endpoints + 1)
    addresses = [f"127.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:{port}" for n in numbers]
    kind = HttpCheck if arguments.kind == "http" else TcpCheck
    # Of the interval's size, so that the first checks are spread and with them all that follow.
    check = kind(interval=arguments.interval, timeout=1.0, initial_jitter=arguments.interval, interval_jitter_percent=1)
    try:
        uvloop.run(measure(check, addresses, 2 * arguments.interval, arguments.seconds))
    finally:
        child.terminate()
        child.join()


if __name__ == "__main__":
    main()
