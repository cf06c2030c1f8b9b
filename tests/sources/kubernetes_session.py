"""What the Kubernetes source is led through, against any API server: what it asks and is told is recorded.

Two sessions: one with a server that caches what it watches, as API servers do, and one with a server that asks etcd
each time. The first has all that happens to a Service, and restarts of the server with and without changes meanwhile;
the second pages, and versions that etcd has compacted away.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

from lbcore.membership import Membership
from lbcore.source import Kubernetes
from lbcore.sources import kubernetes
from lbcore.sources.feed import FeedBroken, Timing
from lbcore.sources.kubernetes import KubernetesFeed
from tests.harness.kubernetes_api import endpoint, endpoint_slice
from tests.harness.recording import Recorder
from tests.xds.clients import eventually

__all__ = ["SESSIONS", "Cluster", "cached", "described", "uncached"]

Told = list[list[str]]

_PATIENCE = 150.0  # seconds; API servers send bookmarks about once a minute


class Cluster(ABC):
    """An API server with the namespace `prod`, followed at `url` through `recorder`."""

    recorder: Recorder
    url: str
    token_file: str

    @abstractmethod
    async def put(self, *slices: dict[str, Any]) -> None:
        """Creates or replaces slices, one after another."""

    @abstractmethod
    async def delete(self, name: str) -> None: ...

    @abstractmethod
    async def bookmark(self) -> None:
        """Has the server send one, unless it does by itself in a while."""

    @abstractmethod
    async def restart(self) -> None:
        """Kills the server and starts it again."""

    @abstractmethod
    async def compact(self) -> None:
        """Has etcd forget all that was before now."""


async def cached(cluster: Cluster) -> list[Told]:
    """With a server that caches what it watches."""
    ready = endpoint("10.0.0.1", zone="eu-a", nodeName="n1", hints={"forZones": [{"name": "eu-a"}]})
    unready = endpoint("10.0.0.2", conditions={"ready": False, "serving": False, "terminating": False})
    leaving = endpoint("10.0.0.3", conditions={"ready": False, "serving": True, "terminating": True})
    async with _following(cluster) as heard:
        await heard.until()
        await cluster.put(endpoint_slice("web-1", ready, unready))
        await heard.until("10.0.0.1:8080 healthy", "10.0.0.2:8080 unhealthy")
        await cluster.put(endpoint_slice("web-2", leaving))
        await heard.until("10.0.0.1:8080 healthy", "10.0.0.2:8080 unhealthy", "10.0.0.3:8080 draining")
        await cluster.put(endpoint_slice("web-1", ready))
        await heard.until("10.0.0.1:8080 healthy", "10.0.0.3:8080 draining")
        await cluster.put(endpoint_slice("web-2", leaving, service="api"))  # no longer of this Service
        await heard.until("10.0.0.1:8080 healthy")
        await cluster.delete("web-2")  # of which nobody is told, but the version goes up
        await cluster.bookmark()
        await eventually(lambda: _last(cluster.recorder) == "BOOKMARK", _PATIENCE)
        async with _outage(cluster):
            pass
        await cluster.put(endpoint_slice("web-3", endpoint("10.0.0.4")))
        await heard.until("10.0.0.1:8080 healthy", "10.0.0.4:8080 healthy")
        async with _outage(cluster):
            await cluster.put(endpoint_slice("web-3", endpoint("10.0.0.5")))
            await cluster.delete("web-1")
        await heard.until("10.0.0.5:8080 healthy")
        await cluster.delete("web-3")
        await heard.until()
    return heard.told


async def uncached(cluster: Cluster) -> list[Told]:
    """With a server that asks etcd each time, and with a slice a page."""

    async def compact_between_pages(query: dict[str, str]) -> None:
        if "continue" in query:
            await cluster.put(endpoint_slice("web-1", endpoint("10.0.0.6")))
            await cluster.compact()

    await cluster.put(*(endpoint_slice(f"web-{n}", endpoint(f"10.0.0.{n}")) for n in (1, 2, 3)))
    with patch.object(kubernetes, "_PAGE", 1):
        async with _following(cluster) as heard:
            await heard.until("10.0.0.1:8080 healthy", "10.0.0.2:8080 healthy", "10.0.0.3:8080 healthy")
            async with _outage(cluster):
                await cluster.put(endpoint_slice("web-1", endpoint("10.0.0.4")))
                await cluster.put(endpoint_slice("web-1", endpoint("10.0.0.5")))
                await cluster.compact()
                cluster.recorder.before = compact_between_pages
            await heard.until("10.0.0.6:8080 healthy", "10.0.0.2:8080 healthy", "10.0.0.3:8080 healthy")
    return heard.told


SESSIONS = {"cached": cached, "uncached": uncached}


class _Heard:
    """What a feed has told, without repetitions."""

    def __init__(self, recorder: Recorder) -> None:
        self.told: list[Told] = []
        self._recorder = recorder

    async def until(self, *endpoints: str) -> None:
        """Returns when these are all, and the source watches."""
        expected = [each.split(" ") for each in endpoints]
        await eventually(lambda: self.told and self.told[-1] == expected and self._recorder.watching, _PATIENCE)

    async def follow(self, feed: KubernetesFeed) -> None:
        while True:
            with suppress(FeedBroken):
                async for members in feed.follow():
                    assert isinstance(members, Membership)
                    if described(members) not in self.told[-1:]:
                        self.told.append(described(members))
            await asyncio.sleep(0.05)


def _last(recorder: Recorder) -> str:
    """The type of the last event."""
    events = recorder.exchanges[-1]["events"]
    return events[-1]["type"] if events else ""


def described(members: Membership) -> Told:
    return [[each.address, each.health.name.lower()] for each in members.endpoints]


@asynccontextmanager
async def _following(cluster: Cluster) -> AsyncIterator[_Heard]:
    source = Kubernetes("web", url=cluster.url, namespace="prod", token_file=cluster.token_file)
    heard = _Heard(cluster.recorder)
    following = asyncio.create_task(heard.follow(KubernetesFeed(source, Timing(random=lambda: 0.0))))
    try:
        yield heard
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        cluster.recorder.go_down()
        await eventually(lambda: not cluster.recorder.watching)
        cluster.recorder.go_up()


@asynccontextmanager
async def _outage(cluster: Cluster) -> AsyncIterator[None]:
    """The server cannot be reached while things change, and has been restarted when it can."""
    cluster.recorder.go_down()
    await eventually(lambda: not cluster.recorder.watching)
    yield
    await cluster.restart()
    cluster.recorder.go_up()
    await eventually(lambda: cluster.recorder.watching, _PATIENCE)
