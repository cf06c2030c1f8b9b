"""`HealthChecker` and a `Cluster`, against backends that fail, recover, come and go."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lbcore import Availability, Cluster, Endpoint, OutlierDetection
from lbcore.health import Cause, GrpcCheck, HealthChecker, HttpCheck, Outcome, Probe, TcpCheck
from lbcore.health.checks import Checks, Timing
from lbcore.health.pace import Pace
from lbcore.health.probe import make_probe
from tests.harness.unreliable import Mood, UnreliableBackends

LIMIT = 30.0  # seconds, for what is to happen
QUICK = {"interval": 0.02, "timeout": 20.0}  # where nobody hangs

Outcomes = dict[str, Outcome]


class TellingProbe:
    """A probe that finds what the test says; counts checks and how many ran at once."""

    def __init__(self) -> None:
        self.outcomes: Outcomes = {}
        self.hanging: set[str] = set()
        self.checks = 0
        self.closed: list[str] = []

    async def check(self, endpoint: Endpoint) -> Outcome:
        self.checks += 1
        if endpoint.address in self.hanging:
            await asyncio.sleep(60)
        return self.outcomes.get(endpoint.address, Outcome())

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        """Never wakes."""

    async def forget(self, endpoint: Endpoint) -> None:
        self.closed.append(endpoint.address)

    async def close(self) -> None:
        self.closed.append("all")


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)


def availability(cluster: Cluster) -> dict[str, Availability]:
    return {each.endpoint.address: each.availability for each in cluster.stats().endpoints}


@pytest_asyncio.fixture
async def backends() -> AsyncIterator[UnreliableBackends]:
    async with UnreliableBackends(3) as three:
        yield three


def fleet(*addresses: str, **settings: object) -> Cluster:
    return Cluster("web", map(Endpoint, addresses), **settings)  # type: ignore[arg-type]


A, B = "10.0.0.1:80", "10.0.0.2:80"


@pytest.mark.parametrize(
    ("mood", "thresholds"), [(Mood.FAILS, 3), (Mood.HANGS, 1), (Mood.RESETS, 2), (Mood.GARBAGE, 2)]
)
async def test_a_backend_that_fails_is_out_and_back_when_it_recovers(
    backends: UnreliableBackends, mood: Mood, thresholds: int
) -> None:
    one, two, three = backends.addresses
    cluster = fleet(one, two, three)
    check = HttpCheck(
        healthy_threshold=2, unhealthy_threshold=thresholds, interval=0.02, timeout=1.0 if mood is Mood.HANGS else 20.0
    )
    async with HealthChecker(cluster, check) as checker:
        assert set(availability(cluster).values()) == {Availability.HEALTHY}
        backends.become(two, mood)
        await until(lambda: availability(cluster)[two] is Availability.UNAVAILABLE, "out")
        assert {cluster.pick().address for _ in range(20)} == {one, three}
        backends.become(two, Mood.ANSWERS)
        await until(lambda: availability(cluster)[two] is Availability.HEALTHY, "back")
        assert checker.counts.transitions["healthy", "passed"] == 4
        assert checker.counts.attempt >= checker.counts.success + sum(checker.counts.failures.values())


async def test_degraded_backends_are_used_last(backends: UnreliableBackends) -> None:
    one, two, three = backends.addresses
    cluster = fleet(one, two, three, overprovisioning_factor=1000)
    backends.become(two, Mood.DEGRADED)
    async with HealthChecker(cluster, HttpCheck(**QUICK)):
        assert availability(cluster)[two] is Availability.DEGRADED
        assert two not in {cluster.pick().address for _ in range(20)}
        backends.become(two, Mood.ANSWERS)
        await until(lambda: availability(cluster)[two] is Availability.HEALTHY, "no longer degraded")


async def test_each_passed_check_ends_an_ejection(backends: UnreliableBackends) -> None:
    cluster = fleet(*backends.addresses, outlier_detection=OutlierDetection(consecutive_5xx=1, max_ejection_percent=50))
    async with HealthChecker(cluster, HttpCheck(**QUICK)):
        cluster.acquire().done(status=503)
        assert Availability.UNAVAILABLE in availability(cluster).values()
        await until(lambda: Availability.UNAVAILABLE not in availability(cluster).values(), "back")


async def test_one_that_leaves_does_not_count_in_the_denominator(backends: UnreliableBackends) -> None:
    cluster = fleet(*backends.addresses)
    backends.become(backends.addresses[0], Mood.LEAVES)
    async with HealthChecker(cluster, HttpCheck(**QUICK)):
        (priority,) = cluster.stats().priorities
        assert (priority.total, priority.healthy, priority.excluded) == (3, 2, 1)


async def test_what_joins_is_out_until_it_has_passed() -> None:
    probe = TellingProbe()
    cluster = fleet(A, panic_threshold=0)
    async with HealthChecker(cluster, TcpCheck(), probe=probe, window=0.0):
        probe.hanging.add(B)
        cluster.update(map(Endpoint, [A, B]))
        await until(lambda: availability(cluster)[B] is Availability.UNAVAILABLE, "held out")
        assert availability(cluster)[A] is Availability.HEALTHY


async def test_what_fails_stays_out_when_it_leaves_and_comes_back_at_once() -> None:
    probe = TellingProbe()
    probe.outcomes[A] = Outcome(Cause.ACTIVE)
    cluster = fleet(A, B, panic_threshold=0)
    async with HealthChecker(cluster, TcpCheck(interval=600.0), probe=probe):
        cluster.update([Endpoint(B)])
        cluster.update([Endpoint(A), Endpoint(B)])
        await until(lambda: availability(cluster)[A] is Availability.UNAVAILABLE, "out, though not checked again")


async def test_what_leaves_is_checked_no_more() -> None:
    probe = TellingProbe()
    cluster = fleet(A, B)
    async with HealthChecker(cluster, TcpCheck(interval=0.01), probe=probe):
        cluster.update([Endpoint(A)])
        await until(lambda: probe.closed == [B], "its connection closed")


async def test_closing_takes_back_what_was_found_and_leaves_no_task() -> None:
    probe = TellingProbe()
    probe.outcomes[A] = Outcome(Cause.ACTIVE)
    cluster = fleet(A, B)
    before = asyncio.all_tasks()
    async with HealthChecker(cluster, TcpCheck(), probe=probe):
        assert availability(cluster)[A] is Availability.UNAVAILABLE
    assert set(availability(cluster).values()) == {Availability.HEALTHY}
    assert asyncio.all_tasks() == before
    assert probe.closed[-1] == "all"


async def test_hosts_that_hang_delay_no_other() -> None:
    probe = TellingProbe()
    addresses = [f"10.0.{n // 250}.{n % 250 + 1}:80" for n in range(300)]
    probe.hanging.update(addresses[:200])
    cluster = fleet(*addresses)
    checker = HealthChecker(cluster, TcpCheck(interval=0.05), probe=probe, max_concurrent=10)
    starting = asyncio.ensure_future(checker.start())
    await until(lambda: checker.counts.success >= 400, "four rounds of the hundred that answer")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await checker.close()


async def test_a_probe_that_raises_fails_its_endpoint_alone() -> None:
    class Raising(TellingProbe):
        async def check(self, endpoint: Endpoint) -> Outcome:
            if endpoint.address == A:
                raise RuntimeError("no such protocol")
            return Outcome()

    cluster = fleet(A, B)
    async with HealthChecker(cluster, TcpCheck(), probe=Raising()):
        assert availability(cluster) == {A: Availability.UNAVAILABLE, B: Availability.HEALTHY}


async def test_a_busy_process_takes_nobody_out() -> None:
    class Starved(TellingProbe):
        async def check(self, endpoint: Endpoint) -> Outcome:  # noqa: ARG002
            self.checks += 1
            if self.checks == 1:
                return Outcome()
            time.sleep(0.2)  # noqa: ASYNC251 - nothing else runs meanwhile
            await asyncio.sleep(0.001)  # as a time limit of the probe's own
            return Outcome(Cause.NETWORK_TIMEOUT)

    probe, cluster = Starved(), fleet(A, panic_threshold=0)
    check = TcpCheck(interval=0.01, timeout=0.05, unhealthy_threshold=1)
    async with HealthChecker(cluster, check, probe=probe) as checker:
        await until(lambda: checker.counts.inconclusive >= 3, "timeouts of a process that does nothing else")
        assert availability(cluster)[A] is Availability.HEALTHY


async def test_a_flapping_endpoint_changes_the_cluster_once_a_window() -> None:
    class Flapping(TellingProbe):
        async def check(self, endpoint: Endpoint) -> Outcome:  # noqa: ARG002
            self.checks += 1
            return Outcome(Cause.ACTIVE) if self.checks % 2 else Outcome()

    changes: list[int] = []

    class Counted(Cluster):
        def apply_checks(self, found: object) -> None:
            changes.append(1)
            super().apply_checks(found)  # type: ignore[arg-type]

    probe, cluster = Flapping(), Counted("web", [Endpoint(A)])
    check = TcpCheck(interval=0.001, healthy_threshold=1, unhealthy_threshold=1)
    async with HealthChecker(cluster, check, probe=probe, window=0.5):
        started = asyncio.get_running_loop().time()
        await until(lambda: probe.checks >= 200, "two hundred changes")
        windows = (asyncio.get_running_loop().time() - started) / 0.5
        assert len(changes) <= windows + 2


async def test_without_traffic_the_no_traffic_interval_holds() -> None:
    asked: list[float] = []

    async def sleep(_: asyncio.Event, seconds: float) -> None:
        asked.append(seconds)
        await asyncio.sleep(0 if len(asked) < 4 else 60)

    timing = Timing(sleep=sleep, traffic=lambda: len(asked) >= 2)
    check = TcpCheck(interval=1.0, no_traffic_interval=7.0)
    checks = Checks("web", check, TellingProbe(), lambda *_: None, Pace(), timing)
    checks.follow([Endpoint(A)])
    await until(lambda: len(asked) >= 4, "four intervals")
    await checks.close()
    assert asked == [7.0, 7.0, 1.0, 1.0]


async def test_equal_seeds_check_at_equal_times() -> None:
    """The times themselves would need a still machine; the intervals that are asked for do not."""

    async def intervals(seed: int) -> list[float]:
        asked: list[float] = []

        async def sleep(_: asyncio.Event, seconds: float) -> None:
            asked.append(seconds)
            await asyncio.sleep(0 if len(asked) < 20 else 60)

        timing = Timing(draw=random.Random(seed).randrange, sleep=sleep)
        check = TcpCheck(interval=1.0, initial_jitter=1.0, interval_jitter_percent=50)
        checks = Checks("web", check, TellingProbe(), lambda *_: None, Pace(), timing)
        checks.follow([Endpoint(A)])
        await until(lambda: len(asked) >= 20, "twenty intervals")
        await checks.close()
        return asked

    first = await intervals(1)
    assert first == await intervals(1)
    assert first != await intervals(2)
    assert first[0] < 1.0
    assert all(1.0 <= each < 1.5 for each in first[1:])


async def test_every_change_of_state_is_a_line_in_the_event_log(backends: UnreliableBackends, tmp_path: Path) -> None:
    address = backends.addresses[0]
    cluster = fleet(address)
    log = tmp_path / "events.jsonl"
    check = HttpCheck(event_log_path=str(log), healthy_threshold=1, **QUICK)
    async with HealthChecker(cluster, check):
        backends.become(address, Mood.FAILS)
        await until(lambda: availability(cluster)[address] is Availability.UNAVAILABLE, "out")
        backends.become(address, Mood.DEGRADED)
        await until(lambda: availability(cluster)[address] is Availability.DEGRADED, "degraded")
        backends.become(address, Mood.ANSWERS)
        await until(lambda: availability(cluster)[address] is Availability.HEALTHY, "back")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    host, _, port = address.rpartition(":")
    for event in events:
        assert event["health_checker_type"] == "HTTP"
        assert event["cluster_name"] == "web"
        assert event["host"] == {"socket_address": {"address": host, "port_value": int(port)}}
    assert [(set(event) & EVENTS).pop() for event in events] == [
        "add_healthy_event",
        "eject_unhealthy_event",
        "add_healthy_event",
        "degraded_healthy_host",
        "no_longer_degraded_host",
    ]
    assert events[0]["add_healthy_event"] == {"first_check": True}
    assert events[1]["eject_unhealthy_event"] == {"failure_type": "ACTIVE"}
    assert events[1]["reason"] == "status 503"


EVENTS = {"add_healthy_event", "eject_unhealthy_event", "degraded_healthy_host", "no_longer_degraded_host"}


async def test_a_log_that_cannot_be_written_stops_no_check(backends: UnreliableBackends, tmp_path: Path) -> None:
    cluster = fleet(*backends.addresses)
    async with HealthChecker(cluster, HttpCheck(event_log_path=str(tmp_path / "none" / "events"), **QUICK)) as checker:
        await until(lambda: checker.counts.success >= 6, "checks")


async def test_a_watch_has_a_change_checked_long_before_the_interval_is_over() -> None:
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await servicer.set("shop", health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    cluster = fleet(address, B)
    check = GrpcCheck("shop", watch=True, interval=600.0, timeout=30.0, healthy_threshold=1)
    probe = make_probe("web", check)
    async with HealthChecker(cluster, check, probe=OnlyFor(address, probe)):
        assert availability(cluster)[address] is Availability.HEALTHY
        await servicer.set("shop", health_pb2.HealthCheckResponse.NOT_SERVING)
        await until(lambda: availability(cluster)[address] is Availability.UNAVAILABLE, "out")
        await servicer.set("shop", health_pb2.HealthCheckResponse.SERVING)
        await until(lambda: availability(cluster)[address] is Availability.HEALTHY, "back")
    await server.stop(None)


class OnlyFor(TellingProbe):
    """The real probe for one endpoint; the other is always well."""

    def __init__(self, address: str, probe: Probe) -> None:
        super().__init__()
        self._address = address
        self._probe = probe

    async def check(self, endpoint: Endpoint) -> Outcome:
        return await self._probe.check(endpoint) if endpoint.address == self._address else Outcome()

    async def watch(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        if endpoint.address == self._address:
            await self._probe.watch(endpoint, wake)

    async def close(self) -> None:
        await self._probe.close()


async def test_a_passed_check_ends_an_ejection() -> None:
    detection = OutlierDetection(consecutive_5xx=1, base_ejection_time=300.0, max_ejection_percent=100)
    cluster = Cluster("web", [Endpoint(A), Endpoint(B)], outlier_detection=detection)
    async with HealthChecker(cluster, TcpCheck(interval=0.05), probe=TellingProbe()):
        lease = cluster.acquire()
        lease.done(status=503)
        await until(
            lambda: availability(cluster)[lease.endpoint.address] is Availability.HEALTHY, "in use, checked to be well"
        )


async def test_only_a_passed_check_ends_an_ejection_not_a_change_of_members_nor_the_end_of_the_checks() -> None:
    detection = OutlierDetection(consecutive_5xx=1, base_ejection_time=300.0, max_ejection_percent=100)
    cluster = Cluster("web", [Endpoint(A), Endpoint(B)], outlier_detection=detection)
    other, probe = "10.0.0.3:80", TellingProbe()

    def ejected() -> set[str]:
        return {each.endpoint.address for each in cluster.stats().endpoints if each.ejected}

    async with HealthChecker(cluster, TcpCheck(interval=600.0), probe=probe, window=0.0):
        lease = cluster.acquire()
        lease.done(status=503)
        cluster.update(map(Endpoint, [A, B, other]))
        await until(lambda: probe.checks == 3, "a check of the new one")
        await until(lambda: availability(cluster)[other] is Availability.HEALTHY, "the new one, checked")
        assert ejected() == {lease.endpoint.address}
    assert ejected() == {lease.endpoint.address}
