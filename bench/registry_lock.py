"""How quickly the etcd lock goes to the next: after its holder left, and after its holder was killed.

`python -m bench.registry_lock`. The anchor is etcd's own, measured with its leases and transactions alone: 4-14 ms
after a resignation, one time to live after a crash.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import time

from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.registry.lock import EtcdLock
from tests.harness.etcd import Etcd
from tests.harness.process import Process
from tests.harness.service import ROOT

_HANDOVERS, _CRASHES = 300, 5
_HOLDER = """
import asyncio, sys
from lbcore.registry.lock import locked
async def main():
    async with locked(sys.argv[1], "bench", ttl=float(sys.argv[2])):
        print("held", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def handovers(store: str, count: int) -> list[float]:
    """Seconds from one's leaving to another's having it, over two connections that take turns."""
    took: list[float] = []
    left = 0.0

    async def take_turns(connection: EtcdConnection) -> None:
        nonlocal left
        while len(took) < count:
            async with EtcdLock(connection, "bench", ttl=30.0).held():
                if left:
                    took.append(time.perf_counter() - left)
                await asyncio.sleep(0.01)  # the other one stands in the queue by then
                left = time.perf_counter()

    connections = [EtcdConnection(EtcdAddress.parse(store)) for _ in range(2)]
    await asyncio.gather(*map(take_turns, connections))
    for connection in connections:
        await connection.close()
    return took


async def takeovers(store: str, ttl: float, count: int) -> list[float]:
    """Seconds from the end of the holder's process to the lock's being had here."""
    took: list[float] = []
    connection = EtcdConnection(EtcdAddress.parse(store))
    for _ in range(count):
        with Process([sys.executable, "-c", _HOLDER, store, str(ttl)], cwd=ROOT) as process:
            await asyncio.to_thread(process.wait_for_output, "held")
            process.signal(signal.SIGKILL)
            killed = time.perf_counter()
            async with EtcdLock(connection, "bench", ttl=30.0).held():
                took.append(time.perf_counter() - killed)
    await connection.close()
    return took


def main() -> None:
    with Etcd() as etcd:
        store = f"etcd://{etcd.address}/lbcore"
        took = sorted(1e3 * each for each in asyncio.run(handovers(store, _HANDOVERS)))
        median, most = statistics.median(took), took[int(0.99 * len(took))]
        print(f"left by its holder, {len(took)} times: p50 {median:.1f} ms, p99 {most:.1f} ms")
        for ttl in (2.0, 5.0):
            found = asyncio.run(takeovers(store, ttl, _CRASHES))
            print(f"holder killed, ttl {ttl:g} s, {len(found)} times: {min(found):.2f} to {max(found):.2f} s")


if __name__ == "__main__":
    main()
