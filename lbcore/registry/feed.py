"""The registry's history as readers follow it: a snapshot, then each change, resumable at a revision.

A reader that was away says how far it had come. What is remembered since is told change by change; where that does not
reach back so far, or the reader was following another history (`epoch`), it gets a snapshot again and compares.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from lbcore.registration import Change, Registration

__all__ = ["Feed", "Update"]

REMEMBERED = 10_000  # changes


@dataclass(frozen=True, slots=True)
class Update:
    """One message to a reader.

    Fields:
        revision: how far the reader has come with it.
        epoch: which history that revision belongs to.
        snapshot: every registration there is, in place of all that the reader knew; None where `changes` say it.
        changes: in order; of each key the newest alone.
        stale: why all of it may be out of date; empty where it is not.
    """

    revision: int
    epoch: str
    snapshot: tuple[Registration, ...] | None = None
    changes: tuple[Change, ...] = ()
    stale: str = ""


class Feed:
    """What readers wait at. `registrations(service)` lists all there are; `revision()` is the newest."""

    def __init__(
        self, epoch: str, registrations: Callable[[str], Iterable[Registration]], revision: Callable[[], int]
    ) -> None:
        self.epoch = epoch
        self.stale = ""
        self._registrations = registrations
        self._revision = revision
        self._history: deque[Change] = deque(maxlen=REMEMBERED)
        self._oldest = revision()  # the history tells everything after this
        self._watches: set[asyncio.Event] = set()

    def append(self, changes: Iterable[Change]) -> None:
        """Remembers changes and wakes the readers."""
        for change in changes:
            if len(self._history) == REMEMBERED:
                self._oldest = self._history[0].revision
            self._history.append(change)
        self._wake()

    def mark_stale(self, reason: str) -> None:
        """Says why what is told may be out of date; empty where it is not. Readers hear when that begins and ends."""
        before, self.stale = self.stale, reason
        if bool(before) is not bool(reason):
            self._wake()

    def _wake(self) -> None:
        for woken in self._watches:
            woken.set()

    def restart(self, epoch: str) -> None:
        """Forgets the history: every reader gets a snapshot."""
        self.epoch = epoch
        self._history.clear()
        self._oldest = self._revision()
        self.append(())

    async def watch(self, service: str = "", epoch: str = "", revision: int = 0) -> AsyncIterator[Update]:
        """Yields what is new after `revision` of `epoch` (a snapshot, where that is not known), and then what comes.

        A slow reader skips what lies between: of each registration it gets the newest.
        """
        woken = asyncio.Event()
        self._watches.add(woken)
        try:
            first, stale = True, False
            while True:
                woken.clear()
                update = self._since(service, epoch, revision)
                if first or update.changes or update.snapshot is not None or bool(update.stale) is not stale:
                    yield update
                first, epoch, revision, stale = False, update.epoch, update.revision, bool(update.stale)
                if not woken.is_set():
                    await woken.wait()
        finally:
            self._watches.discard(woken)

    def _since(self, service: str, epoch: str, revision: int) -> Update:
        newest = self._revision()
        if epoch != self.epoch or not self._oldest <= revision <= newest:
            return Update(newest, self.epoch, snapshot=tuple(self._registrations(service)), stale=self.stale)
        latest: dict[tuple[str, str], Change] = {}
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            if not service or change.key.service == service:
                latest.setdefault(change.key, change)
        return Update(newest, self.epoch, changes=tuple(reversed(latest.values())), stale=self.stale)
