"""A thousand clients that come, go and come back at one moment: each is right, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from tests.xds.clients import EDS, Plane, RawStream, eventually, ports, resources, service

CLIENTS = 1000
AT_ONCE = 250  # opened together where the test is not of that


def alive() -> Counter[str]:
    """How many objects of the server's own kinds there are."""
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("lbcore.xds"))


async def open_and_close(served: Plane, method: str) -> None:
    clients: list[RawStream] = [getattr(served, method)() for _ in range(AT_ONCE)]
    for client in clients:
        await client.ask(EDS, "web")  # type: ignore[attr-defined]
    for number, client in enumerate(clients):
        assert (await client.receive(EDS)).resources  # type: ignore[attr-defined]
        if number % 2:
            client.cancel()
        else:
            await client.half_close()
    await eventually(lambda: served.xds.stream_count == 0)


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_a_thousand_streams_opened_and_closed_leave_nothing(served: Plane, method: str) -> None:
    served.publish(service("web", 1))
    await open_and_close(served, method)
    tasks, objects = len(asyncio.all_tasks()), alive()
    for _ in range(CLIENTS // AT_ONCE):
        await open_and_close(served, method)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    assert alive() - objects == Counter()


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_a_thousand_clients_that_reconnect_at_once_all_have_the_newest(served: Plane, method: str) -> None:
    served.publish(service("web", 1))

    async def follow(port: int) -> RawStream:
        client: RawStream = getattr(served, method)()
        await client.ask(EDS, "web")  # type: ignore[attr-defined]
        assert ports(resources(await client.receive(EDS))["web"]) == [port]  # type: ignore[attr-defined]
        return client

    clients = await asyncio.gather(*(follow(1) for _ in range(CLIENTS)))
    for client in clients:
        client.cancel()
    served.publish(service("web", 2))
    again = await asyncio.gather(*(follow(2) for _ in range(CLIENTS)))
    await eventually(lambda: served.xds.stream_count == CLIENTS)
    for client in again:
        client.cancel()
