"""The hub: what sources publish is what readers see, in order, whole, and never emptied by a source that fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from lbcore.directory import Directory, DirectorySnapshot, ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint, Locality
from lbcore.policy import Random, RingHash
from lbcore.routing import Listener

TIME_LIMIT = 30.0  # seconds for what happens at once


def service(name: str, *addresses: str, **settings: object) -> ServiceSnapshot:
    return ServiceSnapshot(name=name, endpoints=tuple(map(Endpoint, addresses)), **settings)  # type: ignore[arg-type]


async def the_next(watch: AsyncIterator[DirectorySnapshot]) -> DirectorySnapshot:
    return await asyncio.wait_for(anext(watch), TIME_LIMIT)


async def nothing_more(watch: AsyncIterator[DirectorySnapshot]) -> bool:
    waiting = asyncio.ensure_future(anext(watch))
    for _ in range(20):
        await asyncio.sleep(0)
    silent = not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return silent


def test_a_publication_replaces_all_that_the_source_said_before() -> None:
    directory = Directory()
    directory.publish("file", [service("web"), service("api")])
    directory.publish("file", [service("web", "10.0.0.1:80")])
    assert directory.current.services == {"web": service("web", "10.0.0.1:80")}


def test_sources_publish_beside_each_other() -> None:
    directory = Directory()
    directory.publish("file", [service("web")])
    directory.publish("etcd", [service("api")])
    directory.publish("file", [])
    assert set(directory.current.services) == {"api"}


def test_publishing_the_same_again_changes_nothing() -> None:
    directory = Directory()
    directory.publish("file", [service("web", "10.0.0.1:80")])
    before = directory.current
    assert not directory.publish("file", [service("web", "10.0.0.1:80")])
    assert directory.current is before


def test_an_unchanged_service_keeps_its_object_while_another_changes() -> None:
    directory = Directory()
    directory.publish("file", [service("web"), service("api")])
    web = directory.current.services["web"]
    directory.publish("file", [service("web"), service("api", "10.0.0.1:80")])
    assert directory.current.services["web"] is web


def test_metadata_that_changes_from_1_to_true_is_a_change() -> None:
    directory = Directory()
    for value in (1, True):
        endpoint = Endpoint("10.0.0.1:80", metadata={"canary": value})
        assert directory.publish("file", [ServiceSnapshot(name="web", endpoints=(endpoint,))])
    assert directory.current.services["web"].endpoints[0].metadata["canary"] is True


def test_a_change_of_listeners_alone_is_a_change() -> None:
    directory = Directory()
    directory.publish("file", [service("web")])
    listener = Listener(name="in", address="127.0.0.1:80", routes=())
    assert directory.publish("file", [service("web")], [listener])
    assert directory.current.listeners == (listener,)


@pytest.mark.parametrize(
    ("services", "listeners", "expected"),
    [
        ([service("api"), service("web")], [], "service 'web' of source 'etcd': source 'file' already has it"),
        ([service("api"), service("api")], [], "service 'api' of source 'etcd': expected each name once"),
        (
            [service("api")],
            [Listener(name="in", address="127.0.0.1:81", routes=())],
            "name 'in': expected each name once",
        ),
        (
            [],
            [Listener(name="two", address="127.0.0.1:80", routes=())],
            "address '127.0.0.1:80': expected each address",
        ),
    ],
)
def test_a_clash_is_refused_and_changes_nothing(
    services: list[ServiceSnapshot], listeners: list[Listener], expected: str
) -> None:
    directory = Directory()
    directory.publish("file", [service("web")], [Listener(name="in", address="127.0.0.1:80", routes=())])
    before = directory.current
    with pytest.raises(InvalidSetting, match=expected):
        directory.publish("etcd", services, listeners)
    assert directory.current is before


def test_a_source_that_fails_keeps_its_services_and_is_marked_stale() -> None:
    directory = Directory()
    directory.publish("file", [service("web")])
    directory.mark_stale("file", "no such file")
    assert (set(directory.current.services), directory.current.stale) == ({"web"}, {"file": "no such file"})


def test_publishing_again_ends_staleness_of_that_source_only() -> None:
    directory = Directory()
    directory.mark_stale("file", "broken")
    directory.mark_stale("etcd", "away")
    directory.publish("file", [])
    assert directory.current.stale == {"etcd": "away"}


def test_marking_stale_for_the_same_reason_again_changes_nothing() -> None:
    directory = Directory()
    directory.mark_stale("file", "broken")
    before = directory.current
    directory.mark_stale("file", "broken")
    assert directory.current is before


def test_revisions_count_up_with_each_change() -> None:
    directory = Directory()
    seen = [directory.current.revision]
    for change in (lambda: directory.publish("file", [service("web")]), lambda: directory.mark_stale("file", "x")):
        change()
        seen.append(directory.current.revision)
    assert seen == [0, 1, 2]


def test_a_snapshot_that_was_read_never_changes() -> None:
    directory = Directory()
    directory.publish("file", [service("web")])
    read = directory.current
    directory.publish("file", [])
    assert set(read.services) == {"web"}
    with pytest.raises(TypeError):
        read.services["web"] = service("web")  # type: ignore[index]


async def test_a_watch_begins_with_the_current_snapshot() -> None:
    directory = Directory()
    directory.publish("file", [service("web")])
    assert set((await the_next(directory.watch())).services) == {"web"}


async def test_every_watch_gets_each_change() -> None:
    directory = Directory()
    watches = [directory.watch(), directory.watch()]
    for watch in watches:
        await the_next(watch)
    waiting = [asyncio.ensure_future(the_next(watch)) for watch in watches]
    await asyncio.sleep(0)
    directory.publish("file", [service("web")])
    assert [set(snapshot.services) for snapshot in await asyncio.gather(*waiting)] == [{"web"}, {"web"}]


async def test_a_slow_watch_gets_only_the_newest_snapshot() -> None:
    directory = Directory()
    watch = directory.watch()
    await the_next(watch)
    for name in ("a", "b", "c"):
        directory.publish("file", [service(name)])
    assert set((await the_next(watch)).services) == {"c"}
    assert await nothing_more(watch)


async def test_a_watch_is_silent_while_nothing_changes() -> None:
    directory = Directory()
    watch = directory.watch()
    await the_next(watch)
    directory.publish("file", [])
    assert await nothing_more(watch)


async def test_staleness_reaches_watches() -> None:
    directory = Directory()
    watch = directory.watch()
    await the_next(watch)
    directory.mark_stale("file", "broken")
    assert (await the_next(watch)).stale == {"file": "broken"}


async def test_a_watch_that_ends_is_forgotten() -> None:
    directory = Directory()
    watch = directory.watch()
    await the_next(watch)
    await watch.aclose()  # type: ignore[attr-defined]
    assert not directory._watches


async def test_nothing_is_told_before_every_awaited_source_has_published() -> None:
    directory = Directory()
    directory.await_source("file")
    directory.await_source("etcd")
    directory.publish("file", [service("web")])
    assert not directory.synced
    assert await nothing_more(directory.watch())


async def test_a_watch_that_waited_for_the_first_sync_gets_it_even_if_it_is_empty() -> None:
    directory = Directory()
    directory.await_source("file")
    waiting = asyncio.ensure_future(the_next(directory.watch()))
    await asyncio.sleep(0)
    directory.publish("file", [])
    assert (await waiting).services == {}


async def test_an_awaited_source_that_only_fails_is_no_sync() -> None:
    directory = Directory()
    directory.await_source("file")
    directory.mark_stale("file", "broken")
    assert not directory.synced
    assert await nothing_more(directory.watch())


def test_a_source_that_has_published_already_is_not_waited_for() -> None:
    directory = Directory()
    directory.publish("file", [])
    directory.await_source("file")
    assert directory.synced


DESCRIBED = """
from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import RingHash
from lbcore.settings import HealthCheck, HttpHealthCheck, OutlierDetection

