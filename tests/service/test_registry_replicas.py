"""Two `lbcore serve` over one etcd: whichever answers, the same is registered; either may be killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from lbcore.client import Registration, RegistryClient
from lbcore.errors import LbError
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.process import Process, wait_until
from tests.harness.registry_watch import watched
from tests.harness.service import LBCORE, LbcoreService

pytestmark = needs_etcd

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


@pytest.fixture
def replicas(etcd: Etcd, tmp_path: Path) -> Iterator[list[LbcoreService]]:
    with ExitStack() as running:
        services = []
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            options = ("--store", f"etcd://{etcd.address}/lbcore")
            services.append(running.enter_context(LbcoreService(folder, "services: {}", *options)))
        for service in services:
            wait_until(lambda each=service: each.get("/ready").status == 200, "the first list")  # type: ignore[misc]
        yield services


def addresses(service: LbcoreService) -> set[str]:
    with RegistryClient(service.grpc) as client:
        try:
            return {each.endpoint.address for each in client.registrations()}
        except LbError:
            return set()


def list_all(service: LbcoreService) -> pb.ListResponse:
    with grpc.insecure_channel(service.grpc) as channel:
        return RegistryStub(channel).List(pb.ListRequest(), timeout=30)


def version(service: LbcoreService) -> str:
    answer: str = json.loads(service.get("/ready").body)["version"]
    return answer


def test_an_agent_goes_on_at_the_other_replica_and_nothing_is_lost(replicas: list[LbcoreService]) -> None:
    first, second = replicas
    target = f"ipv4:{first.grpc},{second.grpc}"
    with (
        Registration("web", ONE, target=target, ttl=4.0, drain_time=0) as one,
        Registration("web", TWO, target=second.grpc, ttl=4.0, drain_time=0),
    ):
        lease = one.lease
        for service in replicas:
            wait_until(lambda each=service: addresses(each) == {ONE, TWO}, "both at each")  # type: ignore[misc]
        wait_until(lambda: version(first) == version(second), "the same versions")
        first.end(signal.SIGKILL)
        wait_until(lambda: one.registered, "the agent at the other replica")
        assert (one.lease, addresses(second)) == (lease, {ONE, TWO})
        first.restart()
        wait_until(lambda: addresses(first) == {ONE, TWO}, "the replica that came back")
    wait_until(lambda: addresses(first) == set(), "the withdrawals")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_a_wrapped_program_goes_on_at_the_other_replica_before_its_lease_ends(
    replicas: list[LbcoreService], how: signal.Signals
) -> None:
    first, second = replicas
    command = [*LBCORE, "register", "web", ONE, "--server", f"ipv4:{first.grpc},{second.grpc}", "--ttl", "6"]
    with Process(command) as agent, RegistryClient(second.grpc, timeout=30.0) as client:
        wait_until(client.registrations, "the registration")
        first.process.signal(how)
        try:
            ends = time.monotonic() + 10.0  # much longer than its lease
            while time.monotonic() < ends:
                assert [each.held for each in client.registrations()] in ([False], [True]), agent.report()
                time.sleep(0.1)
            wait_until(lambda: not client.registrations()[0].held, "the agent at the other replica")
        finally:
            first.process.signal(signal.SIGCONT)


def test_a_watch_goes_on_at_the_other_replica_where_one_hangs(replicas: list[LbcoreService]) -> None:
    first, second = replicas
    with watched(f"ipv4:{first.grpc},{second.grpc}") as updates:
        first.process.signal(signal.SIGSTOP)
        try:
            with Registration("web", ONE, target=second.grpc, drain_time=0):
                wait_until(lambda: len(updates) > 1 and updates[-1].registrations, "the change", 90.0)
        finally:
            first.process.signal(signal.SIGCONT)
    assert [each.snapshot for each in updates[:2]] == [True, False]  # it has resumed


def test_an_outage_of_etcd_shows_and_takes_nothing_away(replicas: list[LbcoreService], etcd: Etcd) -> None:
    service = replicas[0]
    with (
        Registration("web", ONE, target=service.grpc, ttl=30.0, drain_time=0) as registration,
        watched(service.grpc) as updates,
    ):
        assert [(len(each.registrations), each.stale) for each in updates] == [(1, "")]
        etcd.kill()
        wait_until(lambda: b"etcd" in service.get("/ready").body, "staleness")
        wait_until(lambda: len(updates) == 2, "staleness in a watch")
        assert (updates[1].registrations, updates[1].removed, "etcd" in updates[1].stale) == ((), (), True)
        assert "etcd" in list_all(service).stale
        assert ONE in service.get("/clusters").body.decode()
        assert service.get("/ready").status == 200
        assert b'lbcore_source_stale{source="registry"} 1.0' in service.get("/metrics").body
        etcd.restart()
        wait_until(lambda: b"etcd" not in service.get("/ready").body, "the end of staleness")
        wait_until(lambda: registration.registered, "the agent")
        assert addresses(service) == {ONE}
        wait_until(lambda: not list_all(service).stale, "the end of staleness in a list")
        wait_until(lambda: updates[-1].stale == "", "the end of staleness in a watch")
