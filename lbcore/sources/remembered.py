"""What sources have said last, on disk: what a restart serves when a source does not answer in time.

A SQLite file, of which the loss costs nothing but that: every failure to use it is told once and then passed over. What
a source has said counts only for the same settings.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lbcore.errors import LbError
from lbcore.membership import Membership
from lbcore.model import Endpoint, Health, Locality
from lbcore.source import Source

__all__ = ["RememberedMembers"]

LOG = logging.getLogger(__name__)

_TABLE = "CREATE TABLE IF NOT EXISTS members (source TEXT PRIMARY KEY, settings TEXT NOT NULL, said BLOB NOT NULL)"
_BUSY = 0.5  # seconds to wait for another process that has the file


class RememberedMembers:
    """Memberships by the name of their source. `path` None remembers nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._told = False

    @staticmethod
    def beside(config: Path, store: str) -> RememberedMembers:
        """In `NAME.sources.db` beside the configuration file, or beside the file of a store `sqlite:PATH`; nowhere with
        `memory`."""
        if store == "memory":
            return RememberedMembers(None)
        base = Path(store.removeprefix("sqlite:")) if store.startswith("sqlite:") else config
        return RememberedMembers(base.with_name(f"{base.stem}.sources.db"))

    def keep(self, said: Mapping[str, tuple[Source, Membership]]) -> None:
        """Replaces what is kept of these sources. Takes as long as the disk does."""
        rows = [(name, _settings(source), _encoded(membership)) for name, (source, membership) in said.items()]
        self._use("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", rows)

    def recall(self, name: str, source: Source) -> Membership | None:
        """What the source has said last, None where that is not known."""
        found = self._use("SELECT said FROM members WHERE source = ? AND settings = ?", [(name, _settings(source))])
        try:
            return _decoded(found[0][0]) if found else None
        except (msgspec.MsgspecError, LbError, KeyError, TypeError, ValueError) as wrong:
            LOG.warning("%s: what it has of source %s cannot be read: %s", self._path, name, wrong)
            return None

    def _use(self, statement: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        if self._path is None or not rows:
            return []
        try:
            database = sqlite3.connect(self._path, timeout=_BUSY)
            try:
                with database:
                    database.execute(_TABLE)
                    return [found for row in rows for found in database.execute(statement, row).fetchall()]
            finally:
                database.close()
        except (sqlite3.Error, OSError) as wrong:
            if not self._told:
                self._told = True
                LOG.warning("%s: %s; what sources say will not be known after a restart", self._path, wrong)
            return []


def _settings(source: Source) -> str:
    """What tells them apart; not they themselves, for there may be a password among them."""
    return hashlib.blake2b(repr(source).encode(), digest_size=16).hexdigest()


def _encoded(membership: Membership) -> bytes:
    weights = [[place, weight] for place, weight in membership.locality_weights.items()]
    return msgspec.json.encode({"endpoints": membership.endpoints, "locality_weights": weights})


def _decoded(said: bytes) -> Membership:
    read = msgspec.json.decode(said, type=dict[str, Any])
    endpoints = tuple(
        Endpoint(
            **{
                **each,
                "locality": Locality(**each["locality"]),
                "health": Health(each["health"]),
                "additional_addresses": tuple(each["additional_addresses"]),
            }
        )
        for each in read["endpoints"]
    )
    return Membership(endpoints, {Locality(**place): weight for place, weight in read["locality_weights"]})
