"""Three writers, what they send delayed and in any order, at two servers or one: all agree with the model, always.

Random histories of announcements, reports, withdrawals, drains and ends of leases. A message takes its number when it
is made and is delivered whenever, through whichever server, some of them at the same time; a server that has not been
heard of for a while has not read what the other one wrote. A late write never wins, nobody changes what is another's,
and both servers end with the same registrations, revisions and versions.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import pytest
from aetcd import rpc

from lbcore.directory import Directory
from lbcore.errors import UnknownLease
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.model import Endpoint, Health
from lbcore.registration import Announcement, Key, Registration, RegistrySettings, Report
from lbcore.registry.etcd.registry import EtcdRegistry
from lbcore.registry.table import Table, Written
from tests.harness.etcd import Etcd, needs_etcd
from tests.reference.writers import ModelWriters, Shown
from tests.registry.clock import Clock
from tests.registry.lagging import Lagging

TTL = 60.0  # longer than any history takes
SETTINGS = RegistrySettings(min_leases=1000, debounce=0.0, flap_hold=0.0)
KEYS = (Key("web", "10.0.0.1:80"), Key("web", "10.0.0.2:80"))
METADATA: tuple[dict[str, Any], ...] = ({}, {"v": 1}, {"v": 2})

Result = bool | None
Message = tuple[Any, ...]  # the name of a method of the model, and its arguments


class Engine(Protocol):
    """What is tested. `server` says through which of its servers."""

    def grant(self, server: int, /) -> int:
        """A new lease."""

    def send(self, messages: list[tuple[Message, int]]) -> list[Result]:
        """Delivers messages, each through a server, all at the same time."""

    def revoke(self, lease: int, server: int, /) -> None:
        """Ends a lease at once."""

    def run_out(self, lease: int) -> None:
        """Lets a lease run out while the others live."""

    def lag(self, server: int | None, /) -> None:
        """Has one server lag behind, or none."""

    def look(self) -> list[dict[Key, Shown]]:
        """What there is by each server, and by what a watch of it was told, when all have read everything."""


class History:
    """A random history, the same for the same seed."""

    WHAT: Mapping[str, float] = {
        "announce": 8,
        "report": 6,
        "withdraw": 4,
        "arrive_late": 6,
        "arrive_together": 2,
        "drain": 2,
        "clear": 1,
        "start_anew": 0.4,
        "revoke": 0.3,
        "run_out": 0.3,
        "lag": 1.5,
        "look": 0.3,
    }

    def __init__(self, engine: Engine, seed: int, *, forgets: bool) -> None:
        self._engine = engine
        self._models = [ModelWriters(forgets)]  # those that what was seen so far leaves possible
        self._chance = random.Random(seed)
        self._delayed: list[Message] = []
        self._numbers = itertools.count(1)
        self._leases = [0, 0, 0]
        self.log: list[object] = [f"seed {seed}"]

    def run(self, steps: int) -> None:
        for writer in range(3):
            self._start_anew(writer)
        for what in self._chance.choices([*self.WHAT], [*self.WHAT.values()], k=steps):
            getattr(self, f"_{what}")(self._chance.randrange(3))
        self._look(0)

    def _start_anew(self, writer: int) -> None:
        """The writer begins again under another lease; what it sent under the one before may still arrive."""
        self._leases[writer] = self._engine.grant(self._server())
        self.log.append(("lease", writer, self._leases[writer]))
        for model in self._models:
            model.grant(self._leases[writer])

    def _announce(self, writer: int) -> None:
        key = self._key()
        metadata = self._chance.choice(METADATA)
        endpoint = Endpoint(key.address, weight=self._chance.randint(1, 2), metadata=metadata)
        self._make("announce", self._leases[writer], key, endpoint, next(self._numbers))

    def _report(self, writer: int) -> None:
        health = self._chance.choice([Health.HEALTHY, Health.DEGRADED])
        self._make("report", self._leases[writer], self._key(), health, next(self._numbers))

    def _withdraw(self, writer: int) -> None:
        self._make("withdraw", self._leases[writer], self._key(), next(self._numbers))

    def _clear(self, writer: int) -> None:
        self._deliver([("clear", self._leases[writer], self._key())])

    def _drain(self, writer: int) -> None:
        self._deliver([("drain", self._leases[writer], self._key(), self._chance.random() < 0.5)])

    def _arrive_late(self, _: int) -> None:
        if self._delayed:
            self._deliver([self._delayed.pop(self._chance.randrange(len(self._delayed)))])

    def _arrive_together(self, _: int) -> None:
        if self._delayed:
            taken, self._delayed = self._delayed[-3:], self._delayed[:-3]
            self._deliver(taken)

    def _revoke(self, writer: int) -> None:
        if self._leases[writer] in self._models[0].grants:
            self._engine.revoke(self._leases[writer], self._server())
            self._end(writer)

    def _run_out(self, writer: int) -> None:
        if self._leases[writer] in self._models[0].grants:
            self._engine.run_out(self._leases[writer])
            self._end(writer)

    def _lag(self, _: int) -> None:
        """From now on a server reads nothing that is written, or both read again."""
        self._engine.lag(self._chance.choice([None, 0, 1]))

    def _look(self, _: int) -> None:
        """All servers agree, and with the model."""
        first, *others = self._engine.look()
        assert all(each == first for each in others), (first, others, self.log)
        possible = [model for model in self._models if model.shown() == first]
        assert possible, (first, [model.shown() for model in self._models], self.log)
        self._models = possible

    def _end(self, writer: int) -> None:
        self.log.append(("end", writer))
        for model in self._models:
            model.end(self._leases[writer])

    def _server(self) -> int:
        return self._chance.randrange(2)

    def _key(self) -> Key:
        return self._chance.choices(KEYS, [4, 1])[0]

    def _make(self, *message: Any) -> None:
        if self._chance.random() < 0.4:
            self._delayed.append(message)
        else:
            self._deliver([message])

    def _deliver(self, messages: list[Message]) -> None:
        """In whichever order they took effect: one of them must have had these results."""
        servers = [self._server() for _ in messages]
        results = self._engine.send(list(zip(messages, servers, strict=True)))
        self.log.append((messages, servers, results))
        possible: list[ModelWriters] = []
        for before in self._models:
            for order in itertools.permutations(range(len(messages))):
                model = copy.deepcopy(before)
                found = {each: getattr(model, messages[each][0])(*messages[each][1:]) for each in order}
                # A lease that is gone may be told either so or that nothing was done.
                if all(found[n] == result or (found[n] is None and not result) for n, result in enumerate(results)):
                    possible += [model] if model not in possible else []
        assert possible, self.log
        self._models = possible


class OnTable:
    """The registry of one process, its clock in the test's hands."""

    def __init__(self) -> None:
        ids = itertools.count(1)
        self.clock = Clock()
        self.table = Table(SETTINGS, self.clock, lambda: next(ids))
        self.read: dict[Key, Registration] = {}

    def grant(self, _: int) -> int:
        return self.table.register(0, TTL, []).lease

    def send(self, messages: list[tuple[Message, int]]) -> list[Result]:
        return [self._send(*message) for message, _ in messages]

    def _send(self, what: str, lease: int, key: Key, *rest: Any) -> Result:
        try:
            if what == "announce":
                written = self.table.register(lease, None, [Announcement(key.service, rest[0])], rest[1])
            elif what == "report":
                written = self.table.heartbeat(lease, [Report(key, rest[0])], rest[1])
            elif what == "drain":
                written = self.table.drain(lease, key, rest[0])
            else:
                written = self.table.deregister(lease, [key], *rest)
        except UnknownLease:
            return None
        return key not in written.superseded

    def revoke(self, lease: int, _: int) -> None:
        self.table.revoke(lease)

    def lag(self, _: int | None) -> None:
        """It has nothing to lag behind."""

    def run_out(self, lease: int) -> None:
        for _ in range(3):
            self.clock.advance(0.4 * TTL)
            for other in self.table.leases.keys() - {lease}:
                self.table.heartbeat(other)
        self.table.sweep()

    def look(self) -> list[dict[Key, Shown]]:
        for change in self.table.take_changes()[0]:
            self.read.pop(change.key, None)
            if change.registration is not None:
                self.read[change.key] = change.registration
        listed = {each.key: each for each in self.table.registrations()}
        assert listed == self.read
        return [shown(listed)]


