"""What 200 000 registered endpoints take: the memory of a registry that keeps and publishes them.

    python -m bench.registry_memory [ENDPOINTS]

Goal: 1 KiB each, with the directory, the journal and the history that readers resume from.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from pathlib import Path

from lbcore.directory import Directory
from lbcore.model import Endpoint
from lbcore.registration import Announcement
from lbcore.registry.embedded import EmbeddedRegistry
from lbcore.registry.journal import Journal

BATCH, SERVICES, AGENTS = 1000, 2000, 200


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def held(count: int, path: Path) -> float:
    """Bytes that each of so many endpoints takes."""
    before = resident()
    registry = EmbeddedRegistry(directory := Directory(), journal=Journal(path))
    registry.open()
    running = asyncio.ensure_future(registry.run())
    leases = [(await registry.register(0, 3600.0, [])).lease for _ in range(AGENTS)]
    for first in range(0, count, BATCH):
        announcements = [
            Announcement(f"service-{n % SERVICES}", Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:8080"))
            for n in range(first, first + BATCH)
        ]
        await registry.register(leases[first // BATCH % AGENTS], None, announcements)
    async for snapshot in directory.watch():
        if sum(len(service.endpoints) for service in snapshot.services.values()) == count:
            break
    after = resident()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await registry.close()
    return (after - before) / count


if __name__ == "__main__":
    endpoints = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        each = asyncio.run(held(endpoints, Path(folder, "registry.db")))
    print(f"{endpoints} endpoints: {each:.0f} bytes each; goal: at most 1024")
