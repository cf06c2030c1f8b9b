"""`DirectoryHealth` over a `Directory`, against backends that fail and recover."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest_asyncio

from lbcore.directory import Directory
from lbcore.health import HealthCheck, HttpCheck
from lbcore.health.overlay import DirectoryHealth
from lbcore.model import Endpoint, Health
from lbcore.settings import CheckTls
from lbcore.snapshot import ServiceSnapshot
from tests.harness.unreliable import Mood, UnreliableBackends

LIMIT = 30.0  # seconds
CHECK = HttpCheck(interval=0.02, timeout=20.0, healthy_threshold=1, unhealthy_threshold=1)


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)


def web(addresses: Iterable[str], check: HealthCheck | None = CHECK, **settings: Any) -> ServiceSnapshot:
    return ServiceSnapshot(name="web", endpoints=tuple(map(Endpoint, addresses)), health_check=check, **settings)


def healths(directory: Directory) -> dict[str, Health]:
    return {endpoint.address: endpoint.health for endpoint in directory.current.services["web"].endpoints}


@pytest_asyncio.fixture
async def backends() -> AsyncIterator[UnreliableBackends]:
    async with UnreliableBackends(3) as three:
        yield three


@asynccontextmanager
async def checked(directory: Directory, window: float = 0.0) -> AsyncIterator[DirectoryHealth]:
    """A directory that is checked; the first round is over."""
    overlay = DirectoryHealth(directory, window=window)
    await overlay.first_round()
    running = asyncio.ensure_future(overlay.run())
    try:
        yield overlay
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await overlay.close()


async def test_the_first_round_is_known_before_anything_is_served(backends: UnreliableBackends) -> None:
    one, two, three = backends.addresses
    backends.become(two, Mood.FAILS)
    directory = Directory()
    directory.publish("file", [web([one, two, three])])
    async with checked(directory):
        assert healths(directory) == {one: Health.HEALTHY, two: Health.UNHEALTHY, three: Health.HEALTHY}


async def test_what_fails_goes_out_and_what_recovers_comes_back(backends: UnreliableBackends) -> None:
    one, two, _ = backends.addresses
    directory = Directory()
    directory.publish("file", [web([one, two])])
    async with checked(directory):
        backends.become(one, Mood.FAILS)
        await until(lambda: healths(directory)[one] is Health.UNHEALTHY, "out")
        assert directory.current.findings["web"].by_address[one].reason == "status 503"
        backends.become(one, Mood.ANSWERS)
        await until(lambda: healths(directory)[one] is Health.HEALTHY, "back")


async def test_what_joins_waits_for_its_first_check_and_what_leaves_is_forgotten(backends: UnreliableBackends) -> None:
    one, two, three = backends.addresses
    backends.become(three, Mood.HANGS)
    directory = Directory()
    directory.publish("file", [web([one])])
    async with checked(directory):
        directory.publish("file", [web([one, two, three])])
        assert healths(directory) == {one: Health.HEALTHY, two: Health.UNHEALTHY, three: Health.UNHEALTHY}
        await until(lambda: healths(directory)[two] is Health.HEALTHY, "the first check")
        directory.publish("file", [web([two])])
        assert list(healths(directory)) == [two]


async def test_a_flapping_endpoint_costs_one_update_a_window_and_a_removal_waits_for_none(
    backends: UnreliableBackends,
) -> None:
    one, two, _ = backends.addresses
    directory = Directory()
    directory.publish("file", [web([one, two])])
    window = 0.2
    async with checked(directory, window) as overlay:
        loop = asyncio.get_running_loop()
        started, revision = loop.time(), directory.current.revision

        def transitions() -> int:
            ((_, counts),) = overlay.counts()
            return sum(counts.transitions.values())

        for mood in [Mood.FAILS, Mood.ANSWERS] * 20:
            before = transitions()
            backends.become(one, mood)
            await until(lambda before=before: transitions() > before, "a change of state")  # type: ignore[misc]
        updates, windows = directory.current.revision - revision, (loop.time() - started) / window
        assert 1 <= updates <= windows + 1
        directory.publish("file", [web([two])])
        assert list(healths(directory)) == [two]


async def test_a_change_of_settings_begins_anew_and_keeps_what_was_found_meanwhile(
    backends: UnreliableBackends,
) -> None:
    one, two, _ = backends.addresses
    backends.become(one, Mood.FAILS)
    directory = Directory()
    directory.publish("file", [web([one, two])])
    async with checked(directory):
        tolerant = HttpCheck(expected_statuses=[503], interval=0.02, healthy_threshold=1)
        directory.publish("file", [web([one, two], tolerant)])
        assert healths(directory)[one] is Health.UNHEALTHY
        await until(lambda: healths(directory)[one] is Health.HEALTHY, "503 is expected")
        await until(lambda: healths(directory)[two] is Health.UNHEALTHY, "200 is not")


async def test_without_checks_the_word_of_discovery_holds_again(backends: UnreliableBackends) -> None:
    one, *_ = backends.addresses
    backends.become(one, Mood.FAILS)
    directory = Directory()
    directory.publish("file", [web([one])])
    async with checked(directory):
        assert healths(directory)[one] is Health.UNHEALTHY
        directory.publish("file", [web([one], None)])
        await until(lambda: healths(directory)[one] is Health.UNKNOWN, "as discovery says")


async def test_the_service_checks_only_what_is_for_it_to_check(backends: UnreliableBackends) -> None:
    directory = Directory()
    directory.publish("file", [web(backends.addresses, HttpCheck(checked_by="clients", interval=0.01))])
    async with checked(directory):
        await asyncio.sleep(0.05)
        assert not backends.requests
        assert set(healths(directory).values()) == {Health.UNKNOWN}


async def test_a_check_that_cannot_be_made_takes_nothing_out(backends: UnreliableBackends) -> None:
    directory = Directory()
    check = HttpCheck(tls=CheckTls(ca_file="/nowhere/ca.pem"), checked_by="service")
    directory.publish("file", [web(backends.addresses, check)])
    async with checked(directory):
        assert set(healths(directory).values()) == {Health.UNKNOWN}


async def test_closing_leaves_no_task_and_no_connection(backends: UnreliableBackends) -> None:
    before = asyncio.all_tasks()
    directory = Directory()
    directory.publish("file", [web(backends.addresses)])
    async with checked(directory):
        pass
    await until(lambda: not sum(backends.open.values()), "connections closed")
    await until(lambda: len(asyncio.all_tasks()) <= len(before), "no task left, of the backends neither")
