"""`Registration` and `RegistryAgent`: announced for as long as the program runs, whatever happens to the registry."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from lbcore.client import Registration, RegistryAgent, RegistryClient, RegistryUpdate
from lbcore.client import agent as agent_module
from lbcore.errors import InvalidSetting, ServiceUnreachable, UnknownService
from lbcore.model import Endpoint, Health, LoadReport
from lbcore.registration import Registration as Registered
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.wire import duration
from tests.harness.process import Process, wait_until
from tests.harness.registry_server import RegistryServer
from tests.harness.service import ROOT, LbcoreService, web_with

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


def wait_for_a_while(condition: Callable[[], bool]) -> None:
    """Gives a moment to what must not happen."""
    deadline = time.monotonic() + 0.3
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def listed(server: RegistryServer) -> dict[str, Registered]:
    return server.call(lambda: {each.endpoint.address: each for each in server.registry.registrations()})


def test_it_is_registered_inside_the_context_and_gone_after_it(server: RegistryServer) -> None:
    with Registration("web", ONE, weight=3, locality="eu/a", target=server.address, drain_time=0) as registration:
        inside = listed(server)
        assert (registration.registered, inside[ONE].lease) == (True, registration.lease)
    assert inside[ONE].endpoint == Endpoint(ONE, weight=3, locality="eu/a")
    assert listed(server) == {}


async def test_a_program_of_asyncio_uses_it_the_same_way(server: RegistryServer) -> None:
    async with Registration("web", ONE, target=server.address, drain_time=0):
        inside = set(listed(server))
    assert (inside, listed(server)) == ({ONE}, {})


def test_on_leaving_it_drains_for_a_time(server: RegistryServer) -> None:
    registration = Registration("web", ONE, target=server.address, drain_time=30).start()
    leaving = threading.Thread(target=registration.stop)
    leaving.start()
    wait_until(lambda: listed(server)[ONE].endpoint.health is Health.DRAINING, "the drain")
    registration.stop(drain=False)
    leaving.join(30)
    assert listed(server) == {}


def test_it_outlives_its_time_to_live(server: RegistryServer) -> None:
    with Registration("web", ONE, target=server.address, ttl=3.0, drain_time=0):
        lease = listed(server)[ONE].lease
        time.sleep(4.0)
        assert listed(server)[ONE].lease == lease


def test_it_is_announced_again_to_a_registry_that_forgot_it(server: RegistryServer) -> None:
    with Registration("web", ONE, target=server.address, drain_time=0) as registration:
        registration.report(health=Health.DEGRADED)
        wait_until(lambda: listed(server)[ONE].endpoint.health is Health.DEGRADED, "the report")
        server.stop()
        wait_until(lambda: not registration.registered, "the loss to be noticed")
        server.start()
        wait_until(lambda: ONE in listed(server) and registration.registered, "the new registration")
        assert listed(server)[ONE].endpoint.health is Health.DEGRADED


def test_a_registry_that_is_not_there_yet_is_found_when_it_comes(server: RegistryServer) -> None:
    server.stop()
    with Registration("web", ONE, target=server.address, wait=0.1, drain_time=0) as registration:
        assert not registration.registered
        server.start()
        wait_until(lambda: ONE in listed(server) and registration.registered, "the registration")


def test_a_withdrawal_that_was_lost_with_the_connection_is_sent_again(tmp_path: Path) -> None:
    with (
        RegistryServer(tmp_path / "registry.db") as server,
        RegistryAgent(server.address) as agent,
    ):
        agent.announce("web", Endpoint(ONE))
        agent.announce("web", Endpoint(TWO))
        server.stop()
        assert not agent.withdraw("web", ONE, wait=0.1)
        server.start()
        wait_until(lambda: set(listed(server)) == {TWO}, "the withdrawal")


def test_one_agent_announces_a_thousand_endpoints_under_one_lease(server: RegistryServer) -> None:
    addresses = [f"10.1.{n // 250}.{n % 250}:80" for n in range(1200)]
    with RegistryAgent(server.address) as agent:
        for address in addresses:
            agent.announce("web", Endpoint(address), wait=0)
        wait_until(lambda: agent.registered and len(listed(server)) == 1200, "all of them")
        assert {each.lease for each in listed(server).values()} == {agent.lease}
    assert listed(server) == {}


def test_registrations_share_an_agent(server: RegistryServer) -> None:
    with (
        RegistryAgent(server.address) as agent,
        Registration("web", ONE, agent=agent, drain_time=0),
        Registration("api", TWO, agent=agent, drain_time=0),
    ):
        assert {each.lease for each in listed(server).values()} == {agent.lease}


def test_an_address_that_a_newer_program_has_is_left_to_it_and_claimed_again_after_it(server: RegistryServer) -> None:
    with Registration("web", ONE, weight=1, target=server.address, ttl=3.0, drain_time=0) as older:
        with Registration("web", ONE, weight=2, target=server.address, ttl=60.0, drain_time=0):
            wait_until(lambda: not older.registered, "the older one's next heartbeat")
            assert listed(server)[ONE].endpoint.weight == 2
        wait_until(lambda: older.registered, "the older one's claim")
        assert listed(server)[ONE].endpoint.weight == 1


def test_reports_of_load_and_health_arrive(server: RegistryServer) -> None:
    with Registration("web", ONE, target=server.address, drain_time=0) as registration:
        registration.report(health=Health.HEALTHY, load=LoadReport(rif=4))
        wait_until(lambda: listed(server)[ONE].load == LoadReport(rif=4), "the report")
        assert listed(server)[ONE].endpoint.health is Health.HEALTHY


def test_the_health_reported_last_is_said_again_after_a_break_in_which_load_was_reported(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry.db") as server, RegistryAgent(server.address) as agent:
        agent.announce("web", Endpoint(ONE))
        assert agent.report("web", ONE, health=Health.UNHEALTHY, wait=30)
        server.stop()
        agent.report("web", ONE, load=LoadReport(rif=4))
        server.start()
        wait_until(lambda: ONE in listed(server) and listed(server)[ONE].load == LoadReport(rif=4), "the report")
        assert listed(server)[ONE].endpoint.health is Health.UNHEALTHY


def test_the_health_reported_last_is_said_again_with_a_claim(server: RegistryServer) -> None:
    with RegistryAgent(server.address, ttl=3.0) as older:
        older.announce("web", Endpoint(ONE))
        older.report("web", ONE, health=Health.UNHEALTHY, wait=30)
        with RegistryAgent(server.address) as newer:
            newer.announce("web", Endpoint(ONE, weight=2))
            wait_until(lambda: not older.registered, "the older one's next heartbeat")
        wait_until(lambda: older.registered, "the older one's claim")
        assert listed(server)[ONE].endpoint == Endpoint(ONE, health=Health.UNHEALTHY)


@pytest.mark.parametrize(
    ("service", "address", "options", "expected"),
    [
        ("a b", ONE, {}, "service 'a b'"),
        ("web", "10.0.0.1", {}, "address '10.0.0.1'"),
        ("web", "db.internal:80", {}, "address 'db.internal:80': expected an IP address"),
        ("web", ONE, {"weight": 0}, "weight 0"),
        ("web", ONE, {"drain_time": -1}, "drain_time -1"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_runs(
    service: str, address: str, options: dict[str, int], expected: str
) -> None:
    with pytest.raises(InvalidSetting, match=expected):
        Registration(service, address, **options)  # type: ignore[arg-type]


def test_what_the_registry_refuses_is_raised_and_not_tried_again(server: RegistryServer) -> None:
    with RegistryAgent(server.address) as agent:
        agent.announce("web", Endpoint(ONE, weight=2**32 - 1))
        with pytest.raises(InvalidSetting, match="weight: those of service 'web'"):
            agent.announce("web", Endpoint(TWO))
        wait_until(lambda: agent.registered, "the agent to go on")
        assert set(listed(server)) == {ONE}


def test_a_change_that_is_refused_leaves_what_was_announced_before_and_that_can_be_withdrawn(
    server: RegistryServer,
) -> None:
    with RegistryAgent(server.address) as agent:
        agent.announce("web", Endpoint(ONE))
        agent.announce("web", Endpoint(TWO))
        with pytest.raises(InvalidSetting, match="weight: those of service 'web'"):
            agent.announce("web", Endpoint(ONE, weight=2**32 - 1))
        wait_until(lambda: agent.registered, "the agent to go on")
        assert listed(server)[ONE].endpoint.weight == 1
        assert agent.withdraw("web", ONE, wait=30)
        assert set(listed(server)) == {TWO}


def test_an_agent_whose_address_a_newer_program_has_withdraws_the_others_when_it_is_closed(
    server: RegistryServer,
) -> None:
    older = RegistryAgent(server.address, ttl=60.0)
    older.announce("web", Endpoint(ONE))
    older.announce("web", Endpoint(TWO))
    with RegistryAgent(server.address) as newer:
        newer.announce("web", Endpoint(ONE, weight=2))
        older.announce("web", Endpoint(ONE))
        assert not older.registered
        older.close(wait=30)
        assert {address: each.endpoint.weight for address, each in listed(server).items()} == {ONE: 2}


def test_an_agent_that_is_closed_while_it_opens_its_stream_ends(
    server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ClosedMeanwhile(agent_module._Session):
        def __init__(self, agent: RegistryAgent) -> None:
            super().__init__(agent)
            threading.Thread(target=agent.close, kwargs={"wait": 0.1}).start()
            wait_for_a_while(lambda: agent._closing)

    monkeypatch.setattr(agent_module, "_Session", ClosedMeanwhile)
    agent = RegistryAgent(server.address)
    agent._thread.join(30)
    assert not agent._thread.is_alive()


def test_a_server_that_answers_what_it_was_not_asked_is_left_and_asked_again() -> None:
    streams = []

    def heartbeat(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        streams.append(requests)
        for _ in requests:
            answer = pb.HeartbeatResponse(lease_id=7, ttl=duration(15.0)).SerializeToString()
            yield answer
            if len(streams) == 1:
                yield answer

    with registry_of(heartbeat) as address, RegistryAgent(address) as agent:
        agent.announce("web", Endpoint(ONE))
        wait_until(lambda: len(streams) == 2 and agent.registered, "the next stream")


def test_a_registry_that_takes_longer_than_it_is_given_is_given_more() -> None:
    def heartbeat(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in requests:
            time.sleep(1.2)
            yield pb.HeartbeatResponse(lease_id=7, ttl=duration(3.0)).SerializeToString()

    with registry_of(heartbeat) as address, RegistryAgent(address, ttl=3.0) as agent:
        assert agent.announce("web", Endpoint(ONE), wait=30)


def test_what_is_new_is_said_though_more_is_taken_than_fits_into_a_message(server: RegistryServer) -> None:
    def addresses(network: int, count: int) -> list[str]:
        return [f"10.{network}.{n // 250}.{n % 250}:80" for n in range(count)]

    def announce_all(agent: RegistryAgent, addresses: list[str]) -> None:
        for address in addresses:
            agent.announce("web", Endpoint(address), wait=0)
        wait_until(lambda: agent._done == agent._wishes, "all of them")

    taken, new = addresses(1, 600), addresses(2, 300)
    with RegistryAgent(server.address, ttl=60.0) as older:
        announce_all(older, taken)
        with RegistryAgent(server.address, ttl=60.0) as newer:
            announce_all(newer, taken)
            announce_all(older, taken)
            announce_all(older, new)
            owners = {address: each.lease for address, each in listed(server).items()}
            assert owners == dict.fromkeys(taken, newer.lease) | dict.fromkeys(new, older.lease)


def test_an_agent_that_is_closed_while_something_is_refused_withdraws_the_rest_and_ends() -> None:
    received, closing, withdrawn = threading.Event(), threading.Event(), threading.Event()

    def heartbeat(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for each in map(pb.HeartbeatRequest.FromString, requests):
            if any(one.address == TWO for one in each.announcements):
                received.set()
                closing.wait(30)
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "weight: refused")
            if each.withdrawals:
                withdrawn.set()
            yield pb.HeartbeatResponse(lease_id=7, ttl=duration(60.0)).SerializeToString()

    with registry_of(heartbeat) as address:
        agent = RegistryAgent(address, ttl=60.0)
        agent.announce("web", Endpoint(ONE), wait=30)
        agent.announce("web", Endpoint(TWO), wait=0)
        assert received.wait(30)
        ending = threading.Thread(target=agent.close, kwargs={"wait": 30})
        ending.start()

        def withdraws() -> bool:
            with agent._changed:
                return not agent._announced

        wait_until(withdraws, "the closing")
        closing.set()
        ending.join(60)
        assert (withdrawn.is_set(), agent._thread.is_alive()) == (True, False)


@contextmanager
def registry_of(heartbeat: Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Heartbeat": grpc.stream_stream_rpc_method_handler(heartbeat)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lbcore.v1.Registry", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_program_that_ends_without_leaving_the_context_withdraws_what_it_announced(server: RegistryServer) -> None:
    program = (
        "import sys; from lbcore.client import Registration\n"
        f"Registration('web', {ONE!r}, target=sys.argv[1], drain_time=0.1).start()\n"
        "print('up', flush=True)"
    )
    ended = subprocess.run([sys.executable, "-c", program, server.address], cwd=ROOT, timeout=30, check=False)
    assert (ended.returncode, listed(server)) == (0, {})


def test_a_connection_that_cannot_be_closed_does_not_hold_up_the_end(
    server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in grpc issue 20026."""
    closed, never = threading.Event(), threading.Event()

    def close(_: object) -> None:
        closed.set()
        never.wait(60)

    monkeypatch.setattr("grpc._channel.Channel.close", close)
    with Registration("web", ONE, target=server.address, drain_time=0):
        pass
    assert (closed.wait(30), listed(server)) == (True, {})
    never.set()


