"""The lock in a real etcd: one holder at a time, in the order of asking, who knows in time that it is one no more."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.registry import blocking_lock
from lbcore.registry.etcd.leases import EtcdLeases
from lbcore.registry.lock import EtcdLock, Held, LockInUse, LockLost, LockTimeout, locked
from tests.harness.etcd import Etcd, EtcdCluster, needs_etcd
from tests.harness.process import Process
from tests.harness.service import ROOT

pytestmark = needs_etcd

LIMIT = 60.0


async def write(connection: EtcdConnection, held: Held, value: bytes) -> bool:
    """A write that only the holder may make."""
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=b"work", value=value))
    response = await connection.call("KV", "Txn", rpc.TxnRequest(compare=[held.guard], success=[put]))
    done: bool = response.succeeded
    return done


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {LIMIT:g} s"
        await asyncio.sleep(0.01)


def queue(etcd: Etcd) -> list[str]:
    """The keys of those that have a lock or wait for one."""
    return [key for key in etcd.content() if "/locks/" in key]


async def revoke(connection: EtcdConnection, key: bytes) -> None:
    """Ends the lease of a key, as if it had run out."""
    [pair] = (await connection.call("KV", "Range", rpc.RangeRequest(key=key))).kvs
    await connection.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=pair.lease))


@asynccontextmanager
async def connected(*members: Etcd) -> AsyncIterator[EtcdConnection]:
    address = ",".join(member.address for member in members)
    connection = EtcdConnection(EtcdAddress.parse(f"etcd://{address}/lbcore"))
    try:
        yield connection
    finally:
        await connection.close()


async def test_one_at_a_time_in_the_order_of_asking_each_with_a_larger_fence(
    connection: EtcdConnection, etcd: Etcd
) -> None:
    inside = 0
    order: list[int] = []
    fences: list[int] = []

    async def work(number: int) -> None:
        nonlocal inside
        async with EtcdLock(connection, "work", ttl=30.0).held() as held:
            inside += 1
            assert inside == 1
            order.append(number)
            fences.append(held.fence)
            await asyncio.sleep(0.05)
            inside -= 1

    async with EtcdLock(connection, "work", ttl=30.0).held() as first:
        waiting = []
        for number in range(5):
            waiting.append(asyncio.ensure_future(work(number)))
            await until(lambda: len(queue(etcd)) == number + 2, "its place in the queue")  # noqa: B023
    await asyncio.wait_for(asyncio.gather(*waiting), LIMIT)
    assert (order, fences, fences[0] > first.fence) == ([*range(5)], sorted(set(fences)), True)
    assert queue(etcd) == []


async def test_locks_of_other_names_are_other_locks(connection: EtcdConnection) -> None:
    async with AsyncExitStack() as holding:
        for name in ("a", "a/b", "a/b/c", "ä %2F"):
            await holding.enter_async_context(EtcdLock(connection, name, ttl=30.0).held(timeout=0))


async def test_who_does_not_wait_any_longer_is_told_and_leaves_nothing_behind(
    connection: EtcdConnection, etcd: Etcd
) -> None:
    async with EtcdLock(connection, "work", ttl=30.0).held():
        for timeout in (0, 0.2):
            with pytest.raises(LockTimeout, match=f"lock 'work': held by others for more than {timeout:g} s"):
                async with EtcdLock(connection, "work", ttl=30.0).held(timeout=timeout):
                    raise AssertionError
        assert len(queue(etcd)) == 1
    async with EtcdLock(connection, "work", ttl=30.0).held(timeout=0):
        pass


async def test_cancelled_while_waiting_it_leaves_nothing_behind_and_those_after_it_move_up(
    connection: EtcdConnection, etcd: Etcd
) -> None:
    async def work() -> None:
        async with EtcdLock(connection, "work", ttl=30.0).held():
            pass

    async with EtcdLock(connection, "work", ttl=30.0).held():
        waiting = []
        for number in range(3):
            waiting.append(asyncio.ensure_future(work()))
            await until(lambda: len(queue(etcd)) == number + 2, "its place in the queue")  # noqa: B023
        waiting[1].cancel()
        await until(lambda: len(queue(etcd)) == 3 and waiting[1].done(), "its leaving")
        assert [each.done() for each in waiting] == [False, True, False]
    await asyncio.wait_for(asyncio.gather(waiting[0], waiting[2]), LIMIT)
    assert (waiting[1].cancelled(), queue(etcd)) == (True, [])


async def test_an_object_that_has_it_refuses_to_wait_for_itself_and_can_be_used_again(
    connection: EtcdConnection,
) -> None:
    lock = EtcdLock(connection, "work", ttl=30.0)
    async with lock.held():
        with pytest.raises(LockInUse, match="lock 'work': held or waited for by this object already"):
            async with lock.held():
                raise AssertionError
    async with lock.held(timeout=0) as held:
        assert not held.lost.is_set()


async def test_a_holder_that_lost_its_lease_learns_it_and_cannot_write(connection: EtcdConnection) -> None:
    async with EtcdLock(connection, "work", ttl=3.0).held() as first:
        assert await write(connection, first, b"first")
        await revoke(connection, first.key)
        async with EtcdLock(connection, "work", ttl=30.0).held() as second:
            assert second.fence > first.fence
            assert not await write(connection, first, b"late")
            assert await write(connection, second, b"second")
            await asyncio.wait_for(first.lost.wait(), 30)
            assert not second.lost.is_set()


async def test_work_ends_with_the_lock_it_is_done_under(connection: EtcdConnection) -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with EtcdLock(connection, "work", ttl=3.0).held() as held:
        assert await held.run(asyncio.sleep(0, "done")) == "done"
        await revoke(connection, held.key)
        with pytest.raises(LockLost, match="lost while it was held"):
            await asyncio.wait_for(held.run(endless()), LIMIT)
        assert ended.is_set()


async def test_a_holder_that_cannot_keep_its_lease_for_any_reason_at_all_learns_it(
    connection: EtcdConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("lbcore.registry.etcd.leases.EtcdLeases.keep", keep)
    async with EtcdLock(connection, "work", ttl=3.0).held() as held:
        await asyncio.wait_for(held.lost.wait(), LIMIT)


async def test_a_lock_that_took_longer_than_its_time_to_live_to_get_is_not_held(
    connection: EtcdConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def grant(leases: EtcdLeases, ttl: float) -> int:
        lease = await granted(leases, ttl)
        await asyncio.sleep(1.1)
        return lease

    granted = EtcdLeases.grant
    monkeypatch.setattr(EtcdLeases, "grant", grant)
    with pytest.raises(LockLost, match="lock 'work': its lease may have run out before it was there"):
        async with EtcdLock(connection, "work", ttl=1.0).held():
            raise AssertionError


async def test_a_place_in_the_queue_that_ran_out_is_said(connection: EtcdConnection, etcd: Etcd) -> None:
    async def wait() -> None:
        async with EtcdLock(connection, "work", ttl=3.0).held():
            raise AssertionError

    async with EtcdLock(connection, "work", ttl=30.0).held() as held:
        waiting = asyncio.ensure_future(wait())
        await until(lambda: len(queue(etcd)) == 2, "its place in the queue")
        [place] = (key for key in queue(etcd) if key.encode() != held.key)
        await revoke(connection, place.encode())
        with pytest.raises(LockLost, match="ran out while waiting"):
            await asyncio.wait_for(waiting, LIMIT)


async def test_waiting_goes_on_where_etcd_restarts(
    connection: EtcdConnection, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[bool] = []
    answered: list[str] = []

    async def call(service: str, method: str, request: Any) -> Any:
        response = await calling(service, method, request)
        answered.append(method)
        return response

    calling = connection.call
    monkeypatch.setattr(connection, "call", call)

    async def wait() -> None:
        async with EtcdLock(connection, "work", ttl=3600.0).held() as held:
            lost.append(held.lost.is_set())

    async with EtcdLock(connection, "work", ttl=3600.0).held() as held:
        waiting = asyncio.ensure_future(wait())
        await until(lambda: answered.count("Txn") == 2, "both to know whether they are first")
        etcd.kill()
        await asyncio.to_thread(etcd.restart)
        assert (waiting.done(), held.lost.is_set()) == (False, False)
    await asyncio.wait_for(waiting, LIMIT)
    assert lost == [False]


async def test_where_etcd_hangs_the_holder_knows_before_anybody_else_can_have_it() -> None:
    """The member that the holder talks to is stopped; the others give the lock away when its lease has run out."""
    with EtcdCluster() as cluster:
        mine, *others = await followers_first(cluster)
        history: list[str] = []

        async def notice(first: Held) -> None:
            await first.lost.wait()
            history.append("lost")

        async def contend(first: Held, other: EtcdConnection) -> None:
            async with EtcdLock(other, "work", ttl=60.0).held() as second:
                history.append("another has it")
                assert second.fence > first.fence
                assert not await write(other, first, b"late")
                assert await write(other, second, b"second")

        async with (
            connected(mine) as connection,
            connected(*others) as other,
            EtcdLock(connection, "work", ttl=3.0).held() as first,
        ):
            noticing, contending = asyncio.ensure_future(notice(first)), asyncio.ensure_future(contend(first, other))
            await until(lambda: len(queue(others[0])) == 2, "the contender's place in the queue")
            await asyncio.to_thread(mine.stop_the_clock)
            await asyncio.wait_for(contending, LIMIT)
            await noticing
        assert history == ["lost", "another has it"]


async def test_where_one_member_hangs_the_lock_is_kept_through_another() -> None:
    with EtcdCluster() as cluster:
        mine, *others = await followers_first(cluster)
        async with (
            connected(mine, *others) as connection,
            EtcdLock(connection, "work", ttl=6.0).held() as held,
        ):
            await asyncio.to_thread(mine.stop_the_clock)
            await until(lambda: connection.member != mine.address, "another member")
            await asyncio.sleep(6.0)  # longer than it would have had
            assert (held.lost.is_set(), len(queue(others[0]))) == (False, 1)


async def followers_first(cluster: EtcdCluster) -> list[Etcd]:
    """The members, the leader last: what its end costs is not meant here."""
    leads: dict[str, bool] = {}
    for member in cluster.members:
        async with connected(member) as connection:
            status = await connection.call("Maintenance", "Status", rpc.StatusRequest())
            leads[member.address] = status.leader == status.header.member_id
    return sorted(cluster.members, key=lambda member: leads[member.address])


async def test_a_holder_that_is_killed_is_followed_by_the_next(connection: EtcdConnection, etcd: Etcd) -> None:
    program = (
        "import asyncio, sys; from lbcore.registry.lock import locked\n"
        "async def main():\n"
        "    async with locked(sys.argv[1], 'work', ttl=2.0) as held:\n"
        "        print(held.fence, flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    with Process([sys.executable, "-c", program, f"etcd://{etcd.address}/lbcore"], cwd=ROOT) as process:
        first = int((await asyncio.to_thread(process.wait_for_output, r"^(\d+)$"))[1])
        with pytest.raises(LockTimeout):
            async with EtcdLock(connection, "work", ttl=30.0).held(timeout=0):
                raise AssertionError
        process.signal(signal.SIGKILL)
        async with EtcdLock(connection, "work", ttl=30.0).held(timeout=LIMIT) as second:
            assert second.fence > first


async def test_by_the_address_alone(etcd: Etcd) -> None:
    async with locked(f"etcd://{etcd.address}/lbcore", "work", ttl=30.0) as held:
        with pytest.raises(LockTimeout):
            async with locked(f"etcd://{etcd.address}/lbcore", "work", timeout=0):
                raise AssertionError
        assert held.key.startswith(b"/lbcore/locks/work/")
    assert held.lost.is_set()


def test_threads_take_turns_in_a_program_without_asyncio(etcd: Etcd) -> None:
    inside = threading.Lock()
    fences: list[int] = []

    def work() -> None:
        with blocking_lock.locked(f"etcd://{etcd.address}/lbcore", "work", ttl=30.0) as held:
            assert inside.acquire(blocking=False)
            fences.append(held.fence)
            inside.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert (len(fences), fences, queue(etcd)) == (4, sorted(set(fences)), [])


async def test_a_thread_learns_that_its_lock_is_lost(connection: EtcdConnection, etcd: Etcd) -> None:
    def work() -> bool:
        with blocking_lock.locked(f"etcd://{etcd.address}/lbcore", "work", ttl=3.0) as held:
            before = held.lost.is_set()
            asyncio.run_coroutine_threadsafe(revoke(connection, held.key), loop).result(LIMIT)
            return not before and held.lost.wait(LIMIT)

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(work)


def test_a_thread_that_does_not_get_it_is_told_why(etcd: Etcd) -> None:
    store = f"etcd://{etcd.address}/lbcore"
    with (
        blocking_lock.locked(store, "work", ttl=30.0),
        pytest.raises(LockTimeout),
        blocking_lock.locked(store, "work", timeout=0),
    ):
        raise AssertionError
    with pytest.raises(InvalidSetting, match="name ''"), blocking_lock.locked(store, ""):
        raise AssertionError
    assert queue(etcd) == []


GUIDE = re.split(r"^###? ", (ROOT / "docs" / "registry.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("number", [0, 1])
def test_the_programs_in_the_guide_run(etcd: Etcd, number: int) -> None:
    [chapter] = (each for each in GUIDE if each.startswith("A lock\n"))
    program = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)[number]
    assert "etcd://10.0.0.1,10.0.0.2,10.0.0.3/lbcore" in program
    program = program.replace("10.0.0.1,10.0.0.2,10.0.0.3", etcd.address)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "done\n")
    assert queue(etcd) == []


async def test_an_etcd_that_is_not_there_is_said() -> None:
    with pytest.raises(StoreFailed, match=r"etcd 127\.0\.0\.1:1: UNAVAILABLE"):
        async with locked("etcd://127.0.0.1:1", "work"):
            raise AssertionError


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("", {}, "name '': expected some text"),
        ("a\n", {}, r"name 'a\\n'"),
        ("work", {"ttl": 0.5}, "ttl 0.5: expected a number, 1 or more"),
        ("work", {"timeout": -1}, "timeout -1: expected a number, 0 or more"),
    ],
)
async def test_a_bad_argument_is_refused(name: str, options: dict[str, float], expected: str) -> None:
    with pytest.raises(InvalidSetting, match=expected):
        async with locked("etcd://127.0.0.1:1", name, **options):
            raise AssertionError
