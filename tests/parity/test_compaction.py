"""A replica that etcd has compacted past while it was cut off: its readers hear of the difference, and of no more."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml

from lbcore.client import RegistryAgent, RegistryClient, RegistryUpdate
from lbcore.model import Endpoint, Health
from tests.harness.envoy import Envoy
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.process import wait_until
from tests.harness.registry_watch import watched
from tests.harness.relay import Relay
from tests.harness.service import ROOT, LbcoreService
from tests.xds.clients import EDS, DeltaClient, method_path, resources

pytestmark = needs_etcd

CHANGED, REMOVED, KEPT, ADDED = (f"10.0.0.{n}:80" for n in range(1, 5))
OTHERS = "10.0.0.9:80"
BEFORE, AFTER = {CHANGED, REMOVED, KEPT}, {CHANGED, KEPT, ADDED}


def replica(folder: Path, store: str) -> LbcoreService:
    folder.mkdir()
    return LbcoreService(folder, "services: {}", "--store", f"etcd://{store}/lbcore")


def changes(updates: list[RegistryUpdate]) -> list[RegistryUpdate]:
    """Without those that say only that what is known is out of date, or is so no more."""
    return [each for each in updates if each.snapshot or each.registrations or each.removed]


@contextmanager
def sampling(envoy: Envoy) -> Iterator[set[frozenset[str]]]:
    """All sets of hosts that Envoy has had of `web`, as often as it can be asked."""
    seen: set[frozenset[str]] = set()
    ending = threading.Event()

    def sample() -> None:
        while not ending.is_set():
            seen.add(frozenset(envoy.hosts("web")))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield seen
    finally:
        ending.set()
        sampler.join(30)


class Assignments:
    """What a delta stream of endpoints is sent, accepted as it comes: the hosts by service, response by response."""

    def __init__(self, client: DeltaClient) -> None:
        self.sent: list[dict[str, set[str]]] = []
        self._client = client

    async def follow(self) -> None:
        await self._client.ask(EDS, "web", "others")
        while True:
            reading: Any = await self._client._call.read()
            response = self._client.response_class.FromString(reading)
            assert list(response.removed_resources) == []
            self.sent.append({name: hosts(each) for name, each in resources(response).items()})
            await self._client.ask(EDS, nonce=response.nonce)


def hosts(assignment: Any) -> set[str]:
    addresses = (
        endpoint.endpoint.address.socket_address
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    )
    return {f"{each.address}:{each.port_value}" for each in addresses}


def bootstrap(address: str, api_type: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "envoy.yaml").read_text())
    loaded["dynamic_resources"]["ads_config"]["api_type"] = api_type
    (cluster,) = loaded["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = int(address.rpartition(":")[2])
    return loaded


def is_stale(service: LbcoreService) -> bool:
    return "registry" in json.loads(service.get("/ready").body)["stale"]


def listed(service: LbcoreService) -> list[Any]:
    with RegistryClient(service.grpc, timeout=30.0) as client:
        return list(client.registrations())


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
async def test_a_replica_below_a_compaction_lists_again_and_its_readers_hear_the_difference_alone(
    etcd: Etcd, tmp_path: Path, api_type: str
) -> None:
    async with AsyncExitStack() as running:
        wait = asyncio.to_thread
        relay = await running.enter_async_context(Relay(etcd.address))
        enter = running.enter_context
        other = enter(await wait(replica, tmp_path / "b", etcd.address))
        agent = enter(RegistryAgent(other.grpc, ttl=60.0))
        running.push_async_callback(wait, agent.close)
        for address in BEFORE:
            await wait(agent.announce, "web", Endpoint(address))
        await wait(agent.announce, "others", Endpoint(OTHERS))
        away = enter(await wait(replica, tmp_path / "a", relay.address))
        await wait(wait_until, lambda: len(listed(away)) == 4, "all at the replica")

        updates = enter(watched(away.grpc))
        channel = await running.enter_async_context(grpc.aio.insecure_channel(away.grpc))
        assignments = Assignments(DeltaClient(channel, method_path("Delta", EDS), EDS, {}))
        following = asyncio.ensure_future(assignments.follow())
        running.callback(following.cancel)
        envoy = enter(Envoy(bootstrap(away.grpc, api_type)))
        await wait(wait_until, lambda: set(envoy.hosts("web")) == BEFORE, "the endpoints in Envoy")
        seen = enter(sampling(envoy))
        await wait(wait_until, lambda: updates and assignments.sent, "what readers are told first")
        told, sent = len(updates), len(assignments.sent)

        relay.cut()
        await wait(wait_until, lambda: is_stale(away), "staleness")
        await wait(agent.announce, "web", Endpoint(CHANGED, weight=7))
        await wait(agent.report, "web", KEPT, health=Health.UNKNOWN, wait=5.0)  # which changes nothing that shows
        await wait(agent.withdraw, "web", REMOVED)
        await wait(agent.announce, "web", Endpoint(ADDED))
        await wait(etcd.compact)
        assert {each.endpoint.address for each in await wait(listed, away)} == {*BEFORE, OTHERS}
        relay.let_through()

        await wait(wait_until, lambda: not is_stale(away), "the end of staleness")
        await wait(wait_until, lambda: set(envoy.hosts("web")) == AFTER, "the difference in Envoy")
        await wait(
            wait_until, lambda: changes(updates[told:]) and len(assignments.sent) > sent, "what readers are told"
        )
        await wait(agent.announce, "others", Endpoint(OTHERS, weight=2))  # and what comes after it
        await wait(
            wait_until, lambda: "others" in assignments.sent[-1] and len(changes(updates[told:])) > 1, "the last"
        )
        assert await wait(listed, away) == await wait(listed, other)
        versions = [json.loads((await wait(each.get, "/ready")).body)["version"] for each in (away, other)]

    difference, last = changes(updates[told:])
    assert (difference.snapshot, [key.address for key in difference.removed]) == (False, [REMOVED])
    assert {each.endpoint.address: each.endpoint.weight for each in difference.registrations} == {CHANGED: 7, ADDED: 1}
    assert ([each.endpoint.address for each in last.registrations], last.removed) == ([OTHERS], ())
    assert (bool(updates[told].stale), changes([updates[told]]), updates[-1].stale) == (True, [], "")
    assert assignments.sent[sent:] == [{"web": AFTER}, {"others": {OTHERS}}]
    assert seen == {frozenset(BEFORE), frozenset(AFTER)}
    assert len(set(versions)) == 1
