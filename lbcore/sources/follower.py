"""Follows one feed for ever: hands on what it says, damped; asks again when it breaks, backing off.

The invariant: a feed that breaks takes nothing away, nor does one that says what no service can have. Whatever goes
wrong in it, the rest of the process goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing, suppress

from lbcore.errors import InvalidSetting
from lbcore.membership import Membership, check_membership
from lbcore.sources.back_off import BackOff
from lbcore.sources.feed import Feed, FeedBroken, Timing

__all__ = ["DAMPING", "Follower"]

LOG = logging.getLogger(__name__)

DAMPING = 0.1  # seconds from one change to the next at least; istiod pushes no more often (PILOT_DEBOUNCE_AFTER)
_REST = 4.0  # times as long as handing a change on took: tens of thousands of endpoints leave others their time too


class Follower:
    """Runs a feed. `heard` gets each membership and says whether it is a change; `failed` the reason of each failure.

    Fields:
        up: whether the feed works now.
        updates: changes handed on.
        errors: times that the feed broke.
        last_success: when by the clock it was last heard from; None: never.
    """

    def __init__(
        self,
        name: str,
        feed: Feed,
        heard: Callable[[Membership], bool],
        failed: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self.name = name
        self._feed = feed
        self._heard = heard
        self._failed = failed
        self._timing = timing
        self._fit: Membership | None = None  # what was looked at last and is good
        self._held_back: Membership | None = None  # until the damping ends
        self._next_change = float("-inf")  # by the clock, at the earliest
        self._damping: asyncio.Task[None] | None = None
        self.up = False
        self._reason = ""  # of the last failure
        self.updates = 0
        self.errors = 0
        self.last_success: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the feed was last heard from; None: never."""
        return None if self.last_success is None else self._timing.clock() - self.last_success

    async def run(self) -> None:
        """Follows the feed until cancelled."""
        back_off = BackOff(self._timing.random)
        wait = 0.0
        try:
            while True:
                working_since: float | None = None
                try:
                    async with aclosing(self._feed.follow()) as memberships:
                        async for membership in memberships:
                            working_since = self._timing.clock() if working_since is None else working_since
                            if isinstance(membership, FeedBroken):
                                self._fail(str(membership))
                            else:
                                self._hear(membership)
                    self._fail("it ended")
                except FeedBroken as broken:
                    self._fail(str(broken))
                except Exception as unexpected:  # a defect, or an answer as nobody foresaw it: the others go on
                    LOG.exception("source %s", self.name)
                    self._fail(f"{type(unexpected).__name__}: {unexpected}")
                # What breaks as soon as it works, as a list that no watch may follow, is asked less and less often.
                if working_since is not None and self._timing.clock() - working_since >= wait:
                    back_off.reset()
                await self._timing.sleep(wait := back_off.next())
        finally:
            self.up = False
            if self._damping is not None:
                self._damping.cancel()
                with suppress(asyncio.CancelledError):
                    await self._damping

    def _hear(self, membership: Membership) -> None:
        if membership is not self._fit:
            try:
                check_membership(membership)
            except InvalidSetting as wrong:
                self._fail(str(wrong))
                return
            self._fit = membership
        now = self._timing.clock()
        self.last_success = now
        if not self.up:
            self.up = True
            LOG.info("source %s: heard from, %d endpoints", self.name, len(membership.endpoints))
        wait = self._next_change - now
        if wait <= 0 and self._damping is None:
            self._hand_on(membership)
        else:
            self._held_back = membership
            self._damping = self._damping or asyncio.ensure_future(self._hand_on_later(wait))

    async def _hand_on_later(self, wait: float) -> None:
        await self._timing.sleep(wait)
        self._damping = None
        if self._held_back is not None:
            self._hand_on(self._held_back)

    def _hand_on(self, membership: Membership) -> None:
        self._held_back = None
        began = self._timing.clock()
        if self._heard(membership):
            self.updates += 1
            ended = self._timing.clock()
            self._next_change = ended + max(DAMPING, _REST * (ended - began))
        if not self.up:  # it has failed since, and what it said before that does not change it
            self._failed(self._reason)

    def _fail(self, reason: str) -> None:
        self.errors += 1
        if self.up or self.errors == 1:
            LOG.warning("source %s: %s; what it said last stays in use", self.name, reason)
        self.up = False
        self._reason = reason
        self._failed(reason)
