"""What the registry promises to readers of the Directory: never early, never emptied by silence, never kept busy."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from lbcore.directory import Directory
from lbcore.errors import StoreFailed
from lbcore.model import Endpoint, Health
from lbcore.registration import Announcement, Key, RegistrySettings, Report
from lbcore.registry.embedded import EmbeddedRegistry
from lbcore.registry.journal import Journal
from tests.registry.clock import Clock

TTL = 15.0


def of(*addresses: str, service: str = "web") -> list[Announcement]:
    return [Announcement(service, Endpoint(address)) for address in addresses]


def addresses(directory: Directory, service: str = "web") -> list[str]:
    snapshot = directory.current.services.get(service)
    return [each.address for each in snapshot.endpoints] if snapshot else []


async def published(directory: Directory) -> None:
    """Lets the publisher do what is due."""
    before = directory.current
    for _ in range(100):
        await asyncio.sleep(0.005)
        if directory.current is not before:
            return


class Scene:
    """A registry that runs, with a clock that the test moves."""

    def __init__(self, journal: Journal | None = None, debounce: float = 0.0) -> None:
        self.clock = Clock()
        self.directory = Directory()
        self.registry = EmbeddedRegistry(self.directory, RegistrySettings(debounce=debounce), journal, self.clock)

    async def __aenter__(self) -> Scene:
        self.registry.open()
        self._running = asyncio.ensure_future(self.registry.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self.registry.close()


async def test_nothing_is_answered_before_what_an_earlier_process_kept_is_there(tmp_path: Path) -> None:
    async with Scene(Journal(tmp_path / "registry.db")) as first:
        await first.registry.register(0, TTL, of("10.0.0.1:80"))
    second = Scene(Journal(tmp_path / "registry.db"))
    before = second.directory.synced
    async with second:
        assert (before, second.directory.synced, addresses(second.directory)) == (False, True, ["10.0.0.1:80"])


async def test_when_nine_of_ten_leases_run_out_at_once_nothing_leaves_the_directory_and_staleness_shows() -> None:
    async with Scene() as scene:
        leases = [(await scene.registry.register(0, TTL, of(f"10.0.0.{n}:80"))).lease for n in range(10)]
        await published(scene.directory)
        watch = scene.registry.watch()
        assert (await anext(watch)).stale == ""
        for _ in range(60):
            scene.clock.advance(1.0)
            await scene.registry.heartbeat(leases[0])
            await scene.registry.sweep()
            assert len(addresses(scene.directory)) == 10
        await published(scene.directory)
        reason = "most of the service fell silent at once: web (9)"
        assert reason in scene.directory.current.stale["registry"]
        assert (reason in scene.registry.stale, reason in (await anext(watch)).stale) == (True, True)
        await scene.registry.deregister(leases[9], [Key("web", "10.0.0.9:80")])
        await published(scene.directory)
        assert len(addresses(scene.directory)) == 9
        for lease in leases[:9]:
            await scene.registry.heartbeat(lease)
        await scene.registry.sweep()
        await published(scene.directory)
        assert (dict(scene.directory.current.stale), len(addresses(scene.directory))) == ({}, 9)


async def test_an_endpoint_that_flaps_is_published_once_in_each_window_and_as_it_ends() -> None:
    async with Scene(debounce=0.2) as scene:
        lease = (await scene.registry.register(0, TTL, of("10.0.0.1:80"))).lease
        await published(scene.directory)
        before = scene.directory.current.revision
        begun = asyncio.get_running_loop().time()
        for number in range(60):
            health = Health.UNHEALTHY if number % 2 else Health.HEALTHY
            await scene.registry.heartbeat(lease, [Report(Key("web", "10.0.0.1:80"), health)])
            await asyncio.sleep(0.01)
        windows = (asyncio.get_running_loop().time() - begun) / 0.2
        pushes = scene.directory.current.revision - before
        await asyncio.sleep(0.3)
        assert pushes <= windows + 1
        assert scene.directory.current.services["web"].endpoints[0].health is Health.UNHEALTHY


async def test_the_first_change_after_a_pause_is_published_at_once() -> None:
    async with Scene(debounce=30.0) as scene:
        await scene.registry.register(0, TTL, of("10.0.0.1:80"))
        await published(scene.directory)
        assert addresses(scene.directory) == ["10.0.0.1:80"]


async def test_what_is_much_at_once_is_published_in_parts_and_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbcore.registry.publishing._PART", 10)
    async with Scene() as scene:
        await published(scene.directory)
        before = scene.directory.current.revision
        many = [each for n in range(20) for each in of("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", service=f"s{n}")]
        lease = (await scene.registry.register(0, TTL, many)).lease
        while len(scene.directory.current.services) < 20:
            await published(scene.directory)
        assert scene.directory.current.revision == before + 5
        assert {len(service.endpoints) for service in scene.directory.current.services.values()} == {3}
        await scene.registry.revoke(lease)
        while scene.directory.current.services:
            await published(scene.directory)


async def test_a_revoked_lease_leaves_at_once_with_all_that_it_has() -> None:
    async with Scene() as scene:
        lease = (await scene.registry.register(0, TTL, of("10.0.0.1:80", "10.0.0.2:80"))).lease
        await published(scene.directory)
        await scene.registry.revoke(lease)
        await published(scene.directory)
        assert "web" not in scene.directory.current.services


async def test_members_are_in_the_order_of_their_addresses_whoever_came_first() -> None:
    async with Scene() as scene:
        for address in ("10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80"):
            await scene.registry.register(0, TTL, of(address))
        await published(scene.directory)
        await asyncio.sleep(0.02)
        assert addresses(scene.directory) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]


async def test_two_hundred_requests_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    async with Scene(Journal(path)) as scene:
        await asyncio.gather(*(scene.registry.register(0, TTL, of(f"10.0.1.{n}:80")) for n in range(200)))
    assert len(Journal(path).open()[1]) == 200


async def test_a_file_that_is_no_registry_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"this is no database, but it is long enough to look at" * 50)
    with pytest.raises(StoreFailed, match=r"registry\.db: file is not a database"):
        Journal(path).open()


async def test_a_file_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    async with Scene(Journal(path)) as scene:
        await scene.registry.register(0, TTL, of("10.0.0.1:80"))
        with pytest.raises(StoreFailed, match="database is locked"):
            await asyncio.to_thread(Journal(path).open)


async def test_a_reader_that_was_away_too_long_gets_a_snapshot() -> None:
    async with Scene() as scene:
        lease = (await scene.registry.register(0, TTL, of("10.0.0.1:80"))).lease
        revision, epoch = scene.registry.revision, scene.registry.epoch
        key = Key("web", "10.0.0.1:80")
        for number in range(10_050):
            await scene.registry.heartbeat(lease, [Report(key, Health.HEALTHY if number % 2 else Health.DEGRADED)])
        away = await anext(scene.registry.watch("web", epoch, revision))
        near = await anext(scene.registry.watch("web", epoch, scene.registry.revision - 5))
        assert (away.snapshot is not None, near.snapshot, len(near.changes)) == (True, None, 1)


async def test_a_watch_of_one_service_hears_nothing_of_others() -> None:
    async with Scene() as scene:
        watch = scene.registry.watch("web")
        assert (await anext(watch)).snapshot == ()
        following = asyncio.ensure_future(anext(watch))
        await scene.registry.register(0, TTL, of("10.0.0.1:80", service="api"))
        await asyncio.sleep(0.02)
        silent = not following.done()
        await scene.registry.register(0, TTL, of("10.0.0.2:80"))
        update = await asyncio.wait_for(following, 30)
        assert (silent, [change.key.service for change in update.changes]) == (True, ["web"])
