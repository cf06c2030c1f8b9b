"""`EtcdRegistry`: the registry of any number of servers, joined by etcd.

Reading is from memory, as of one revision of etcd that all servers agree on; it goes on while etcd is away, and is
marked stale then. Writing goes to etcd, and is confirmed when this server has read it back.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing

from aetcd import rpc
from async_timeout import timeout as time_limit
from msgspec.structs import replace

from lbcore.directory import Directory
from lbcore.errors import NotReady, StoreFailed, UnknownLease
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.etcd.following import PrefixFollower
from lbcore.model import Endpoint
from lbcore.registration import Announcement, Key, Registration, RegistrySettings, Report
from lbcore.registry.admission import check_announcements
from lbcore.registry.etcd.board import EtcdBoard
from lbcore.registry.etcd.leases import KEPT, EtcdLeases
from lbcore.registry.etcd.loads import SharedLoads
from lbcore.registry.etcd.memory import RegistryMemory
from lbcore.registry.etcd.records import Keys, LeaseRecord, Record, decode_lease, encode_lease
from lbcore.registry.etcd.view import View
from lbcore.registry.etcd.writing import Decision, Writer
from lbcore.registry.feed import Feed, Update
from lbcore.registry.preservation import mass_loss
from lbcore.registry.publishing import SOURCE, Publisher, held_reason
from lbcore.registry.registry import Beat
from lbcore.registry.table import Written, same

__all__ = ["EtcdRegistry"]

logger = logging.getLogger(__name__)

_SWEEP = 0.5  # seconds between two judgements
_READ_BACK = 2.0  # seconds that a confirmation waits at most for this server to have read what it wrote
_KEEP = Decision(write=False, sure=True)
_SUPERSEDED = Decision(write=False, superseded=True)


class EtcdRegistry:
    """Keeps registrations in etcd. `open` first, `run` until cancelled, `close` last."""

    def __init__(
        self,
        directory: Directory,
        address: EtcdAddress,
        settings: RegistrySettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        memory: RegistryMemory | None = None,
    ) -> None:
        self._settings = settings or RegistrySettings()
        self._clock = clock
        self._address = address
        prefix = address.prefix or "/lbcore/v1"
        self._board = EtcdBoard(prefix, self._settings)
        self._keys = Keys(prefix)
        self._view = View(self._keys)
        self._loads = SharedLoads(prefix, self._view.loads)
        self._feed = Feed("", self._view.registrations, lambda: self._view.revision)
        self._publisher = Publisher(directory, self._settings, clock)
        self._memory = memory
        self._synced = False
        self._failure = ""  # why etcd cannot be followed now
        self._gone_since: dict[int, float] = {}  # by lease, since when its key is gone as far as was seen
        self._held: dict[int, float] = {}  # by lease that was judged a part of a mass loss, when that was last so
        self._readers: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap of revisions that requests wait for
        self._under_way: dict[Key, asyncio.Task[Written]] = {}  # by registration, what has been begun last
        self._directory = directory
        directory.await_source(SOURCE)

    def open(self) -> None:
        """Connects; nothing is published before everything has been listed."""
        self._connection = EtcdConnection(self._address)
        self._leases = EtcdLeases(self._connection)
        self._writer = Writer(self._connection, self._keys, self._view)
        self._board.open(self._connection, self._leases)
        self._loads.open(self._connection, self._leases)

    async def run(self) -> None:
        """Follows etcd, judges leases that have run out, shares health checks and publishes what changes, for ever."""
        parts = [self._follow(), self._publisher.run(), self._judge_for_ever(), self._board.run(), self._loads.run()]
        if self._memory is not None:
            parts += [self._memory.keep_for_ever(self._view), self._recall(self._memory)]
        await asyncio.gather(*parts)

    async def close(self) -> None:
        """Ends the connection."""
        self._leases.close()
        await self._connection.close()

    @property
    def board(self) -> EtcdBoard:
        """Where the servers share their health checks."""
        return self._board

    @property
    def revision(self) -> int:
        """Of the newest change, which is etcd's."""
        return self._view.revision

    @property
    def epoch(self) -> str:
        """Of the etcd cluster: its revisions mean the same to every server."""
        return self._feed.epoch

    @property
    def stale(self) -> str:
        """Why what it tells may be out of date; empty where it is not."""
        return self._feed.stale

    @property
    def damped(self) -> Mapping[str, int]:
        """How many endpoints are held back because they flap, by service."""
        return self._publisher.damped

    @property
    def held(self) -> Mapping[str, int]:
        """How many leases are held by self-preservation, by service."""
        counts: dict[str, int] = {}
        for lease in self._held:
            for service in {key.service for key in self._view.keys_of(lease)}:
                counts[service] = counts.get(service, 0) + 1
        return counts

    async def register(
        self, lease_id: int, ttl: float | None, announcements: Sequence[Announcement], sequence: int = 0
    ) -> Written:
        """See `Registry.register`."""
        self._expect_sync()
        lifetime = self._settings.ttl(ttl)
        check_announcements(announcements, self._view.announced_for, self._view.weights)
        lease = await self._keep(lease_id) if lease_id else None
        if lease is None:
            lease_id, lease = await self._grant(lifetime)
        return await self._announce(lease_id, lease, {each.key: each.endpoint for each in announcements}, sequence)

    async def _announce(
        self, lease_id: int, lease: LeaseRecord, wanted: Mapping[Key, Endpoint], sequence: int
    ) -> Written:
        def decide(key: Key, record: Record | None) -> Decision:
            new = Record(endpoint=wanted[key], lease=lease_id, granted=lease.granted, ttl=lease.ttl, sequence=sequence)
            return _registered(record, new, self._view.lives)

        return await self._written(lease_id, lease, wanted, decide)

    async def heartbeat(self, lease_id: int, reports: Sequence[Report] = (), sequence: int = 0) -> Written:
        """See `Registry.heartbeat`."""
        self._expect_sync()
        return await self._report(lease_id, await self._keep(lease_id), reports, sequence)

    async def _report(self, lease_id: int, lease: LeaseRecord, reports: Sequence[Report], sequence: int) -> Written:
        by_key = {report.key: report for report in reports}
        mine = {key for key in by_key if (record := self._view.records.get(key)) and record.lease == lease_id}
        for key in mine:
            if (load := by_key[key].load) is not None:
                self._loads.hear(key, load)

        def decide(key: Key, record: Record | None) -> Decision:
            return _reported(record, by_key[key], lease_id, sequence)

        written = await self._written(lease_id, lease, by_key, decide)
        return replace(written, superseded=tuple({*written.superseded, *self._view.lost(lease_id)}))

    def begin(self, beat: Beat) -> Awaitable[Written]:
        """See `Registry.begin`."""
        wanted = {each.key: each.endpoint for each in beat.announcements}
        keys = [*wanted, *beat.withdrawals, *(report.key for report in beat.reports)]
        earlier = {self._under_way[key] for key in keys if key in self._under_way}
        begun = asyncio.ensure_future(self._exchange(beat, wanted, earlier))
        self._under_way.update(dict.fromkeys(keys, begun))

        def ended(_: asyncio.Future[Written]) -> None:
            for key in keys:
                if self._under_way.get(key) is begun:
                    del self._under_way[key]

        begun.add_done_callback(ended)
        return begun

    async def _exchange(
        self, beat: Beat, wanted: Mapping[Key, Endpoint], earlier: set[asyncio.Task[Written]]
    ) -> Written:
        """Transactions overtake each other: what asks for the same registrations waits for those `earlier` ones."""
        self._expect_sync()
        lifetime = self._settings.ttl(beat.ttl)
        check_announcements(beat.announcements, self._view.announced_for, self._view.weights)
        if earlier:
            await asyncio.wait(earlier)
        lease_id, superseded = beat.lease, set[Key]()
        if lease_id:
            try:
                lease = await self._keep(lease_id)
            except UnknownLease:  # the agent announces everything anew, but not what it withdraws
                await self._remove_held(lease_id, beat.withdrawals)
                raise
        else:
            lease_id, lease = await self._grant(lifetime)
        if wanted:
            superseded.update((await self._announce(lease_id, lease, wanted, beat.sequence)).superseded)
        if beat.withdrawals:
            superseded.update((await self.deregister(lease_id, beat.withdrawals, beat.sequence)).superseded)
        superseded.update((await self._report(lease_id, lease, beat.reports, beat.sequence)).superseded)
        return Written(lease_id, lease.ttl, tuple(superseded))

    async def deregister(self, lease_id: int, keys: Sequence[Key], sequence: int = 0) -> Written:
        """See `Registry.deregister`."""
        self._expect_sync()
        try:
            lease = await self._known(lease_id)
        except UnknownLease:
            if not self._view.keys_of(lease_id):
                raise
            return await self._remove_held(lease_id, keys)

        def decide(key: Key, record: Record | None) -> Decision:
            gone = Record(endpoint=Endpoint(key.address), lease=lease_id, granted=lease.granted, ttl=lease.ttl)
            return _withdrawn(record, gone, sequence)

        tombstones = await self._leases.for_tombstones() if sequence else 0
        return await self._written(lease_id, lease, keys, decide, tombstones)

    async def revoke(self, lease_id: int) -> Written:
        """See `Registry.revoke`."""
        written = await self.deregister(lease_id, sorted(self._view.keys_of(lease_id)))
        if written.ttl:  # else it has run out
            await self._until(await self._leases.revoke(lease_id))
            # What this server had not read before, it has now, and nothing can be added any more.
            await self._remove_held(lease_id, sorted(self._view.keys_of(lease_id)))
        return replace(written, ttl=0.0)

    async def drain(self, lease_id: int, key: Key, drained: bool = True) -> Written:
        """See `Registry.drain`."""
        self._expect_sync()
        lease = await self._known(lease_id)

        def decide(_: Key, record: Record | None) -> Decision:
            if record is None or record.withdrawn or record.lease != lease_id:
                return _SUPERSEDED
            return Decision(record.drained is not drained, replace(record, drained=drained))

        return await self._written(lease_id, lease, [key], decide)

    def registrations(self, service: str = "") -> Iterable[Registration]:
        """See `Registry.registrations`."""
        self._expect_sync()
        return self._view.registrations(service)

    async def watch(self, service: str = "", epoch: str = "", revision: int = 0) -> AsyncIterator[Update]:
        """See `Registry.watch`."""
        self._expect_sync()
        async with aclosing(self._feed.watch(service, epoch, revision)) as updates:  # type: ignore[type-var]
            async for update in updates:
                yield update

    async def _remove_held(self, lease_id: int, keys: Sequence[Key]) -> Written:
        """Removes registrations whose lease has run out, but that are held: what is said so is no silence."""

        def decide(_: Key, record: Record | None) -> Decision:
            mine = record is not None and record.lease == lease_id and not record.withdrawn
            return Decision(mine, superseded=not mine)

        revision, superseded = await self._writer.write(lease_id, keys, decide, alive=False)
        await self._until(revision)
        return Written(lease_id, 0.0, tuple(superseded))

    async def _written(
        self,
        lease_id: int,
        lease: LeaseRecord,
        keys: Collection[Key],
        decide: Callable[[Key, Record | None], Decision],
        tombstones: int = 0,
    ) -> Written:
        superseded: Sequence[Key] = ()
        if keys:
            revision, superseded = await self._writer.write(lease_id, keys, decide, tombstones=tombstones)
            await self._until(revision)
        return Written(lease_id, lease.ttl, tuple(superseded))

    async def _grant(self, ttl: float) -> tuple[int, LeaseRecord]:
        lease_id = await self._leases.grant(ttl)
        put = rpc.PutRequest(key=self._keys.lease(lease_id), value=encode_lease(LeaseRecord(ttl, 0)), lease=lease_id)
        response = await self._connection.call("KV", "Put", put)
        return lease_id, LeaseRecord(ttl, response.header.revision)

    async def _known(self, lease_id: int) -> LeaseRecord:
        """A lease that is alive, as this server or else as etcd knows it. Raises `UnknownLease`."""
        if lease_id in self._view.leases:
            return self._view.leases[lease_id]
        if 0 < lease_id < 2**63:
            response = await self._connection.call("KV", "Range", rpc.RangeRequest(key=self._keys.lease(lease_id)))
            for pair in response.kvs:
                return decode_lease(pair.value, pair.create_revision)
        raise UnknownLease(f"lease {lease_id}: unknown here, or it has run out")

    async def _keep(self, lease_id: int) -> LeaseRecord:
        lease = await self._known(lease_id)
        if not await self._leases.keep(lease_id, lease.ttl):
            raise UnknownLease(f"lease {lease_id}: it has run out")
        return lease

    def _expect_sync(self) -> None:
        if not self._synced:
            raise NotReady(f"etcd has not been read yet{': ' if self._failure else ''}{self._failure}")

    async def _until(self, revision: int) -> None:
        """Waits until this server has read a revision, so that whoever wrote it sees it here."""

        if self._view.revision >= revision:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._readers, (revision, id(reached), reached))
        try:
            async with time_limit(_READ_BACK):
                await reached
        except asyncio.TimeoutError:
            logger.debug("revision %d is written but not read back yet", revision)

    async def _follow(self) -> None:
        follower = PrefixFollower(self._connection, self._keys.all, self._failed, self._recovered)
        async for step in follower.steps():
            epoch = f"etcd-{follower.cluster:x}"
            changes = self._view.apply(step)
            if epoch != self._feed.epoch:
                self._feed.restart(epoch)
                self._publisher.replace((each.service, each.endpoint) for each in self._view.registrations())
            elif changes:
                self._feed.append(changes)
                self._publisher.apply(changes)
            self._loads.apply(step)
            self._board.apply(step)
            if not self._synced:
                self._synced = True
                self._publisher.publish()
                logger.info("%s: %d registrations", self._address, len(self._view.records))
            if self._memory is not None and changes:
                self._memory.heard(changed=True)
            while self._readers and self._readers[0][0] <= step.revision:
                reached = heapq.heappop(self._readers)[2]
                if not reached.done():
                    reached.set_result(None)

    def _failed(self, reason: str) -> None:
        if not self._failure:
            meanwhile = "what is known stays in use" if self._synced else "nobody is answered before it has been read"
            logger.error("%s; %s", reason, meanwhile)
        self._failure = reason
        # Time in which etcd was not heard of does not count against anybody.
        self._gone_since.clear()
        if self._synced:
            self._mark_stale(reason)
        else:  # nothing is published before everything has been read
            self._directory.mark_stale(SOURCE, reason)

    def _mark_stale(self, reason: str) -> None:
        self._feed.mark_stale(reason)
        self._publisher.mark_stale(reason)

    def _recovered(self) -> None:
        if self._memory is not None:
            self._memory.heard(changed=False)
        if self._failure:
            logger.info("%s: followed again", self._address)
        self._failure = ""

    async def _recall(self, memory: RegistryMemory) -> None:
        """Serves what etcd said last, where it says nothing for too long after the start."""
        if not self._settings.initial_fetch_timeout:
            return
        await asyncio.sleep(self._settings.initial_fetch_timeout)
        recalled = None if self._synced else await asyncio.to_thread(memory.recall)
        if self._synced:
            return
        if recalled is None:
            logger.error("nothing is answered before etcd is: what it said last is not known here, or too old")
            return
        age, members = recalled
        reason = f"as etcd had it {age:.0f} s before; {self._failure or 'it has not answered yet'}"
        logger.error("%d registrations are served %s", len(members), reason)
        self._publisher.replace(members)
        self._publisher.mark_stale(reason)
        self._publisher.publish()

    async def _judge_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                await self.judge()
            except StoreFailed as wrong:
                logger.warning("leases that ran out stay until etcd can be written: %s", wrong)

    async def judge(self) -> None:
        """Removes what is under leases that have run out and are no part of a mass loss. Raises `StoreFailed`."""
        if self._failure or not self._synced:
            return
        now = self._clock()
        run_out = self._view.run_out()
        self._gone_since = {lease: self._gone_since.get(lease, now) for lease in run_out}
        self._held = {lease: since for lease, since in self._held.items() if lease in run_out}
        for lease, ttl in run_out.items():
            if (since := self._gone_since.get(lease)) is None:
                return  # etcd was not heard of meanwhile: they are judged anew
            if now - since < ttl * (1 - KEPT):
                continue
            if self._is_part_of_mass_loss(lease, run_out):
                self._held[lease] = now
            elif lease not in self._held or now - self._held[lease] >= ttl:
                await self._end(lease)
        if not self._failure:
            self._mark_stale(held_reason(self.held))

    def _is_part_of_mass_loss(self, lease: int, run_out: Mapping[int, float]) -> bool:
        return any(
            mass_loss(
                (float(each in run_out) for each in self._view.leases_in(service)),
                self._settings.max_expiry_percent,
                self._settings.min_leases,
            )
            for service in {key.service for key in self._view.keys_of(lease)}
        )

    async def _end(self, lease: int) -> None:
        """Removes what is under a lease that is gone; of several servers that do so at once one does it."""

        def decide(_: Key, record: Record | None) -> Decision:
            return Decision(record is not None and record.lease == lease and not record.withdrawn, sure=True)

        await self._writer.write(lease, self._view.keys_of(lease), decide, alive=False)


