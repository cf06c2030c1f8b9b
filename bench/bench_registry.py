"""The registry: registrations in batches and one by one, a change on its way to a reader, a restart.

Goals: 20 000 registrations a second in batches of 100 (30 000 through etcd) and 5 000 one by one; a change at a reader
within 5 ms (median); 100 000 endpoints served 3 s after a restart. The service is a process of its own. Memory is
measured by `bench.registry_memory`, the way of a change under load by `bench.registry_propagation`.
"""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.conftest import Versus
from bench.loop import Loop
from bench.registry_service import ECHO
from lbcore.directory import Directory
from lbcore.model import Endpoint
from lbcore.registration import Announcement, RegistrySettings
from lbcore.registry.embedded import EmbeddedRegistry
from lbcore.registry.journal import Journal, StoredLease, StoredRegistration
from lbcore.registry.table import Table
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from tests.harness.etcd import Etcd, needs_etcd

IN_FLIGHT = 100  # messages on a stream before their answers
BATCH = 100
MANY = 100_000
SERVICES = 1_000

numbers = itertools.count()


@contextmanager
def served(store: str) -> Iterator[grpc.Channel]:
    """A channel to a service with that store."""
    command = [sys.executable, "-m", "bench.registry_service", store]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        with grpc.insecure_channel(f"127.0.0.1:{int(server.stdout.readline())}") as opened:
            yield opened
        server.communicate(timeout=30)


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    with served(str(tmp_path_factory.mktemp("registry") / "registry.db")) as opened:
        yield opened


@pytest.fixture
def channel_to_etcd() -> Iterator[grpc.Channel]:
    with Etcd() as etcd, served(f"etcd://{etcd.address}/lbcore") as opened:
        yield opened


def announcement() -> pb.Announcement:
    n = next(numbers) % 2**20
    return pb.Announcement(service=f"s{n % SERVICES}", address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80")


class Exchange:
    """A stream on which `IN_FLIGHT` messages go out before their answers come in."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, messages: Iterable[Any]) -> None:
        for _ in self._call(iter(messages)):
            pass


def test_batches_in_process(versus: Versus) -> None:
    table = Table(RegistrySettings(), lambda: 0.0)
    lease = table.register(0, None, []).lease
    batches = itertools.cycle(
        [
            [Announcement(f"s{n % SERVICES}", Endpoint(f"10.{k}.{n >> 8}.{n & 255}:80")) for n in range(BATCH)]
            for k in range(200)
        ]
    )
    versus(
        f"a registration in a batch of {BATCH}, in the process",
        Loop(
            "register(lease, None, next(batches)); taken()",
            {"register": table.register, "lease": lease, "batches": batches, "taken": table.take_changes},
            20,
            calls=BATCH,
        ),
        "an Endpoint",
        Loop("Endpoint('10.0.0.1:80')", {"Endpoint": Endpoint}, 2000),
        rounds=40,
        limit=1 / 20_000,
    )


def test_batches_over_a_stream(versus: Versus, channel: grpc.Channel) -> None:
    batches(versus, channel, "kept on disk", messages=10, limit=1 / 20_000)


@needs_etcd
def test_batches_through_etcd(versus: Versus, channel_to_etcd: grpc.Channel) -> None:
    batches(versus, channel_to_etcd, "through etcd", messages=50, limit=1 / 30_000)


def batches(versus: Versus, channel: grpc.Channel, how: str, *, messages: int, limit: float) -> None:
    stub = RegistryStub(channel)
    lease = stub.Register(pb.RegisterRequest()).lease_id

    def requests() -> Iterator[pb.HeartbeatRequest]:
        """Made as they are sent, while the service works on those before."""
        for _ in range(messages):
            yield pb.HeartbeatRequest(lease_id=lease, announcements=[announcement() for _ in range(BATCH)])

    exchange, echo = Exchange(stub.Heartbeat), Exchange(channel.stream_stream(f"/{ECHO}/Echo"))
    versus(
        f"a registration in a message of {BATCH}, {how}",
        Loop("exchange(requests())", {"exchange": exchange, "requests": requests}, 2, calls=messages * BATCH),
        "an empty message",
        Loop("exchange(messages)", {"exchange": echo, "messages": [b"x"] * IN_FLIGHT}, 2, calls=IN_FLIGHT),
        rounds=10,
        limit=limit,
    )


def test_one_by_one_over_a_stream(versus: Versus, channel: grpc.Channel) -> None:
    stub = RegistryStub(channel)
    lease = stub.Register(pb.RegisterRequest()).lease_id

    def requests() -> Iterator[pb.HeartbeatRequest]:
        for _ in range(IN_FLIGHT):
            yield pb.HeartbeatRequest(lease_id=lease, announcements=[announcement()])

    echo = channel.stream_stream(f"/{ECHO}/Echo")
    versus(
        "a registration in a message of its own, kept on disk",
        Loop("exchange(requests())", {"exchange": Exchange(stub.Heartbeat), "requests": requests}, 2, calls=IN_FLIGHT),
        "an empty message",
        Loop("exchange(messages)", {"exchange": Exchange(echo), "messages": [b"x"] * IN_FLIGHT}, 2, calls=IN_FLIGHT),
        rounds=20,
        limit=1 / 5_000,
    )


def test_a_change_on_its_way_to_a_reader(versus: Versus, channel: grpc.Channel) -> None:
    stub = RegistryStub(channel)
    lease = stub.Register(pb.RegisterRequest()).lease_id
    watch = stub.Watch(pb.WatchRequest(service="watched"))
    next(watch)

    def change() -> None:
        message = pb.Announcement(service="watched", address="10.0.0.1:80", weight=1 + next(numbers))
        stub.Register(pb.RegisterRequest(lease_id=lease, announcements=[message]))
        next(watch)

    versus(
        "a change confirmed and at a reader",
        Loop("change()", {"change": change}, 5),
        "an empty message there and back",
        Loop("exchange([b'x'])", {"exchange": Exchange(channel.stream_stream(f"/{ECHO}/Echo"))}, 5),
        rounds=40,
        limit=0.005,
    )
    watch.cancel()


def test_a_restart(versus: Versus, tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    write(path)

    def restart() -> None:
        gc.collect()
        registry = EmbeddedRegistry(Directory(), journal=Journal(path))
        registry.open()
        registry._journal._database.close()  # type: ignore[union-attr]

    versus(
        f"a restart with {MANY} endpoints, until they are published",
        Loop("restart()", {"restart": restart}, 1),
        "an Endpoint",
        Loop("Endpoint('10.0.0.1:80')", {"Endpoint": Endpoint}, 2000),
        rounds=3,
        limit=3.0,
    )


def write(path: Path) -> None:
    """A file with `MANY` registrations of `SERVICES` services."""
    journal = Journal(path)
    lease = StoredLease(1, 15.0, 1)
    announced = (
        Announcement(f"s{n % SERVICES}", Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80")) for n in range(MANY)
    )
    registrations = {
        each.key: StoredRegistration(each.key, 1, n, 0, None, False, each.endpoint) for n, each in enumerate(announced)
    }
    journal._commit({1: lease}, registrations, MANY)
    assert journal._database is not None
    journal._database.close()
