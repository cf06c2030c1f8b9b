"""Health checks shared out over a real etcd, among servers that come, go and crash, with backends that fail."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import pytest

from lbcore.directory import Directory
from lbcore.etcd.address import EtcdAddress
from lbcore.health import HttpCheck
from lbcore.health.overlay import DirectoryHealth
from lbcore.model import CheckedHealth, Endpoint, Health
from lbcore.registration import RegistrySettings
from lbcore.registry.etcd.registry import EtcdRegistry
from lbcore.snapshot import ServiceSnapshot
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.unreliable import Mood, UnreliableBackends

pytestmark = needs_etcd

LIMIT = 30.0  # seconds
CHECK = HttpCheck(interval=0.05, timeout=2.0, healthy_threshold=2, unhealthy_threshold=3)


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


class Server:
    """One of the servers, with the parts that share health checks."""

    def __init__(self, address: EtcdAddress, addresses: list[str], owners: int) -> None:
        self.directory = Directory()
        self.registry = EtcdRegistry(
            self.directory,
            address,
            RegistrySettings(debounce=0.01, check_owners=owners, checker_ttl=2.0),
        )
        endpoints = tuple(map(Endpoint, addresses))
        self.directory.publish("file", [ServiceSnapshot(name="web", endpoints=endpoints, health_check=CHECK)])
        self.health = DirectoryHealth(self.directory, window=0.02, board=self.registry.board)
        self.unhealthy_seen: set[str] = set()

    async def start(self) -> None:
        self.registry.open()
        await self.health.first_round()
        self._tasks = [
            asyncio.ensure_future(part) for part in (self.registry.run(), self.health.run(), self._keep_looking())
        ]
        await until(lambda: self.registry.board.members, "membership")

    async def end(self) -> None:
        await self._stop()
        await self.registry.close()

    async def crash(self) -> None:
        """As kill -9 does, its lease stays until it runs out."""
        self.registry._leases.revoke = _cannot  # type: ignore[method-assign, assignment]
        await self.end()

    def health_of(self) -> dict[str, Health]:
        return {each.address: each.health for each in self.directory.current.services["web"].endpoints}

    def checked_here(self) -> int:
        return sum(count for _, count in self.health.checked_here())

    def knows(self, members: int) -> bool:
        return len(self.registry.board.members) == members

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.health.close()

    async def _keep_looking(self) -> None:
        """Notes whatever is shown as unhealthy, be it for a moment."""
        async for snapshot in self.directory.watch():
            self.unhealthy_seen |= {
                each.address for each in snapshot.services["web"].endpoints if each.health is Health.UNHEALTHY
            }


async def _cannot(_: int) -> None:
    return


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    """One for all tests: each has a prefix of its own."""
    with Etcd() as running:
        yield running


@pytest.fixture
def address(etcd: Etcd) -> EtcdAddress:
    return EtcdAddress.parse(f"etcd://{etcd.address}/{secrets.token_hex(4)}")


@pytest.fixture
async def backends() -> AsyncIterator[UnreliableBackends]:
    async with UnreliableBackends(12) as twelve:
        yield twelve


Start = Callable[..., "asyncio.Future[list[Server]]"]


@pytest.fixture
async def start(address: EtcdAddress, backends: UnreliableBackends) -> AsyncIterator[Callable[..., object]]:
    """`await start(3, owners=2)`: so many servers that share the checks of all backends."""
    async with AsyncExitStack() as ending:

        async def some(count: int, owners: int) -> list[Server]:
            servers = [Server(address, backends.addresses, owners) for _ in range(count)]
            for server in servers:
                await server.start()
                ending.push_async_callback(_end, server)
            total = min(owners, count) * len(backends.addresses)
            await until(lambda: all(each.knows(count) for each in servers), "each other")
            await until(lambda: sum(each.checked_here() for each in servers) == total, "shares")
            return servers

        yield some


async def _end(server: Server) -> None:
    with suppress(Exception):
        await server.end()


async def test_each_endpoint_is_checked_by_its_owners_and_all_servers_know(
    start: Start, backends: UnreliableBackends
) -> None:
    servers = await start(3, owners=2)
    checkers = Counter(address for each in servers for address in each.health._services["web"].checking)
    assert checkers == dict.fromkeys(backends.addresses, 2)
    ill = backends.addresses[4]
    backends.become(ill, Mood.FAILS)
    for server in servers:
        await until(lambda server=server: server.health_of()[ill] is Health.UNHEALTHY, "out everywhere")  # type: ignore[misc]
    backends.become(ill, Mood.ANSWERS)
    for server in servers:
        await until(lambda server=server: server.health_of()[ill] is Health.HEALTHY, "back everywhere")  # type: ignore[misc]
    versions = {server.directory.current.services["web"].version for server in servers}
    assert len(versions) == 1


async def test_a_server_that_joins_or_leaves_takes_and_gives_its_share_and_nothing_flaps(
    start: Start, address: EtcdAddress, backends: UnreliableBackends
) -> None:
    servers = await start(2, owners=1)
    for server in servers:
        server.unhealthy_seen.clear()
    third = Server(address, backends.addresses, owners=1)
    await third.start()
    everyone = [*servers, third]
    await until(lambda: all(each.knows(3) for each in everyone), "three members")
    await until(lambda: sum(each.checked_here() for each in everyone) == 12, "its share")
    leaving = asyncio.get_running_loop().time()
    await third.end()
    await until(lambda: sum(each.checked_here() for each in servers) == 12, "given back")
    assert asyncio.get_running_loop().time() - leaving < LIMIT
    assert [each.unhealthy_seen for each in everyone] == [set(), set(), set()]
    assert len(servers[0].registry.board.members) == 2


async def test_a_crash_deletes_nothing_and_its_checks_are_taken_over(
    start: Start, backends: UnreliableBackends
) -> None:
    servers = await start(3, owners=1)
    ill = backends.addresses[0]
    backends.become(ill, Mood.FAILS)
    for server in servers:
        await until(lambda server=server: server.health_of()[ill] is Health.UNHEALTHY, "out everywhere")  # type: ignore[misc]
    for server in servers:
        server.unhealthy_seen.clear()
    crashed = next(each for each in servers if ill in each.health._services["web"].checking)
    others = [each for each in servers if each is not crashed]
    await crashed.crash()
    await until(lambda: len(others[0].registry.board.members) == 2, "the end of its lease")
    assert all(each.health_of()[ill] is Health.UNHEALTHY for each in others)
    await until(lambda: sum(each.checked_here() for each in others) == 12, "taken over")
    assert all(each.health_of()[ill] is Health.UNHEALTHY and len(each.health_of()) == 12 for each in others)
    assert all(each.unhealthy_seen <= {ill} for each in others)
    backends.become(ill, Mood.ANSWERS)
    await until(lambda: all(each.health_of()[ill] is Health.HEALTHY for each in others), "noticed by the new owner")


async def test_without_etcd_every_server_checks_for_itself_and_shares_again_when_it_is_back(
    start: Start, etcd: Etcd, backends: UnreliableBackends
) -> None:
    servers = await start(2, owners=1)
    for server in servers:
        server.unhealthy_seen.clear()
    etcd.process.signal(signal.SIGSTOP)
    await until(lambda: all(each.checked_here() == 12 for each in servers), "everyone alone")
    ill = backends.addresses[3]
    backends.become(ill, Mood.FAILS)
    await until(lambda: all(each.health_of()[ill] is Health.UNHEALTHY for each in servers), "found by each")
    etcd.process.signal(signal.SIGCONT)
    await until(lambda: sum(each.checked_here() for each in servers) == 12, "shared again")
    assert all(each.unhealthy_seen == {ill} for each in servers)
    backends.become(ill, Mood.ANSWERS)
    await until(lambda: all(each.health_of()[ill] is Health.HEALTHY for each in servers), "noticed together")


async def test_one_server_with_a_bad_network_takes_nothing_out(start: Start, backends: UnreliableBackends) -> None:
    servers = await start(3, owners=3)
    liar = servers[0].registry.board
    for server in servers:
        server.unhealthy_seen.clear()
    for address in backends.addresses:
        liar.say("web", address, CheckedHealth(passing=False, reason="no route"))
    board = servers[1].registry.board
    await until(
        lambda: sum(not each[liar.me].found.passing for each in board.verdicts("web").values()) == 12, "what it says"
    )
    assert [each.unhealthy_seen for each in servers] == [set(), set(), set()]


async def test_what_the_others_do_not_know_is_checked_by_who_does(start: Start, backends: UnreliableBackends) -> None:
    servers = await start(3, owners=1)
    alone_with_it = servers[0]
    async with UnreliableBackends(6) as more:
        endpoints = tuple(map(Endpoint, [*backends.addresses, *more.addresses]))
        service = ServiceSnapshot(name="web", endpoints=endpoints, health_check=CHECK)
        alone_with_it.directory.publish("file", [service])
        await until(
            lambda: all(alone_with_it.health_of()[each] is Health.HEALTHY for each in more.addresses), "checked here"
        )
