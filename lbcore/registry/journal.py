"""What the embedded registry keeps on disk: leases and registrations in SQLite, write-ahead logged.

A request is answered once its change is in the file, so that `kill -9` loses nothing that was promised. Requests that
arrive while a write is under way share the next one. Heartbeats are not written: a restart gives every lease its whole
time to live again. A change that could not be written is written with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lbcore.errors import StoreFailed
from lbcore.model import Endpoint, Health
from lbcore.registration import Key
from lbcore.registry.encoding import EndpointFields, endpoint_fields, restored_endpoint

__all__ = ["PACE", "Journal", "StoredLease", "StoredRegistration"]

FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (id INTEGER PRIMARY KEY, ttl REAL NOT NULL, granted INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS registration (
    service TEXT NOT NULL, address TEXT NOT NULL, lease INTEGER NOT NULL, revision INTEGER NOT NULL,
    sequence INTEGER NOT NULL, reported INTEGER, drained INTEGER NOT NULL, endpoint BLOB NOT NULL,
    PRIMARY KEY (service, address)
) WITHOUT ROWID;
"""
_PUT_LEASE = "INSERT INTO lease VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET ttl = excluded.ttl"
_PUT = "INSERT OR REPLACE INTO registration VALUES "
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"
PACE = 0.003  # seconds between the beginnings of two writes of a few requests each
_MANY = 50  # requests in a write that are not worth a wait for more
_ROWS = 100  # in a statement: sqlite3 holds the interpreter between two, so that many small ones hold up all else
_REMOVE_LEASE = "DELETE FROM lease WHERE id = ?"
_REMOVE = "DELETE FROM registration WHERE service = ? AND address = ?"
_PUT_REVISION = "INSERT OR REPLACE INTO meta VALUES ('revision', ?)"


class StoredLease(NamedTuple):
    """A lease as it is on disk."""

    id: int
    ttl: float
    granted: int


class StoredRegistration(NamedTuple):
    """A registration as it is on disk."""

    key: Key
    lease: int
    revision: int
    sequence: int
    reported: Health | None
    drained: bool
    endpoint: Endpoint


class Journal:
    """The file at `path`; it is made when there is something to keep. `open` first, `close` last.

    `revision` is that of the content that `open` found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.revision = 0
        self._database: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "lbcore-journal")  # SQLite's own: its calls wait for the disk
        self._leases: dict[int, StoredLease | None] = {}
        self._registrations: dict[Key, StoredRegistration | None] = {}
        self._newest = 0
        self._requests = 0  # that wait for the next write
        self._next: asyncio.Future[None] | None = None  # done when what waits to be written is in the file
        self._writing: asyncio.Task[None] | None = None

    def open(self) -> tuple[list[StoredLease], list[StoredRegistration]]:
        """Reads what is there. Raises `StoreFailed` where the file is not a registry's, or cannot be read."""
        if not self.path.exists():
            return [], []
        with self._failing():
            database = self._connected()
            meta = dict(database.execute("SELECT name, value FROM meta"))
            self.revision = int(meta.get("revision", 0))
            leases = [StoredLease(*row) for row in database.execute("SELECT id, ttl, granted FROM lease")]
            registrations = [_registration(row) for row in database.execute("SELECT * FROM registration")]
        used = {registration.lease for registration in registrations}
        return [lease for lease in leases if lease.id in used], registrations

    def write(
        self,
        leases: Mapping[int, StoredLease | None],
        registrations: Mapping[Key, StoredRegistration | None],
        revision: int,
    ) -> asyncio.Future[None]:
        """Keeps leases and registrations, None for what is gone.

        Returns what is done once they are in the file, and fails with `StoreFailed` where they could not be written.
        Others wait for the same: to be shielded from cancellation.
        """
        self._leases.update(leases)
        self._registrations.update(registrations)
        self._newest = revision
        self._requests += 1
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(asyncio.Future.exception)  # known, even if nobody waits any more
            if self._writing is None or self._writing.done():
                self._writing = asyncio.ensure_future(self._write_all())
        return self._next

    async def close(self) -> None:
        """Writes what is still to be written and closes the file."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._registrations:
            with contextlib.suppress(StoreFailed):
                await self._flush()
        self._thread.shutdown()
        if self._database is not None:
            self._database.close()

    async def _write_all(self) -> None:
        """Writes until nothing waits any more; what comes during a write is in the next one.

        A write that several requests shared shows that more come: the next one waits for them a moment.
        """
        clock = asyncio.get_running_loop().time
        while self._next is not None:
            kept, self._next = self._next, None
            begun, few, self._requests = clock(), 1 < self._requests < _MANY, 0
            try:
                await self._flush()
            except StoreFailed as wrong:
                kept.set_exception(wrong)
            else:
                kept.set_result(None)
            if few:
                await asyncio.sleep(begun + PACE - clock())

    async def _flush(self) -> None:
        leases, registrations = self._leases, self._registrations
        self._leases, self._registrations = {}, {}
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._commit, leases, registrations, self._newest
            )
        except BaseException:
            self._leases = {**leases, **self._leases}
            self._registrations = {**registrations, **self._registrations}
            raise

    def _commit(
        self,
        leases: Mapping[int, StoredLease | None],
        registrations: Mapping[Key, StoredRegistration | None],
        revision: int,
    ) -> None:
        with self._failing():
            database = self._connected()
            with database:
                database.executemany(_PUT_LEASE, (each for each in leases.values() if each is not None))
                database.executemany(_REMOVE_LEASE, ((name,) for name, each in leases.items() if each is None))
                rows = [_row(each) for each in registrations.values() if each is not None]
                for first in range(0, len(rows), _ROWS):
                    chunk = rows[first : first + _ROWS]
                    database.execute(_PUT + ", ".join([_ROW] * len(chunk)), [*chain.from_iterable(chunk)])
                database.executemany(_REMOVE, (key for key, each in registrations.items() if each is None))
                database.execute(_PUT_REVISION, (str(revision),))

    def _connected(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        database = sqlite3.connect(self.path, check_same_thread=False, timeout=1.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # A commit survives the end of this process at once. What a power failure takes, agents announce again.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.executescript(_SCHEMA)
            database.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
            database.commit()
            written = dict(database.execute("SELECT name, value FROM meta"))
            if int(written["format"]) != FORMAT:
                raise StoreFailed(f"{self.path}: of format {written['format']}, expected {FORMAT}")
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, KeyError, OverflowError, msgspec.MsgspecError) as wrong:
            raise StoreFailed(f"{self.path}: {wrong}") from wrong


def _row(stored: StoredRegistration) -> tuple[object, ...]:
    return (
        stored.key.service,
        stored.key.address,
        stored.lease,
        stored.revision,
        stored.sequence,
        stored.reported,
        stored.drained,
        msgspec.json.encode(endpoint_fields(stored.endpoint)),
    )


def _registration(row: tuple[Any, ...]) -> StoredRegistration:
    service, address, lease, revision, sequence, reported, drained, endpoint = row
    return StoredRegistration(
        Key(service, address),
        lease,
        revision,
        sequence,
        None if reported is None else Health(reported),
        bool(drained),
        restored_endpoint(address, msgspec.json.decode(endpoint, type=EndpointFields)),
    )
