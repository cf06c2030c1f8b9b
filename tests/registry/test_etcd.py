"""The registry in a real etcd: interchangeable servers, and what crashes, partitions and compactions leave alone."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aetcd import rpc

from lbcore.errors import InvalidSetting, NotReady, StoreFailed, UnknownLease
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.etcd.following import PrefixFollower, Step
from lbcore.model import Endpoint, Health, LoadReport
from lbcore.registration import Announcement, Report
from lbcore.registry.etcd.memory import RegistryMemory
from lbcore.registry.registry import Beat
from tests.harness.etcd import Etcd, needs_etcd, secured_etcd
from tests.registry.etcd_server import ONE, TTL, WEB, Server, Start, of, until

pytestmark = needs_etcd


async def test_servers_are_interchangeable(start: Start) -> None:
    first, second = await start(), await start()
    written = await first.registry.register(0, TTL, of(ONE, weight=3), 1)
    await until(lambda: second.addresses() == {ONE}, "the endpoint at the other server")
    report = Report(WEB, Health.DEGRADED, LoadReport(rif=2))
    await second.registry.heartbeat(written.lease, [report], 2)
    await until(lambda: first.directory.current.services["web"].endpoints[0].health is Health.DEGRADED, "the report")
    await until(lambda: [each.load for each in first.registry.registrations()] == [LoadReport(rif=2)], "the load")
    await until(lambda: first.registry.revision == second.registry.revision, "the same revision")
    versions = {each.directory.current.services["web"].version for each in (first, second)}
    assert (first.registry.epoch, len(versions)) == (second.registry.epoch, 1)
    await second.registry.deregister(written.lease, [WEB], 3)
    await until(lambda: first.addresses() == set(), "the withdrawal")


async def test_a_watch_resumes_at_another_server(start: Start) -> None:
    first, second = await start(), await start()
    lease = (await first.registry.register(0, TTL, of(ONE))).lease
    seen = await anext(first.registry.watch("web"))
    await first.registry.register(lease, None, of("10.0.0.2:80"))
    await until(lambda: len(second.addresses()) == 2, "the change")
    resumed = await anext(second.registry.watch("web", seen.epoch, seen.revision))
    assert (resumed.snapshot, [change.key.address for change in resumed.changes]) == (None, ["10.0.0.2:80"])


async def test_of_two_writers_at_two_servers_in_any_order_the_newer_wins(start: Start) -> None:
    first, second = await start(), await start()
    chance = random.Random(3)
    for _ in range(6):
        older = (await first.registry.register(0, TTL, [])).lease
        newer = (await second.registry.register(0, TTL, [])).lease
        writes = [(lease, sequence) for lease in (older, newer) for sequence in range(1, 4)]
        chance.shuffle(writes)
        await asyncio.gather(
            *(
                chance.choice([first, second]).registry.register(
                    lease, None, of(ONE, weight=sequence + (10 if lease == newer else 0)), sequence
                )
                for lease, sequence in writes
            )
        )
        await until(lambda: first.registry.revision == second.registry.revision, "the same revision")
        [found] = first.registry.registrations()
        assert (found.lease, found.endpoint.weight) == (newer, 13), writes
        lost = await first.registry.heartbeat(older)
        assert WEB in lost.superseded or older not in {each.lease for each in second.registry.registrations()}
        await first.registry.revoke(newer)


async def test_a_write_that_a_withdrawal_overtook_changes_nothing(start: Start) -> None:
    first, second = await start(), await start()
    lease = (await first.registry.register(0, TTL, of(ONE), 1)).lease
    await first.registry.deregister(lease, [WEB], 3)
    late = await second.registry.register(lease, None, of(ONE), 2)
    assert (late.superseded, list(first.registry.registrations())) == ((WEB,), [])


async def test_an_unknown_lease_and_a_bad_announcement_change_nothing(start: Start, etcd: Etcd) -> None:
    server = await start()
    for lease in (7, 2**63, 2**64 - 1):
        with pytest.raises(UnknownLease):
            await server.registry.heartbeat(lease)
    with pytest.raises(InvalidSetting, match="service 'a b'"):
        await server.registry.register(0, TTL, of(ONE, service="a b"))
    assert etcd.content() == {}


async def test_weights_that_add_up_to_too_much_are_refused(start: Start) -> None:
    first, second = await start(), await start()
    lease = (await first.registry.register(0, TTL, of(ONE, weight=2**32 - 2))).lease
    await first.registry.register(lease, None, of("10.0.0.2:80"))
    await until(lambda: len(second.addresses()) == 2, "both at the other server")
    for server in first, second:
        with pytest.raises(InvalidSetting, match="would add up to 4294967296"):
            await server.registry.register(0, TTL, of("10.0.0.3:80"))
    await second.registry.register(lease, None, of(ONE, weight=7))  # in the place of what it says of the same
    await second.registry.register(lease, None, of("10.0.0.3:80"))


async def test_more_registrations_than_one_transaction_takes(start: Start) -> None:
    first, second = await start(), await start()
    many = of(*(f"10.1.{n // 250}.{n % 250}:80" for n in range(450)))
    lease = (await first.registry.register(0, TTL, many)).lease
    await until(lambda: len(second.addresses()) == 450, "all of them")
    await second.registry.revoke(lease)
    await until(lambda: first.addresses() == set(), "the end of all of them")


async def test_registrations_with_more_metadata_than_etcd_takes_at_once(start: Start) -> None:
    first, second = await start(), await start()
    endpoints = [Endpoint(f"10.1.0.{n}:80", metadata={"large": f"{n:03}" * 20_000}) for n in range(120)]
    many = [Announcement("web", endpoint) for endpoint in endpoints]  # some 7 MB
    lease = (await first.registry.register(0, TTL, many)).lease
    beats = [Beat(lease=lease, announcements=[Announcement("api", endpoint)]) for endpoint in endpoints]
    for begun in [second.registry.begin(beat) for beat in beats]:  # one by one, and made together
        assert not (await begun).superseded
    for service in ("web", "api"):
        found = {each.endpoint.address: each.endpoint for each in second.registry.registrations(service)}
        assert found == {endpoint.address: endpoint for endpoint in endpoints}


async def test_more_load_than_etcd_takes_at_once(start: Start) -> None:
    first, second = await start(), await start()
    many = of(*(f"10.1.0.{n}:80" for n in range(120)))
    lease = (await first.registry.register(0, TTL, many)).lease
    load = LoadReport(named_metrics={f"{n:0200}": 1.0 for n in range(100)})  # some 20 kB
    await first.registry.heartbeat(lease, [Report(each.key, load=load) for each in many])
    await until(lambda: all(each.load == load for each in second.registry.registrations()), "all of it at the other")


async def test_messages_of_a_stream_take_effect_in_their_order_though_all_are_under_way(start: Start) -> None:
    server = await start()
    lease = (await server.registry.register(0, TTL, [])).lease
    both = of(ONE), of("10.0.0.2:80")
    beats = [
        *(Beat(lease=lease, announcements=of(ONE, weight=n)) for n in range(1, 6)),
        Beat(lease=lease, withdrawals=[WEB]),
        *(Beat(lease=lease, announcements=each) for each in both),
        Beat(lease=lease, announcements=of(ONE, weight=7), reports=[Report(WEB, Health.DEGRADED)]),
    ]
    begun = [server.registry.begin(beat) for beat in beats]
    assert {(await each).superseded for each in begun} == {()}
    found = {each.endpoint.address: each.endpoint for each in server.registry.registrations()}
    assert found == {ONE: Endpoint(ONE, weight=7, health=Health.DEGRADED), "10.0.0.2:80": Endpoint("10.0.0.2:80")}


async def test_drained_through_one_server_and_announced_again_through_another(start: Start) -> None:
    first, second = await start(), await start()
    lease = (await first.registry.register(0, TTL, of(ONE))).lease
    await first.registry.drain(lease, WEB)
    await second.registry.register(lease, None, of(ONE, weight=2))
    [found] = second.registry.registrations()
    assert (found.endpoint.health, found.endpoint.weight) == (Health.DRAINING, 2)


async def test_kill_9_of_etcd_takes_nothing_away_and_its_return_is_followed(start: Start, etcd: Etcd) -> None:
    server = await start()
    lease = (await server.registry.register(0, 30.0, of(ONE))).lease
    etcd.kill()
    await until(lambda: "registry" in server.directory.current.stale, "staleness")
    with pytest.raises(StoreFailed):
        await server.registry.register(lease, None, of("10.0.0.2:80"))
    for _ in range(60):  # and a minute of it changes nothing
        server.late += 1.0
        await server.registry.judge()
        assert "registry" in server.directory.current.stale
    assert (server.addresses(), len(list(server.registry.registrations()))) == ({ONE}, 1)
    await asyncio.to_thread(etcd.restart)
    await until(lambda: not server.directory.current.stale, "the end of staleness")
    await server.registry.register(lease, None, of("10.0.0.2:80"))
    await until(lambda: server.addresses() == {ONE, "10.0.0.2:80"}, "the change after it")


async def test_a_server_that_starts_without_etcd_serves_what_it_said_last_and_then_the_difference(
    etcd: Etcd, tmp_path: Path
) -> None:
    address = EtcdAddress.parse(f"etcd://{etcd.address}/lbcore")
    memory = RegistryMemory(tmp_path / "registry.json", str(address), 3600.0)
    async with Server(address, memory) as first:
        await first.synced()
        old = (await first.registry.register(0, 60.0, of(ONE, weight=3))).lease
        await first.registry.register(0, 60.0, of("10.0.0.2:80"))
        await until(lambda: (memory.recall() or (0, []))[1] == [*_members(first)], "the file")
        before = first.directory.current.services["web"].version
    etcd.kill()
    async with Server(address, memory) as second:
        await second.synced()
        assert second.addresses() == {ONE, "10.0.0.2:80"}
        assert second.directory.current.services["web"].version == before
        assert "as etcd had it" in second.directory.current.stale["registry"]
        with pytest.raises(NotReady):
            second.registry.registrations()
        await asyncio.to_thread(etcd.restart)
        await until(lambda: not second.directory.current.stale, "etcd itself")
        assert second.addresses() == {ONE, "10.0.0.2:80"}
        await second.registry.revoke(old)
        await until(lambda: second.addresses() == {"10.0.0.2:80"}, "what changes then")


def _members(server: Server) -> Iterator[tuple[str, Endpoint]]:
    return ((each.service, each.endpoint) for each in server.registry.registrations())


def test_what_is_too_old_of_another_etcd_or_broken_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, now = tmp_path / "registry.json", 1000.0
    memory = RegistryMemory(path, "etcd://a/x", 60.0, lambda: now)
    assert memory.recall() is None
    memory.keep([(WEB, Endpoint(ONE, weight=2, metadata={"a": 1}))])
    assert memory.recall() == (0.0, [("web", Endpoint(ONE, weight=2, metadata={"a": 1}))])
    assert RegistryMemory(path, "etcd://b/x", 60.0, lambda: now).recall() is None
    for broken in (b"", b"{}", path.read_bytes()[:-9], path.read_bytes().replace(ONE.encode(), b"nonsense")):
        path.write_bytes(broken)
        assert memory.recall() is None
    assert caplog.text.count("cannot be read") == 4
    memory.keep([])
    now = 1061.0
    assert memory.recall() is None
    RegistryMemory(tmp_path / "no" / "folder", "", 1.0).keep([])
    assert "will know nothing of what is registered" in caplog.text


async def test_a_partition_shows_as_staleness_and_takes_nothing_away() -> None:
    with Etcd() as etcd:
        async with Server(EtcdAddress.parse(f"etcd://{etcd.address}/lbcore")) as server:
            await server.synced()
            lease = (await server.registry.register(0, 1.5, of(ONE))).lease
            etcd.process.signal(signal.SIGSTOP)
            await until(lambda: "registry" in server.directory.current.stale, "staleness")
            await asyncio.sleep(2.5)  # longer than the lease
            assert server.addresses() == {ONE}
            etcd.process.signal(signal.SIGCONT)
            await until(lambda: not server.directory.current.stale, "the end of staleness")
            assert server.addresses() == {ONE}
            with suppress(UnknownLease):
                await server.registry.heartbeat(lease)
            await server.registry.register(0, 30.0, of(ONE))  # as its agent does
            await asyncio.sleep(2.0)
            assert server.addresses() == {ONE}


async def test_a_watch_below_a_compaction_lists_again_and_tells_the_difference_alone(etcd: Etcd) -> None:
    for name in "abc":
        etcd.put(f"/x/{name}", "1")
    connection = EtcdConnection(EtcdAddress.parse(f"etcd://{etcd.address}"))
    away = asyncio.Event()

    async def sleep(_: float) -> None:
        if not away.is_set():
            away.set()
            await asyncio.to_thread(etcd.restart)
            etcd.delete("/x/a")
            etcd.put("/x/b", "2")
            etcd.put("/x/d", "1")
            etcd.compact()
        await asyncio.sleep(0.05)

    follower = PrefixFollower(connection, b"/x/", sleep=sleep)
    steps: list[Step] = []

    async def follow() -> None:
        nonlocal steps
        async for step in follower.steps():
            steps += [step]

    following = asyncio.ensure_future(follow())
    await until(lambda: len(steps) == 1, "the list")
    etcd.kill()
    await until(lambda: len(steps) == 2, "the difference")
    etcd.put("/x/e", "1")
    await until(lambda: len(steps) == 3, "the change after it")
    following.cancel()
    await connection.close()
    told = [{key: pair.value if pair else None for key, pair in step.changes.items()} for step in steps]
    assert told == [
        {b"/x/a": b"1", b"/x/b": b"1", b"/x/c": b"1"},
        {b"/x/a": None, b"/x/b": b"2", b"/x/d": b"1"},
        {b"/x/e": b"1"},
    ]


async def test_a_call_under_way_outlives_the_move_to_another_member(etcd: Etcd) -> None:
    connection = EtcdConnection(EtcdAddress.parse(f"etcd://{etcd.address},127.0.0.1:1/x"), timeout=2.0)
    request = rpc.RangeRequest(key=b"a")
    await connection.call("KV", "Range", request)
    await asyncio.to_thread(etcd.stop_the_clock)
    waiting = asyncio.ensure_future(connection.call("KV", "Range", request))
    with pytest.raises(StoreFailed, match="nothing heard"):
        async for _ in connection.stream("Watch", "Watch", _nothing(), 0.2):
            pass
    assert connection.member == "127.0.0.1:1"
    with pytest.raises(StoreFailed, match="DEADLINE_EXCEEDED"):  # and it was not cancelled
        await waiting
    await connection.close()


async def _nothing() -> AsyncIterator[object]:
    await asyncio.Event().wait()
    yield None


async def test_a_watch_goes_on_at_another_member_where_one_is_dead(etcd: Etcd) -> None:
    async with Server(EtcdAddress.parse(f"etcd://127.0.0.1:1,{etcd.address}/lbcore")) as server:
        await server.synced()
        await server.registry.register(0, TTL, of(ONE))
        await until(lambda: server.addresses() == {ONE}, "the endpoint")


async def test_nothing_is_answered_before_etcd_has_been_read() -> None:
    async with Server(EtcdAddress.parse("etcd://127.0.0.1:1/lbcore")) as server:
        await asyncio.sleep(0.3)
        assert not server.directory.synced
        with pytest.raises(NotReady, match="etcd has not been read yet"):
            server.registry.registrations()


async def test_what_others_write_there_is_said_and_left_alone(
    start: Start, etcd: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start()
    with caplog.at_level(logging.ERROR):
        for key, value in (
            ("endpoints/web/nonsense", "{}"),
            ("endpoints/web/10.0.0.9%3A80", "not json"),
            ("endpoints/web/10.0.0.8%3A80", '{"lease": 1, "granted": 1, "ttl": 1, "weight": 0}'),
            ("endpoints/a%20b/10.0.0.7%3A80", '{"lease": 1, "granted": 1, "ttl": 1}'),
            ("leases/zz", "1"),
            ("leases/0000000000000001", "[]"),
        ):
            etcd.put(f"/lbcore/v1/{key}", value)
        await server.registry.register(0, TTL, of(ONE))
        await until(lambda: server.addresses() == {ONE}, "the good one")
    assert {each.endpoint.address for each in server.registry.registrations()} == {ONE}
    assert "10.0.0.9:80 of 'web' in etcd" in caplog.text


async def test_certificates_and_passwords(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    with secured_etcd(tmp_path) as (etcd, tls):
        good = f"etcds://root@{etcd.address}/lbcore?{tls}&password_file={password}"
        async with Server(EtcdAddress.parse(good)) as running:
            await running.synced()
            await running.registry.register(0, TTL, of(ONE))
            await until(lambda: running.addresses() == {ONE}, "the endpoint")
        for bad in (
            f"etcds://root:wrong@{etcd.address}/lbcore?{tls}",
            f"etcds://root:s3cret@{etcd.address}/lbcore?{tls.partition('&')[0]}",
            f"etcd://root:s3cret@{etcd.address}/lbcore",
        ):
            connection = EtcdConnection(EtcdAddress.parse(bad), timeout=2.0)
            with pytest.raises(StoreFailed, match=r"etcd 127\.0\.0\.1"):
                await connection.call("KV", "Range", rpc.RangeRequest(key=b"/"))
            await connection.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("etcd://", "member '': expected HOST or HOST:PORT"),
        ("etcd:10.0.0.1", "expected etcd://HOST:PORT,.../PREFIX"),
        ("etcd://10.0.0.1:99999", "member '10.0.0.1:99999'"),
        ("etcd://10.0.0.1/x?colour=red", "unknown option 'colour', expected one of ca_file"),
        ("etcds://10.0.0.1/x?cert_file=a", "expected cert_file and key_file together"),
    ],
)
def test_a_bad_address_is_refused(url: str, expected: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        EtcdAddress.parse(url, "--store")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("--store")