def test_a_program_that_is_killed_is_gone_when_its_lease_has_run_out(server: RegistryServer) -> None:
    program = (
        "import sys, time; from lbcore.client import Registration\n"
        f"Registration('web', {ONE!r}, target=sys.argv[1], ttl=3.0).start()\n"
        "print('up', flush=True); time.sleep(60)"
    )
    with Process([sys.executable, "-c", program, server.address], cwd=ROOT) as process:
        process.wait_for_output("up")
        assert set(listed(server)) == {ONE}
        process.signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not listed(server), "the end of the lease")


def test_a_watch_tells_what_changes_and_goes_on_over_a_restart(tmp_path: Path) -> None:
    seen: list[RegistryUpdate] = []
    with RegistryServer(tmp_path / "registry.db") as server, RegistryClient(server.address) as client:

        def follow() -> None:
            for update in client.watch("web"):
                seen.append(update)
                if len(seen) == 3:
                    return

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        wait_until(lambda: len(seen) == 1, "the snapshot")
        with Registration("web", ONE, target=server.address, drain_time=0, ttl=60):
            wait_until(lambda: len(seen) == 2, "the change")
            server.stop()
            server.start()
            wait_until(lambda: len(seen) == 3, "the snapshot after the restart")
    assert [update.snapshot for update in seen] == [True, False, True]
    assert [[each.endpoint.address for each in update.registrations] for update in seen] == [[], [ONE], [ONE]]


