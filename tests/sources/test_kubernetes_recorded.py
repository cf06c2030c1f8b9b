"""Sessions recorded with a real API server: the source is told the same by them, and our API server says the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from lbcore.source import Kubernetes
from lbcore.sources import kubernetes
from lbcore.sources.feed import FeedBroken, Timing
from lbcore.sources.kubernetes import KubernetesFeed
from tests.harness.kubernetes_api import KubernetesApi
from tests.harness.recording import Recorder, Replay, comparable
from tests.sources.following import Following
from tests.sources.kubernetes_session import SESSIONS, Cluster, described

RECORDED: dict[str, Any] = json.loads((Path(__file__).with_name("recordings") / "kubernetes.json").read_text())
PAGES = {"cached": 500, "uncached": 1}


class OurCluster(Cluster):
    """Our API server, for which a restart is that watches end and what was before is forgotten."""

    def __init__(self, api: KubernetesApi, folder: Path) -> None:
        self._api = api
        self.token_file = str(folder / "token")
        Path(self.token_file).write_text("of-reader")
        api.tokens = {f"of-{user}": user for user in ("reader", "nobody")}
        api.readers = frozenset({"reader"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with TestServer(self._api.application()) as server, aiohttp.ClientSession() as session:
            self.recorder = Recorder(str(server.make_url("")).rstrip("/"), session)
            async with TestServer(self.recorder.application()) as recorder:
                self.url = str(recorder.make_url(""))
                yield
                await self._api.cut()

    async def put(self, *slices: dict[str, Any]) -> None:
        await self._api.put(*slices)

    async def delete(self, name: str) -> None:
        await self._api.delete(name)

    async def bookmark(self) -> None:
        await self._api.bookmark()

    async def restart(self) -> None:
        self._api.compact()
        await self._api.cut()

    async def compact(self) -> None:
        self._api.compact()


@pytest.mark.parametrize("name", SESSIONS)
async def test_the_source_is_told_the_same_as_when_it_was_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "_PAGE", PAGES[name])
    replay = Replay(RECORDED[name]["exchanges"])
    told: list[Any] = []
    async with TestServer(replay.application()) as server:
        source = Kubernetes("web", url=str(server.make_url("")), namespace="prod")
        async with Following(KubernetesFeed(source, Timing(random=lambda: 0.0))) as feed:
            while not replay.finished:
                replay.go_on()
                try:
                    members = described(await feed.next())
                except FeedBroken:
                    continue  # a watch that was cut
                if members not in told[-1:]:
                    told.append(members)
    assert (replay.surprise, told) == ("", RECORDED[name]["told"])


@pytest.mark.parametrize("name", SESSIONS)
async def test_our_api_server_says_what_a_real_one_says(name: str, tmp_path: Path) -> None:
    cluster = OurCluster(KubernetesApi(cached=name == "cached"), tmp_path)
    async with cluster.running():
        told = await SESSIONS[name](cluster)
        exchanges = cluster.recorder.exchanges
    assert told == RECORDED[name]["told"]
    assert comparable(exchanges) == comparable(RECORDED[name]["exchanges"])


@pytest.mark.parametrize("refused", RECORDED["refused"], ids=lambda refused: str(refused["status"]))
async def test_who_may_not_read_is_told_so_by_both(refused: dict[str, Any], tmp_path: Path) -> None:
    cluster = OurCluster(KubernetesApi(), tmp_path)
    (tmp_path / "nobody").write_text("of-nobody")
    token_file = str(tmp_path / "nobody") if refused["status"] == 403 else ""
    async with cluster.running():
        source = Kubernetes("web", url=cluster.url, namespace="prod", token_file=token_file)
        async with Following(KubernetesFeed(source, Timing())) as feed:
            assert await feed.broken() == refused["reason"]
        assert cluster.recorder.exchanges == [{key: value for key, value in refused.items() if key != "reason"}]
