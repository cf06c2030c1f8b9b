"""A feed followed by a test: what it says next, and how it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import TracebackType

from lbcore.membership import Membership
from lbcore.sources.feed import Feed, FeedBroken

__all__ = ["Following"]

TIME_LIMIT = 30.0  # seconds for what happens at once on an idle machine


class Following:
    """Follows a feed; when it breaks, `broken` says so and the next look begins anew. Use it in `async with`."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._memberships: AsyncGenerator[Membership | FeedBroken, None] | None = None

    async def next(self) -> Membership:
        """What the feed says next. Raises `FeedBroken`."""
        if self._memberships is None:
            self._memberships = self._feed.follow()
        try:
            heard = await asyncio.wait_for(anext(self._memberships), TIME_LIMIT)
        except FeedBroken:
            self._memberships = None
            raise
        if isinstance(heard, FeedBroken):
            raise heard
        return heard

    async def addresses(self) -> list[str]:
        return [endpoint.address for endpoint in (await self.next()).endpoints]

    async def until(self, *addresses: str) -> list[list[str]]:
        """Follows, through breaks too, until these are all; returns what was said on the way."""
        return await asyncio.wait_for(self._until([*addresses]), TIME_LIMIT)

    async def _until(self, addresses: list[str]) -> list[list[str]]:
        said: list[list[str]] = []
        while not said or said[-1] != addresses:
            with suppress(FeedBroken):
                said.append(await self.addresses())
        return said

    async def broken(self) -> str:
        """Why the feed breaks, which is what it does next."""
        try:
            heard = await self.next()
        except FeedBroken as broken:
            return str(broken)
        raise AssertionError(f"it says {heard}")

    async def __aenter__(self) -> Following:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._memberships is not None:
            await self._memberships.aclose()
