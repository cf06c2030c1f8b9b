"""`Registry`: what the registry service asks of a store, be it this process's own or etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lbcore.board import Board
from lbcore.registration import Announcement, Key, Registration, Report
from lbcore.registry.feed import Update
from lbcore.registry.table import Written

__all__ = ["Beat", "Registry", "RegistryStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One message of an agent: it keeps the lease, and says what has changed. Lease 0 is a new one."""

    lease: int = 0
    ttl: float | None = None
    announcements: Sequence[Announcement] = ()
    withdrawals: Sequence[Key] = ()
    reports: Sequence[Report] = ()
    sequence: int = 0


class Registry(Protocol):
    """Takes announcements, and tells what is registered.

    Requests return when what they ask for is kept, and raise `StoreFailed` where it cannot be. `UnknownLease` and
    `InvalidSetting` mean that nothing has changed.
    """

    @property
    def revision(self) -> int:
        """Of the newest change."""

    @property
    def epoch(self) -> str:
        """Which history revisions belong to."""

    @property
    def held(self) -> Mapping[str, int]:
        """How many leases are held by self-preservation, by service."""

    @property
    def stale(self) -> str:
        """Why what it tells may be out of date; empty where it is not."""

    @property
    def damped(self) -> Mapping[str, int]:
        """How many endpoints are held back because they flap, by service."""

    async def register(
        self, lease_id: int, ttl: float | None, announcements: Sequence[Announcement], sequence: int
    ) -> Written:
        """Announces endpoints under a lease; 0 grants a new one."""

    async def heartbeat(self, lease_id: int, reports: Sequence[Report], sequence: int) -> Written:
        """Keeps a lease."""

    def begin(self, beat: Beat) -> Awaitable[Written]:
        """Begins all that one message of an agent asks for: announcements, withdrawals, reports. To be awaited.

        What is begun takes effect in that order for each registration, though the one before may not be kept yet.
        """

    async def deregister(self, lease_id: int, keys: Sequence[Key], sequence: int) -> Written:
        """Removes registrations of a lease."""

    async def revoke(self, lease_id: int) -> Written:
        """Ends a lease and removes all that is under it."""

    async def drain(self, lease_id: int, key: Key, drained: bool) -> Written:
        """Takes an endpoint out of rotation, or back."""

    def registrations(self, service: str) -> Iterable[Registration]:
        """All registrations, or those of one service."""

    def watch(self, service: str, epoch: str, revision: int) -> AsyncIterator[Update]:
        """Changes after a revision, or a snapshot and the changes after it."""


class RegistryStore(Registry, Protocol):
    """A registry that a service runs: `open` first, `run` until cancelled, `close` last."""

    @property
    def board(self) -> Board | None:
        """Where its servers share their health checks; None where there is only one server."""

    def open(self) -> None:
        """Makes it ready to run. Raises `StoreFailed` where it cannot be."""

    async def run(self) -> None:
        """Keeps it and the Directory up to date, for ever."""

    async def close(self) -> None:
        """Ends it."""