metadata = {"hash_key": "b", "zürich": [1, 2.5, None, {"z": True, "a": {}}]}
endpoints = (
    Endpoint("10.0.0.1:80", weight=3, locality="eu/a", health=Health.DEGRADED, metadata=metadata),
    Endpoint("unix:/run/app.sock", priority=1, hostname="app"),
)
snapshot = ServiceSnapshot(
    name="web", endpoints=endpoints, policy=RingHash(minimum_ring_size=4096),
    locality_weights={Locality("us"): 1, Locality("eu", "a"): 2}, panic_threshold=40,
    health_check=HealthCheck(http=HttpHealthCheck(path="/healthz")), outlier_detection=OutlierDetection(),
)
"""


def test_a_version_is_the_same_in_another_process() -> None:
    here: dict[str, ServiceSnapshot] = {}
    exec(DESCRIBED, here)
    command = [sys.executable, "-R", "-c", f"{DESCRIBED}\nprint(snapshot.version)"]
    there = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert there.stdout.strip() == here["snapshot"].version


def test_a_version_does_not_depend_on_the_order_of_metadata_or_of_locality_weights() -> None:
    weights = {Locality("eu"): 1, Locality("us"): 2}
    metadata = {"a": 1, "b": {"c": 1, "d": 2}}
    backwards = {"b": {"d": 2, "c": 1}, "a": 1}
    one = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", metadata=metadata),), locality_weights=weights)
    other = ServiceSnapshot(
        name="web",
        endpoints=(Endpoint("10.0.0.1:80", metadata=backwards),),
        locality_weights=dict(reversed(weights.items())),
    )
    assert one.version == other.version


def test_a_version_does_not_depend_on_how_a_number_was_given() -> None:
    assert service("web", panic_threshold=40).version == service("web", panic_threshold=40.0).version


@pytest.mark.parametrize(
    "other",
    [
        service("wob", "10.0.0.1:80"),
        service("web", "10.0.0.2:80"),
        service("web", "10.0.0.1:80", "10.0.0.2:80"),
        service("web", "10.0.0.1:80", panic_threshold=40),
        service("web", "10.0.0.1:80", policy=Random()),
        service("web", "10.0.0.1:80", policy=RingHash()),
        service("web", "10.0.0.1:80", policy=RingHash(minimum_ring_size=2)),
        service("web", "10.0.0.1:80", locality_weights={Locality("eu"): 2}),
        service("web", "10.0.0.1:80", locality_weights={Locality("", "eu"): 2}),
        ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", weight=2),)),
        ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", metadata={"canary": 1}),)),
        ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", metadata={"canary": True}),)),
    ],
)
def test_any_change_of_content_changes_the_version(other: ServiceSnapshot) -> None:
    assert other.version != service("web", "10.0.0.1:80").version


def test_services_that_differ_in_one_way_each_have_versions_of_their_own() -> None:
    policies = [Random(), RingHash(), RingHash(use_hostname_for_hashing=True)]
    places = [{}, {Locality("eu"): 2}, {Locality("", "eu"): 2}, {Locality("eu"): 3}]
    versions = [
        service("web", policy=policy, locality_weights=place).version for policy in policies for place in places
    ]
    assert len(set(versions)) == len(versions)