def _registered(record: Record | None, new: Record, lives: Callable[[int, int], bool]) -> Decision:
    """What an announcement makes of what is there.

    One that says nothing new is written where its number is: else one that is late, of a number in between, would win.
    """
    if record is None:
        return Decision(write=True, record=new)
    if record.lease == new.lease:
        if new.sequence and new.sequence < record.sequence:
            return _SUPERSEDED
        if record.withdrawn:
            return Decision(write=True, record=new)
        sequence = new.sequence or record.sequence
        kept = replace(new, drained=record.drained, over=record.over, sequence=sequence)
        return Decision(kept != record or not same(kept.endpoint, record.endpoint), kept)
    if record.withdrawn:
        return Decision(write=True, record=new)
    if record.granted > new.granted and lives(record.lease, record.granted):
        return _SUPERSEDED
    return Decision(write=True, record=replace(new, over=record.lease))


def _reported(record: Record | None, report: Report, lease: int, sequence: int) -> Decision:
    """What a heartbeat makes of what is there; load alone is not written."""
    if record is None or record.withdrawn or record.lease != lease or (sequence and sequence < record.sequence):
        return _SUPERSEDED
    if report.health is None:
        return _KEEP
    said = replace(record, reported=report.health, sequence=max(sequence, record.sequence))
    return Decision(said != record, said)


def _withdrawn(record: Record | None, gone: Record, sequence: int) -> Decision:
    """What a withdrawal makes of what is there: nothing, or for ordered writes that it was withdrawn.

    That is kept where nothing was there too: what is late may have been announced before.
    """
    gone = replace(gone, withdrawn=True, sequence=sequence)
    if record is None or (record.withdrawn and record.lease != gone.lease):
        return Decision(bool(sequence), gone, superseded=True)
    if record.lease != gone.lease or (sequence and sequence < record.sequence):
        return _SUPERSEDED
    if record.withdrawn:
        return Decision(sequence > record.sequence, gone, superseded=True)
    if not sequence:
        return Decision(write=True)
    return Decision(write=True, record=replace(record, withdrawn=True, sequence=sequence, over=0))
