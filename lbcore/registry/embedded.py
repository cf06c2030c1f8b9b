"""The registry of one process: a `Table` that decides, a `Journal` that remembers, readers that are told.

Readers are told before the disk is: what they learn a moment early is announced again, should it be lost.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from lbcore.directory import Directory
from lbcore.errors import StoreFailed
from lbcore.registration import Announcement, Key, Registration, RegistrySettings, Report
from lbcore.registry.feed import Feed, Update
from lbcore.registry.journal import Journal, StoredLease, StoredRegistration
from lbcore.registry.publishing import SOURCE, Publisher, held_reason
from lbcore.registry.registry import Beat
from lbcore.registry.table import Entry, Table, Written

__all__ = ["EmbeddedRegistry"]

logger = logging.getLogger(__name__)

_SWEEP = 0.2  # seconds between two looks for leases that have run out
_STALL = 1.0  # seconds by which a look may be late before leases are given that time


class EmbeddedRegistry:
    """Keeps registrations in memory, and in `journal` if there is one. `open` first, `run` until cancelled, `close`."""

    def __init__(
        self,
        directory: Directory,
        settings: RegistrySettings | None = None,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = settings or RegistrySettings()
        self._table = Table(settings, clock)
        self._journal = journal
        self._feed = Feed(secrets.token_hex(8), self._table.registrations, lambda: self._table.revision)
        self._publisher = Publisher(directory, settings, clock)
        directory.await_source(SOURCE)

    def open(self) -> None:
        """Takes over what an earlier process has kept, and publishes it. Raises `StoreFailed`."""
        collecting = gc.isenabled()
        gc.disable()  # a hundred thousand objects that all stay are looked through again and again otherwise
        try:
            if self._journal is not None:
                self._restore(self._journal)
            self._publisher.replace((key.service, entry.shown) for key, entry in self._table.entries.items())
            self._publisher.publish()
        finally:
            if collecting:
                gc.enable()

    async def run(self) -> None:
        """Ends leases that have run out and publishes what changes, for ever."""
        publishing = asyncio.ensure_future(self._publisher.run())
        try:
            before = time.monotonic()
            while not publishing.done():
                await asyncio.sleep(_SWEEP)
                now = time.monotonic()
                if (late := now - before - _SWEEP) > _STALL:
                    logger.warning("this process stood still for %.1f s; every lease is given that time", late)
                    self._table.forgive(late)
                before = now
                await self.sweep()
            publishing.result()
        finally:
            publishing.cancel()

    async def sweep(self) -> None:
        """Ends the leases that have run out."""
        self._table.sweep()
        reason = held_reason(self._table.held)
        self._feed.mark_stale(reason)
        self._publisher.mark_stale(reason)
        try:
            await self._kept()
        except StoreFailed as wrong:
            logger.error("leases that ran out are kept on disk until it can be written: %s", wrong)

    async def close(self) -> None:
        """Closes the journal."""
        if self._journal is not None:
            await self._journal.close()

    @property
    def board(self) -> None:
        """One process checks everything itself."""

    @property
    def revision(self) -> int:
        """Of the newest change."""
        return self._table.revision

    @property
    def epoch(self) -> str:
        """Of this process: its history does not outlive it."""
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
        return self._table.held

    async def register(
        self, lease_id: int, ttl: float | None, announcements: Sequence[Announcement], sequence: int = 0
    ) -> Written:
        """See `Registry.register`."""
        written = self._table.register(lease_id, ttl, announcements, sequence)
        await self._kept()
        return written

    async def heartbeat(self, lease_id: int, reports: Sequence[Report] = (), sequence: int = 0) -> Written:
        """See `Registry.heartbeat`."""
        written = self._table.heartbeat(lease_id, reports, sequence)
        await self._kept()
        return written

    def begin(self, beat: Beat) -> Awaitable[Written]:
        """See `Registry.begin`."""
        lease, superseded = beat.lease, set[Key]()
        if beat.announcements or not lease or beat.ttl is not None:
            written = self._table.register(lease, beat.ttl, beat.announcements, beat.sequence)
            lease = written.lease
            superseded.update(written.superseded)
        if beat.withdrawals:
            superseded.update(self._table.deregister(lease, beat.withdrawals, beat.sequence).superseded)
        written = self._table.heartbeat(lease, beat.reports, beat.sequence)
        return _Kept(Written(lease, written.ttl, tuple(superseded.union(written.superseded))), self._keep())

    async def deregister(self, lease_id: int, keys: Sequence[Key], sequence: int = 0) -> Written:
        """See `Registry.deregister`."""
        written = self._table.deregister(lease_id, keys, sequence)
        await self._kept()
        return written

    async def revoke(self, lease_id: int) -> Written:
        """See `Registry.revoke`."""
        written = self._table.revoke(lease_id)
        await self._kept()
        return written

    async def drain(self, lease_id: int, key: Key, drained: bool = True) -> Written:
        """See `Registry.drain`."""
        written = self._table.drain(lease_id, key, drained)
        await self._kept()
        return written

    def registrations(self, service: str = "") -> Iterable[Registration]:
        """See `Registry.registrations`."""
        return self._table.registrations(service)

    def watch(self, service: str = "", epoch: str = "", revision: int = 0) -> AsyncIterator[Update]:
        """See `Registry.watch`."""
        return self._feed.watch(service, epoch, revision)

    async def _kept(self) -> None:
        """Tells readers what has changed, and returns once it is written down. Raises `StoreFailed`."""
        if (kept := self._keep()) is not None:
            await asyncio.shield(kept)

    def _keep(self) -> asyncio.Future[None] | None:
        """Tells readers what has changed, and begins to write it down; None where there is nothing to write."""
        changes, ended = self._table.take_changes()
        if changes:
            self._feed.append(changes)
            self._publisher.apply(changes)
        if self._journal is None or not (changes or ended):
            return None
        entries = {change.key: self._table.entries.get(change.key) for change in changes}
        leases: dict[int, StoredLease | None] = {
            entry.lease.id: StoredLease(entry.lease.id, entry.lease.ttl, entry.lease.granted)
            for entry in entries.values()
            if entry is not None
        }
        return self._journal.write(
            {**leases, **dict.fromkeys(ended)},
            {key: None if entry is None else _stored(entry) for key, entry in entries.items()},
            self._table.revision,
        )

    def _restore(self, journal: Journal) -> None:
        leases, registrations = journal.open()
        self._table.revision = journal.revision
        restored = {each.id: self._table.restore(*each) for each in leases}
        for each in registrations:
            entry = Entry(each.key, each.endpoint, restored[each.lease], each.sequence)
            entry.revision, entry.reported, entry.drained = each.revision, each.reported, each.drained
            self._table.restore_entry(entry)
        if registrations:
            logger.info(
                "%d registrations from %s, stale until their agents are heard of", len(registrations), journal.path
            )


class _Kept:
    """What came of a request; awaiting it waits until that is written down, and raises `StoreFailed` if it is not."""

    __slots__ = ("_kept", "_written")

    def __init__(self, written: Written, kept: asyncio.Future[None] | None) -> None:
        self._written = written
        self._kept = kept

    def __await__(self) -> Generator[Any, None, Written]:
        if self._kept is not None:
            yield from (self._kept if self._kept.done() else asyncio.shield(self._kept)).__await__()
        return self._written


def _stored(entry: Entry) -> StoredRegistration:
    return StoredRegistration(
        entry.key, entry.lease.id, entry.revision, entry.sequence, entry.reported, entry.drained, entry.announced
    )
