"""What silence does to registrations in a real etcd: the few that go, the many that are held, and those that flap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aetcd import rpc

from lbcore.errors import UnknownLease
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.model import Health, LoadReport
from lbcore.registration import Key, Report
from lbcore.registry.registry import Beat
from tests.harness.etcd import Etcd, needs_etcd
from tests.registry.etcd_server import ONE, TTL, WEB, Server, Start, of, until
from tests.registry.lagging import Lagging

pytestmark = needs_etcd


async def test_an_agent_that_falls_silent_goes_and_others_stay(start: Start) -> None:
    first, second = await start(), await start()
    silent = (await first.registry.register(0, 3.0, of(ONE))).lease
    await first.registry.register(0, TTL, of("10.0.0.2:80"))
    await until(lambda: second.addresses() == {"10.0.0.2:80"}, "the end")
    await until(lambda: first.addresses() == {"10.0.0.2:80"}, "the end at the other server")
    with pytest.raises(UnknownLease):
        await first.registry.heartbeat(silent)


async def test_most_of_a_service_silent_at_once_is_held_even_where_no_server_was_up(etcd: Etcd) -> None:
    address = EtcdAddress.parse(f"etcd://{etcd.address}/lbcore/v1")
    async with Server(address) as first:
        await first.synced()
        for n in range(10):
            await first.registry.register(0, 1.0, of(f"10.0.0.{n}:80"))
    await until(lambda: not any("/leases/" in key for key in etcd.content()), "the end of the leases")
    async with Server(address) as second:
        await second.synced()
        assert len(second.addresses()) == 10
        await until(lambda: second.registry.held == {"web": 10}, "the judgement")
        await until(
            lambda: "most of the service fell silent" in second.directory.current.stale.get("registry", ""), "the mark"
        )
        for n in range(8):
            await second.registry.register(0, TTL, of(f"10.0.0.{n}:80"))
        await until(lambda: len(second.addresses()) == 8, "the end of the two that did not come back")
        assert second.registry.held == {}


async def test_nine_of_ten_leases_ending_at_once_are_held_and_what_is_deregistered_goes(
    start: Start, connection: EtcdConnection
) -> None:
    first, second = await start(), await start()
    addresses = [f"10.0.0.{n}:80" for n in range(10)]
    leases = [(await first.registry.register(0, TTL, of(address))).lease for address in addresses]
    await until(lambda: len(second.addresses()) == 10, "all of them")
    for lease in leases[1:]:
        await connection.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))  # as if they had run out
    for server in (first, second):
        await until(lambda: sum(each.held for each in server.registry.registrations()) == 9, "the mark")  # noqa: B023
        for _ in range(60):
            server.late += TTL / 10
            await server.registry.judge()
            assert (len(server.addresses()), server.registry.held.get("web", 9)) == (10, 9)
        await until(lambda: "web (9)" in server.directory.current.stale.get("registry", ""), "staleness")  # noqa: B023
    await second.registry.deregister(leases[9], [Key("web", addresses[9])])
    await second.registry.revoke(leases[8])
    withdrawn = Beat(lease=leases[7], withdrawals=[Key("web", addresses[7])], sequence=9)
    with pytest.raises(UnknownLease):
        await second.registry.begin(withdrawn)
    with pytest.raises(UnknownLease):
        await second.registry.deregister(leases[9], [Key("web", addresses[9])])
    await until(lambda: first.addresses() == set(addresses[:7]), "the end of those")
    assert (await second.registry.deregister(leases[6], [Key("web", addresses[0])])).superseded == (
        Key("web", addresses[0]),
    )


async def test_flapping_is_damped(start: Start) -> None:
    server, other = await start(), await start()
    lease = (await server.registry.register(0, TTL, of(ONE, "10.0.0.2:80"))).lease

    def shown() -> list[Health]:
        found = [each.directory.current.services.get("web") for each in (server, other)]
        return [each.endpoints[0].health for each in found if each is not None]

    for _ in range(3):
        for health in (Health.HEALTHY, Health.UNHEALTHY):
            await server.registry.heartbeat(lease, [Report(WEB, health)])
            await until(lambda: shown() == [health] * 2, "what is said")  # noqa: B023
    await server.registry.heartbeat(lease, [Report(WEB, Health.HEALTHY)])
    await until(lambda: [each.registry.damped for each in (server, other)] == [{"web": 1}] * 2, "the damping")
    assert shown() == [Health.UNHEALTHY] * 2
    server.late = other.late = 11.0
    await until(lambda: shown() == [Health.HEALTHY] * 2, "its return")


async def test_a_lease_that_is_revoked_through_a_server_that_lags_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbcore.registry.etcd.registry.PrefixFollower", Lagging)
    first, second = await start(), await start()
    lease = (await first.registry.register(0, TTL, of("10.0.0.2:80"))).lease
    await until(lambda: second.addresses() == {"10.0.0.2:80"}, "the first endpoint")
    Lagging.made[-1].reads.clear()
    await first.registry.register(lease, None, of(ONE))
    revoking = asyncio.ensure_future(second.registry.revoke(lease))
    await until(lambda: {each.endpoint.address for each in first.registry.registrations()} == {ONE}, "what it knows of")
    Lagging.made[-1].reads.set()
    await revoking
    assert list(second.registry.registrations()) == []
    await until(lambda: list(first.registry.registrations()) == [], "the end of all")


async def test_load_reported_to_a_server_that_lags_is_not_taken_for_that_of_an_address_that_was_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbcore.registry.etcd.registry.PrefixFollower", Lagging)
    first, second = await start(), await start()
    Lagging.made[-1].reads.clear()
    lease = (await first.registry.register(0, TTL, of(ONE))).lease
    assert (await second.registry.heartbeat(lease, [Report(WEB, load=LoadReport(rif=1))])).superseded == ()
    Lagging.made[-1].reads.set()


async def test_a_judgement_during_which_etcd_is_lost_is_given_up(
    start: Start, connection: EtcdConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = (server := await start()).registry
    for address, service in ((ONE, "web"), ("10.0.0.2:80", "api")):
        lease = (await registry.register(0, TTL, of(address, service=service))).lease
        await connection.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))  # as if it had run out
    await until(lambda: [each.held for each in registry.registrations()] == [True, True], "the ends of both")
    await registry.judge()
    write = registry._writer.write

    async def write_meanwhile(*args: Any, **options: Any) -> Any:
        written = await write(*args, **options)
        registry._failed("the watch broke")
        return written

    monkeypatch.setattr(registry._writer, "write", write_meanwhile)
    server.late += TTL
    await registry.judge()
    assert registry.stale == "the watch broke"
