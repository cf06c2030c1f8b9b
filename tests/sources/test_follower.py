"""`Follower`: a feed that breaks takes nothing away and is asked again, later and later; changes come damped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lbcore.membership import Membership
from lbcore.model import Endpoint
from lbcore.sources.feed import FeedBroken
from lbcore.sources.follower import DAMPING, Follower
from tests.sources.scripted import ScriptedFeed, members
from tests.sources.virtual_time import VirtualTime

ONE, TWO = members("10.0.0.1:80"), members("10.0.0.2:80")


class Heard:
    """What a follower has handed on, and what `say` says at the moment."""

    def __init__(self) -> None:
        self.says: Membership | Exception = ONE
        self.memberships: list[Membership] = []
        self.failures: list[str] = []

    def say(self) -> Membership:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def heard(self, membership: Membership) -> bool:
        changed = not self.memberships or self.memberships[-1] != membership
        if changed:
            self.memberships.append(membership)
        return changed


@asynccontextmanager
async def following(
    time: VirtualTime, heard: Heard, interval: float = 1.0, say: Callable[[], Membership] | None = None
) -> AsyncIterator[Follower]:
    feed = ScriptedFeed(say or heard.say, time.timing, interval)
    follower = Follower("dns:web", feed, heard.heard, heard.failures.append, time.timing)
    running = asyncio.create_task(follower.run())
    await time.advance(0)
    try:
        yield follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_the_feed_says_is_handed_on() -> None:
    time, heard = VirtualTime(), Heard()
    async with following(time, heard) as follower:
        heard.says = TWO
        await time.advance(1)
    assert (heard.memberships, follower.updates, follower.errors) == ([ONE, TWO], 2, 0)


async def test_an_unreachable_source_takes_nothing_away_and_grows_old() -> None:
    time, heard = VirtualTime(), Heard()
    async with following(time, heard) as follower:
        heard.says = FeedBroken("no answer")
        await time.advance(60)
        assert (heard.memberships, follower.up, follower.age) == ([ONE], False, 60)
        assert set(heard.failures) == {"no answer"}


async def test_a_source_that_returns_is_up_and_young_again() -> None:
    time, heard = VirtualTime(), Heard()
    async with following(time, heard) as follower:
        heard.says = FeedBroken("no answer")
        await time.advance(60)
        heard.says = TWO
        await time.advance(31)
        assert (heard.memberships, follower.up) == ([ONE, TWO], True)
        assert follower.age is not None
        assert follower.age <= 1


async def test_waits_between_attempts_double_up_to_half_a_minute() -> None:
    time, heard = VirtualTime(), Heard()
    heard.says = FeedBroken("no answer")
    async with following(time, heard):
        await time.advance(100)
    assert time.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_waits_are_spread_over_their_upper_half() -> None:
    time, heard = VirtualTime(random=0.999_999), Heard()
    heard.says = FeedBroken("no answer")
    async with following(time, heard):
        await time.advance(3)
    assert time.slept == pytest.approx([0.25, 0.5, 1, 2], rel=1e-3)


async def test_an_answer_ends_backing_off() -> None:
    time, heard = VirtualTime(), Heard()
    heard.says = FeedBroken("no answer")
    async with following(time, heard, interval=1000):
        await time.advance(10)
        heard.says = ONE
        await time.advance(10)
        heard.says = FeedBroken("no answer")
        await time.advance(1000)
    assert time.slept[time.slept.index(1000) + 1] == 0.5


async def test_a_feed_that_breaks_as_soon_as_it_works_is_asked_less_and_less_often_until_it_goes_on_working() -> None:
    time, heard = VirtualTime(), Heard()
    says = [ONE, FeedBroken("the watch is refused")] * 5 + [ONE] * 100 + [FeedBroken("no answer")]

    def say() -> Membership:
        said = says.pop(0) if says else FeedBroken("no answer")
        if isinstance(said, FeedBroken):
            raise said
        return said

    async with following(time, heard, interval=0.1, say=say):
        await time.advance(40)
    assert [wait for wait in time.slept if wait > 0.1][:6] == [0.5, 1, 2, 4, 8, 0.5]


async def test_a_defect_in_a_feed_is_a_failure_like_others() -> None:
    time, heard = VirtualTime(), Heard()
    async with following(time, heard) as follower:
        heard.says = KeyError("colour")
        await time.advance(1)
        assert (heard.failures, heard.memberships) == (["KeyError: 'colour'"], [ONE])
        heard.says = TWO
        await time.advance(1)
        assert (follower.up, heard.memberships) == (True, [ONE, TWO])


async def test_changes_in_quick_succession_are_damped_and_the_last_one_counts() -> None:
    time, heard = VirtualTime(), Heard()
    flapping = (members(f"10.0.0.{n % 2 + 1}:80") for n in range(100))
    async with following(time, heard, interval=DAMPING / 10, say=lambda: next(flapping, ONE)) as follower:
        await time.advance(10 * DAMPING)
        assert 5 <= follower.updates <= 11
        await time.advance(10 * DAMPING)
    assert heard.memberships[-1] == ONE


async def test_changes_that_take_long_to_hand_on_leave_others_most_of_the_time() -> None:
    class Slow(Heard):
        def heard(self, membership: Membership) -> bool:
            time.now += 0.5
            return super().heard(membership)

    time, heard = VirtualTime(), Slow()
    flapping = (members(f"10.0.0.{n % 2 + 1}:80") for n in range(100))
    async with following(time, heard, interval=DAMPING, say=lambda: next(flapping)) as follower:
        await time.advance(9)
        assert 3 <= follower.updates <= 5


async def test_a_single_change_is_not_held_back() -> None:
    time, heard = VirtualTime(), Heard()
    async with following(time, heard):
        heard.says = members()
        await time.advance(1)
        assert heard.memberships == [ONE, members()]
        assert DAMPING not in time.slept


async def test_nothing_is_handed_on_after_the_end() -> None:
    time, heard = VirtualTime(), Heard()
    flapping = (members(f"10.0.0.{n % 2 + 1}:80") for n in range(100))
    async with following(time, heard, interval=DAMPING / 10, say=lambda: next(flapping)):
        await time.advance(DAMPING / 2)
    said = len(heard.memberships)
    await time.advance(10)
    assert (said, len(heard.memberships)) == (1, 1)


async def test_members_that_no_service_can_have_are_a_failure_and_the_last_good_ones_stay() -> None:
    time, heard = VirtualTime(), Heard()
    heaviest = 2**32 - 1
    async with following(time, heard) as follower:
        heard.says = Membership((Endpoint("10.0.0.1:80", weight=heaviest), Endpoint("10.0.0.2:80", weight=heaviest)))
        await time.advance(3)
        assert (heard.memberships, follower.up, follower.errors) == ([ONE], False, 3)
        assert heard.failures[-1].startswith("weights of priority 0, locality '' add up to 8589934590")
        heard.says = TWO
        await time.advance(1)
        assert (heard.memberships, follower.up) == ([ONE, TWO], True)


async def test_a_hundred_thousand_mistakes_are_told_by_a_few() -> None:
    time, heard = VirtualTime(), Heard()
    async with following(time, heard):
        heard.says = Membership(tuple(Endpoint(f"h{n}.internal:80") for n in range(100_000)))
        await time.advance(1)
    assert heard.failures[0].count("expected an IP address") == 5


async def test_a_change_that_was_held_back_does_not_end_the_staleness_of_a_source_that_has_failed_since() -> None:
    class Stale(Heard):
        stale = ""

        def heard(self, membership: Membership) -> bool:
            self.stale = ""  # as the directory has it
            return super().heard(membership)

    time, heard = VirtualTime(), Stale()
    says: list[Membership | FeedBroken] = [FeedBroken("no answer"), TWO, ONE]

    def say() -> Membership:
        said = says.pop() if len(says) > 1 else says[0]
        if isinstance(said, FeedBroken):
            raise said
        return said

    feed = ScriptedFeed(say, time.timing, DAMPING / 10)

    def failed(reason: str) -> None:
        heard.stale = reason

    follower = Follower("dns:web", feed, heard.heard, failed, time.timing)
    running = asyncio.create_task(follower.run())
    await time.advance(DAMPING)
    assert (heard.memberships, heard.stale) == ([ONE, TWO], "no answer")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