def test_deregistering_and_draining_from_outside(server: RegistryServer) -> None:
    with RegistryClient(server.address) as client, Registration("web", ONE, target=server.address, drain_time=0):
        client.drain("web", ONE)
        drained = client.registrations("web")[0].endpoint.health
        client.drain("web", ONE, undo=True)
        undone = client.registrations("web")[0].endpoint.health
        client.deregister("web", ONE)
        assert (drained, undone, client.registrations()) == (Health.DRAINING, Health.UNKNOWN, ())
        with pytest.raises(UnknownService, match=r"10\.0\.0\.1:80 of service 'web': not registered"):
            client.drain("web", ONE)


def test_kill_9_of_the_service_loses_nothing(tmp_path: Path) -> None:
    def heard_of() -> bool:
        try:
            return [each.stale for each in client.registrations("web")] == [False]
        except ServiceUnreachable:
            return False  # the channel waits a moment before it connects again

    with (
        LbcoreService(tmp_path, web_with("10.0.0.9:80")) as service,
        RegistryClient(service.grpc) as client,
        Registration("web", ONE, target=service.grpc, drain_time=0, ttl=30) as registration,
    ):
        lease = registration.lease
        service.end(signal.SIGKILL)
        service.restart()
        assert ONE in service.get("/clusters").body.decode()
        wait_until(heard_of, "the agent to come back")
        wait_until(lambda: registration.registered, "the agent to know")
        assert registration.lease == lease
