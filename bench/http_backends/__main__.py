"""Ten backends for each contender, one of them slowed down and one failing at once; all contenders meet the same
requests at the same moments, so whatever else the machine does it does to all of them.

It takes a minute and little of a processor. Backends run in a process of their own, and so does each Envoy. lbcore's
clusters are embedded in this process and told what a client knows: how each request ended, and where a contender's name
says so the requests in flight that the backend reports. Source: `make backends`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy
import uvloop

from lbcore import Adaptive, Cluster, Endpoint, LeastRequest, LoadReport, PeakEwma, RoundRobin
from lbcore.policy import Policy
from tests.harness.bootstrap import StaticCluster, static_bootstrap
from tests.harness.envoy import Envoy
from tests.harness.process import Process, wait_until

MEAN = 0.2  # seconds of work
SLOWED = 0.2  # speed of the slow backend
TIMEOUT = aiohttp.ClientTimeout(total=10)  # then the request has failed; Envoy's own would come after 15 seconds


@dataclass
class Contender:
    """Sends requests its own way, and keeps what became of them."""

    name: str
    policy: Policy
    through_envoy: bool = False
    reports: bool = False
    latencies: list[float] = field(default_factory=list)  # of those that succeeded
    errors: int = 0
    answers: dict[str, int] = field(default_factory=dict)  # by backend
    addresses: list[str] = field(default_factory=list)
    cluster: Cluster | None = None
    envoy: str = ""

    async def request(self, session: aiohttp.ClientSession, work: float) -> None:
        begun = time.perf_counter()
        headers = {"x-work": f"{work:.6f}", "x-cluster": "backends"}
        lease = None if self.cluster is None else self.cluster.acquire()
        address = self.envoy if lease is None else lease.endpoint.address
        status, load = 504, None
        with contextlib.suppress(asyncio.TimeoutError):
            async with session.get(f"http://{address}/", headers=headers) as response:
                status = response.status
                address = response.headers.get("x-upstream", address)
                if self.reports:
                    load = LoadReport(rif=int(response.headers["x-rif"]))
        if lease is not None:
            lease.done(status=status, load=load)
        self.answers[address] = self.answers.get(address, 0) + (status != 504)
        if status < 500:
            self.latencies.append(time.perf_counter() - begun)
        else:
            self.errors += 1


def contenders() -> list[Contender]:
    return [
        Contender("Envoy, ROUND_ROBIN", RoundRobin(), through_envoy=True),
        Contender("Envoy, LEAST_REQUEST", LeastRequest(), through_envoy=True),
        Contender("lbcore, RoundRobin", RoundRobin()),
        Contender("lbcore, LeastRequest", LeastRequest()),
        Contender("lbcore, PeakEwma", PeakEwma()),
        Contender("lbcore, Adaptive", Adaptive()),
        Contender("lbcore, Adaptive, reports", Adaptive(), reports=True),
    ]


async def drive(everybody: Sequence[Contender], rate: float, seconds: float, seed: int) -> None:
    """Poisson arrivals; each goes to every contender at the same time, with the same work."""
    random = numpy.random.default_rng(seed)
    arrivals = numpy.cumsum(random.exponential(1.0 / rate, int(rate * seconds)))
    works = random.exponential(MEAN, arrivals.size)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
        begun = time.perf_counter()
        running = []
        for arrival, work in zip(arrivals, works, strict=True):
            await asyncio.sleep(begun + arrival - time.perf_counter())
            running += [asyncio.create_task(each.request(session, work)) for each in everybody]
        await asyncio.gather(*running)


def table(everybody: Sequence[Contender]) -> str:
    lines = [
        "| | p50 ms | p99 ms | errors % | answered by the slow one % | by the failing one % |",
        "|---|---|---|---|---|---|",
    ]
    for each in everybody:
        p50, p99 = numpy.quantile(each.latencies, (0.5, 0.99)) * 1e3
        total = sum(each.answers.values())
        slow, failing = (100.0 * each.answers.get(address, 0) / total for address in each.addresses[:2])
        errors = 100.0 * each.errors / (each.errors + len(each.latencies))
        lines.append(f"| {each.name} | {p50:.0f} | {p99:.0f} | {errors:.2f} | {slow:.2f} | {failing:.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.http_backends", description=__doc__)
    parser.add_argument("--load", type=float, default=60.0, help="percent of what the healthy and the slow ones serve")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    speeds = [SLOWED, 0.0, *[1.0] * 8]
    rate = arguments.load / 100.0 * sum(speeds) / MEAN
    everybody = contenders()
    argv = [sys.executable, "-m", "bench.http_backends.servers", *map(str, speeds * len(everybody))]
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Process(argv))
        wait_until(lambda: servers.stdout.endswith("\n"), "the backends' ports")
        addresses = [f"127.0.0.1:{port}" for port in servers.stdout.split()]
        for place, each in enumerate(everybody):
            each.addresses = addresses[place * len(speeds) : (place + 1) * len(speeds)]
            endpoints = tuple(Endpoint(address) for address in each.addresses)
            if each.through_envoy:
                static = StaticCluster(name="backends", endpoints=endpoints, policy=each.policy)
                each.envoy = stack.enter_context(Envoy(static_bootstrap([static]))).listeners()["ingress"]
            else:
                each.cluster = Cluster("backends", endpoints, policy=each.policy, seed=arguments.seed)
        uvloop.run(drive(everybody, rate, arguments.seconds, arguments.seed))
    print(f"{rate:.0f} requests/s for {arguments.seconds:g} s, exponential work of {MEAN * 1e3:g} ms on average;")
    print(f"of ten backends one at a speed of {SLOWED:g} and one that answers 503 at once.\n")
    print(table(everybody))
    return 0


if __name__ == "__main__":
    sys.exit(main())
