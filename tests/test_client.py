"""The typed clients against a picker service on a real port. What both can do is asked of both."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest

from lbcore import Cluster, Endpoint, Health, LeastRequest, Locality, Maglev, hash64
from lbcore.client import AsyncPickerClient, EndpointStatus, PickerClient
from lbcore.errors import (
    InvalidSetting,
    LbError,
    NoEndpointAvailable,
    NotReady,
    RemoteFailure,
    RequestTimedOut,
    ServiceUnreachable,
    UnknownService,
)
from lbcore.model import LoadReport
from lbcore.snapshot import ServiceSnapshot
from tests.harness.picker_server import PickerServer
from tests.harness.ports import free_port
from tests.harness.process import wait_until

StartPicker = Callable[..., PickerServer]
TEN = tuple(Endpoint(f"10.0.0.{number}:80") for number in range(1, 11))
WEB = ServiceSnapshot(name="web", endpoints=TEN, policy=Maglev())
BUSY = ServiceSnapshot(name="web", endpoints=TEN, policy=LeastRequest())
LOCAL = Cluster("web", TEN, policy=Maglev())


class AsyncFromThreads:
    """An `AsyncPickerClient` on a loop of its own, called as the blocking client is."""

    def __init__(self, target: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def make() -> AsyncPickerClient:
            return AsyncPickerClient(target, **options)

        self.client = self.run(make())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if inspect.isasyncgen(result):
                return iter(lambda: self.run(anext(result)), None)
            return self.run(_finished(result))

        return call

    def close(self) -> None:
        self.run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _finished(awaitable: Any) -> Any:
    return await awaitable


@pytest.fixture(params=[PickerClient, AsyncFromThreads], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`connect(address)`: a client of either kind."""
    clients: list[Any] = []

    def make(target: str, **options: Any) -> Any:
        clients.append(request.param(target, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


Connect = Callable[..., Any]


@pytest.mark.parametrize("key", ["user-17", "Grüße", b"\x00\xff", hash64("user-17")], ids=repr)
def test_a_pick_is_that_of_an_embedded_cluster(start_picker: StartPicker, connect: Connect, key: str | bytes) -> None:
    assert connect(start_picker(WEB).address).pick("web", key) == LOCAL.pick(key)


def test_an_endpoint_arrives_as_it_was_described(start_picker: StartPicker, connect: Connect) -> None:
    endpoint = Endpoint(
        "unix:/run/web.sock",
        weight=9,
        locality=Locality("eu", "a"),
        priority=0,
        health=Health.DEGRADED,
        hostname="web",
        metadata={"hash_key": "x", "tags": ["a", 1.5, None, True]},
    )
    client = connect(start_picker(ServiceSnapshot(name="web", endpoints=(endpoint,))).address)
    assert client.pick("web") == endpoint


def test_rank_gives_the_fallbacks_of_an_embedded_cluster(start_picker: StartPicker, connect: Connect) -> None:
    assert connect(start_picker(WEB).address).rank("web", "k", 4) == LOCAL.rank("k", 4)


@pytest.mark.parametrize(
    "keys",
    [
        np.arange(200_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        ["a", b"b", "Grüße"],
        np.array([], dtype=np.uint64),
    ],
    ids=["hashes", "text and bytes", "none"],
)
def test_many_picks_are_those_of_an_embedded_cluster(start_picker: StartPicker, connect: Connect, keys: Any) -> None:
    picks = connect(start_picker(WEB).address).pick_many("web", keys)
    np.testing.assert_array_equal(picks.indices, LOCAL.pick_many(keys))
    assert picks.endpoints == TEN


def test_many_picks_without_keys_spread(start_picker: StartPicker, connect: Connect) -> None:
    server = start_picker(ServiceSnapshot(name="web", endpoints=TEN))
    picks = connect(server.address).pick_many("web", 100)
    assert Counter(each.address for each in picks) == {each.address: 10 for each in TEN}


def test_many_picks_follow_a_change_of_the_endpoints(start_picker: StartPicker, connect: Connect) -> None:
    server = start_picker(WEB)
    client = connect(server.address)
    client.pick_many("web", ["a"])
    changed = ServiceSnapshot(name="web", endpoints=TEN[5:], policy=Maglev())
    server.publish(changed)
    picks = client.pick_many("web", ["a", "b", "c"])
    assert (picks.endpoints, picks.version) == (TEN[5:], changed.version)
    assert list(picks) == [Cluster("web", TEN[5:], policy=Maglev()).pick(key) for key in "abc"]


def test_many_picks_go_on_after_a_restart_of_the_service(start_picker: StartPicker, connect: Connect) -> None:
    port = free_port()
    with PickerServer(WEB, port=port) as server:
        client = connect(server.address)
        client.pick_many("web", ["a"])
    start_picker(ServiceSnapshot(name="web", endpoints=TEN[:1]), port=port)

    def picked() -> bool:
        try:
            return client.pick_many("web", ["a"]).endpoints == TEN[:1]
        except ServiceUnreachable:
            return False  # the channel waits a moment before it connects again

    wait_until(picked, "picks from the new service")


def test_a_pick_among_many_without_an_endpoint_raises_only_where_it_is_looked_at(
    start_picker: StartPicker, connect: Connect
) -> None:
    picks = connect(start_picker(ServiceSnapshot(name="web")).address).pick_many("web", ["a"])
    assert list(picks.indices) == [-1]
    with pytest.raises(NoEndpointAvailable, match="pick 0"):
        picks[0]


def test_a_lease_is_active_until_done(start_picker: StartPicker, connect: Connect) -> None:
    server = start_picker(BUSY)
    client = connect(server.address)
    lease = client.acquire("web")
    assert (server.active("web"), lease.endpoint in TEN) == (1, True)


def test_a_keyed_lease_is_on_the_endpoint_that_a_pick_gives(start_picker: StartPicker, connect: Connect) -> None:
    assert connect(start_picker(WEB).address).acquire("web", "user-17").endpoint == LOCAL.pick("user-17")


def test_a_lease_keeps_its_time_to_live(start_picker: StartPicker, connect: Connect) -> None:
    assert connect(start_picker(BUSY).address).acquire("web", ttl=2.5).ttl == 2.5


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda client: client.pick("wbe"), UnknownService),
        (lambda client: client.pick("empty"), NoEndpointAvailable),
        (lambda client: client.rank("web", "k", 1025), InvalidSetting),
        (lambda client: client.rank("web", "k", 0), InvalidSetting),
        (lambda client: client.pick("web", 2**64), InvalidSetting),
        (lambda client: client.pick("web", "\ud800"), InvalidSetting),
        (lambda client: client.acquire("web", ttl=3601), InvalidSetting),
        (lambda client: client.pick_many("wbe", ["a"]), UnknownService),
        (lambda client: client.pick_many("", ["a"]), InvalidSetting),
        (lambda client: client.pick_many("web", "abc"), InvalidSetting),
        (lambda client: client.pick_many("web", np.array([1.5])), InvalidSetting),
        (lambda client: client.pick_many("web", -1), InvalidSetting),
        (lambda client: client.endpoints("wbe"), UnknownService),
        (lambda client: next(client.watch("wbe")), UnknownService),
    ],
)
def test_a_mistake_raises_the_documented_error(
    start_picker: StartPicker, connect: Connect, make: Callable[[Any], object], error: type[LbError]
) -> None:
    client = connect(start_picker(WEB, ServiceSnapshot(name="empty")).address)
    with pytest.raises(error):
        make(client)