def shown(registrations: Mapping[Key, Registration]) -> dict[Key, Shown]:
    return {key: (each.lease, each.endpoint) for key, each in registrations.items()}


class OnEtcd:
    """Two servers over one etcd, under a prefix of its own. Nothing of them runs while nothing is asked of either."""

    def __init__(self, loop: asyncio.AbstractEventLoop, etcd: Etcd, prefix: str) -> None:
        self.loop = loop
        self.late = 0.0
        self.prefix = prefix
        self.address = EtcdAddress.parse(f"etcd://{etcd.address}/{prefix}")
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.connection = EtcdConnection(self.address)
        self.directories = [Directory(), Directory()]
        self.servers = [
            EtcdRegistry(each, self.address, SETTINGS, lambda: time.monotonic() + self.late)
            for each in self.directories
        ]
        for server in self.servers:
            server.open()
        self.running = [asyncio.ensure_future(server.run()) for server in self.servers]
        await self._until(lambda: all(each.synced for each in self.directories))
        self.read: list[dict[Key, Registration]] = [{}, {}]
        self.followers = Lagging.made[-2:]
        self.running += [asyncio.ensure_future(self._follow(n)) for n in range(2)]

    async def _follow(self, number: int) -> None:
        async with aclosing(self.servers[number].watch()) as updates:  # type: ignore[type-var]
            async for update in updates:
                if update.snapshot is not None:
                    self.read[number] = {each.key: each for each in update.snapshot}
                for change in update.changes:
                    self.read[number].pop(change.key, None)
                    if change.registration is not None:
                        self.read[number][change.key] = change.registration

    async def _until(self, condition: Callable[[], object], *told: object) -> None:
        deadline = self.loop.time() + 30.0
        while not condition():
            assert self.loop.time() < deadline, told
            await asyncio.sleep(0.001)

    def close(self) -> None:
        async def closed() -> None:
            for task in self.running:
                task.cancel()
            await asyncio.gather(*self.running, return_exceptions=True)
            for server in self.servers:
                await server.close()
            await self.connection.close()

        self.loop.run_until_complete(closed())

    def grant(self, server: int) -> int:
        return self.loop.run_until_complete(self.servers[server].register(0, TTL, [])).lease

    def send(self, messages: list[tuple[Message, int]]) -> list[Result]:
        async def sent() -> list[Result]:
            return list(await asyncio.gather(*(self._send(self.servers[at], *message) for message, at in messages)))

        return self.loop.run_until_complete(sent())

    async def _send(self, server: EtcdRegistry, what: str, lease: int, key: Key, *rest: Any) -> Result:
        asked: Awaitable[Written]
        if what == "announce":
            asked = server.register(lease, None, [Announcement(key.service, rest[0])], rest[1])
        elif what == "report":
            asked = server.heartbeat(lease, [Report(key, rest[0])], rest[1])
        elif what == "drain":
            asked = server.drain(lease, key, rest[0])
        else:
            asked = server.deregister(lease, [key], *rest)
        try:
            return key not in (await asked).superseded
        except UnknownLease:
            return None

    def lag(self, server: int | None) -> None:
        for number, follower in enumerate(self.followers):
            follower.reads.clear() if number == server else follower.reads.set()

    def revoke(self, lease: int, server: int) -> None:
        async def revoke() -> None:
            await self._all_read()
            await self.servers[server].revoke(lease)

        self.loop.run_until_complete(revoke())

    def run_out(self, lease: int) -> None:
        async def run_out() -> None:
            await self.connection.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))
            await self._all_read()
            for server in self.servers:
                await server.judge()
            self.late += TTL
            for server in self.servers:
                await server.judge()

        self.loop.run_until_complete(run_out())

    def look(self) -> list[dict[Key, Shown]]:
        async def look() -> list[dict[Key, Shown]]:
            await self._all_read()
            one, other = ({each.key: each for each in server.registrations()} for server in self.servers)
            assert one == other  # revisions and all
            there = shown(one)
            await self._until(lambda: [shown(read) for read in self.read] == [there, there], self.read, there)
            await self._until(lambda: self._published(there), there)
            return [there]

        return self.loop.run_until_complete(look())

    def _published(self, there: Mapping[Key, Shown]) -> bool:
        """Whether the servers' directories have just that, and of the same version."""
        services = [each.current.services.get("web") for each in self.directories]
        if not there:
            return services == [None, None]
        expected = {endpoint.address: endpoint for _, endpoint in there.values()}
        found = [{each.address: each for each in service.endpoints} for service in services if service is not None]
        return found == [expected, expected] and len({service.version for service in services if service}) == 1

    async def _all_read(self) -> None:
        self.lag(None)
        prefix = f"/{self.prefix}/".encode()
        found = await self.connection.call("KV", "Range", rpc.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0"))
        newest = max((each.mod_revision for each in found.kvs), default=0)
        await self._until(lambda: all(server.revision >= newest for server in self.servers))
        # A key that is gone bears no revision: a sign that both see comes after it.
        put = await self.connection.call("KV", "Put", rpc.PutRequest(key=prefix + b"sign"))
        await self._until(lambda: all(server.revision >= put.header.revision for server in self.servers))


@pytest.mark.parametrize("seed", range(0, 500, 100))
def test_of_one_server(seed: int) -> None:
    for each in range(seed, seed + 100):
        History(OnTable(), each, forgets=False).run(40)


@needs_etcd
def test_of_two_servers_over_etcd(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbcore.registry.etcd.registry.PrefixFollower", Lagging)
    monkeypatch.setattr("lbcore.registry.etcd.registry._READ_BACK", 0.0)
    loop = asyncio.new_event_loop()
    try:
        for seed in range(100):
            engine = OnEtcd(loop, etcd, f"history-{seed}")
            try:
                History(engine, seed, forgets=True).run(60)
            finally:
                engine.close()
    finally:
        loop.close()