def test_after_a_mistake_many_picks_work_again(start_picker: StartPicker, connect: Connect) -> None:
    server = start_picker()
    client = connect(server.address)
    with pytest.raises(UnknownService):
        client.pick_many("web", ["a"])
    server.publish(WEB)
    assert client.pick_many("web", ["a"])[0] == LOCAL.pick("a")


CALLS: list[Callable[[Any], object]] = [
    lambda client: client.pick("web"),
    lambda client: client.pick_many("web", 1),
    lambda client: client.endpoints(),
    lambda client: next(client.watch()),
]


@pytest.mark.parametrize("call", CALLS, ids=["pick", "pick_many", "endpoints", "watch"])
def test_nobody_at_the_address_is_told_with_the_address(connect: Connect, call: Callable[[Any], object]) -> None:
    target = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServiceUnreachable, match=target):
        call(connect(target))


@pytest.mark.parametrize("call", CALLS[:3], ids=["pick", "pick_many", "endpoints"])
def test_a_service_that_accepts_but_never_answers_is_given_up(connect: Connect, call: Callable[[Any], object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises((RequestTimedOut, ServiceUnreachable)):
        call(connect(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3))


def test_a_service_that_is_not_ready_says_so(start_picker: StartPicker, connect: Connect) -> None:
    with pytest.raises(NotReady):
        connect(start_picker(awaited_source="file").address).pick("web")


def test_a_service_of_another_kind_is_told_from_a_picker(start_grpc_without_picker: str, connect: Connect) -> None:
    with pytest.raises(RemoteFailure, match="no picker service"):
        connect(start_grpc_without_picker).pick("web")


@pytest.fixture
def start_grpc_without_picker() -> Iterator[str]:
    """The address of a gRPC server without any service."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_endpoints_tell_what_is_active(start_picker: StartPicker, connect: Connect) -> None:
    client = connect(start_picker(ServiceSnapshot(name="web", endpoints=TEN[:1])).address)
    client.acquire("web")
    (web,) = client.endpoints("web")
    assert (web.name, web.policy, web.endpoints) == ("web", "round_robin", (EndpointStatus(TEN[0], 1),))


def test_a_watch_follows_the_service_over_a_restart(connect: Connect) -> None:
    port = free_port()
    with PickerServer(WEB, ServiceSnapshot(name="api"), port=port) as server:
        updates = connect(server.address).watch()
        assert {service.name for service in next(updates).services} == {"api", "web"}
        server.publish(WEB)
        assert next(updates).removed == ("api",)
    with PickerServer(ServiceSnapshot(name="db"), port=port):
        update = next(updates)
    assert ([service.name for service in update.services], update.removed) == (["db"], ("web",))


def outcome(server: PickerServer) -> tuple[int, int, int]:
    """Requests active, succeeded and failed over all endpoints of `web`."""
    stats = server.call(lambda: server.clusters.get("web").cluster.stats())
    return stats.active, sum(e.successes for e in stats.endpoints), sum(e.failures for e in stats.endpoints)


def test_a_blocking_lease_as_a_context_manager_reports_success(start_picker: StartPicker) -> None:
    server = start_picker(BUSY)
    with PickerClient(server.address) as client, client.acquire("web") as endpoint:
        assert endpoint in TEN
        assert outcome(server) == (1, 0, 0)
    assert outcome(server) == (0, 1, 0)


def test_a_blocking_lease_reports_an_exception_as_failure(start_picker: StartPicker) -> None:
    server = start_picker(BUSY)
    with PickerClient(server.address) as client, pytest.raises(KeyError), client.acquire("web"):
        raise KeyError
    assert outcome(server) == (0, 0, 1)


def test_a_blocking_lease_is_done_once_and_told_when_it_had_expired(start_picker: StartPicker) -> None:
    server = start_picker(BUSY)
    with PickerClient(server.address) as client:
        lease = client.acquire("web")
        load = LoadReport(rif=3, cpu_utilization=0.5, named_metrics={"queue": 2.0})
        assert lease.done(status="UNAVAILABLE", latency=0.5, load=load) is True
        lease.done()
        assert outcome(server) == (0, 0, 1)
        expired = client.acquire("web", ttl=0.02)
        wait_until(lambda: server.active("web") == 0, "the lease's end")
        assert expired.done() is False


def test_a_blocking_lease_that_cannot_be_reported_does_not_fail_the_request() -> None:
    with PickerServer(BUSY) as server:
        client = PickerClient(server.address)
        lease = client.acquire("web")
    with lease:
        pass
    client.close()


async def test_an_async_lease_as_a_context_manager_reports_success(start_picker: StartPicker) -> None:
    server = start_picker(BUSY)
    async with AsyncPickerClient(server.address) as client:
        async with client.acquire("web") as endpoint:
            assert endpoint in TEN
            assert outcome(server) == (1, 0, 0)
        assert outcome(server) == (0, 1, 0)


async def test_an_async_lease_reports_an_exception_as_failure(start_picker: StartPicker) -> None:
    server = start_picker(BUSY)
    async with AsyncPickerClient(server.address) as client:
        with pytest.raises(KeyError):
            async with client.acquire("web"):
                raise KeyError
        assert outcome(server) == (0, 0, 1)


async def test_an_awaited_lease_is_done_by_call(start_picker: StartPicker) -> None:
    server = start_picker(BUSY)
    async with AsyncPickerClient(server.address) as client:
        lease = await client.acquire("web")
        assert await lease.done(status=204, latency=0.1) is True
        assert outcome(server) == (0, 1, 0)


def test_threads_share_a_blocking_client(start_picker: StartPicker) -> None:
    server = start_picker(WEB)
    keys = [f"key-{number}" for number in range(100)]
    results: list[bool] = []
    with PickerClient(server.address) as client:

        def work() -> None:
            results.extend(list(client.pick_many("web", keys)) == [LOCAL.pick(key) for key in keys] for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 80


async def test_tasks_share_an_async_client(start_picker: StartPicker) -> None:
    server = start_picker(WEB)
    keys = [f"key-{number}" for number in range(100)]
    async with AsyncPickerClient(server.address) as client:
        all_picks = await asyncio.gather(*(client.pick_many("web", keys) for _ in range(20)))
    assert all(list(picks) == [LOCAL.pick(key) for key in keys] for picks in all_picks)
