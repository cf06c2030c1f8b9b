"""A follower of etcd that waits with what it has read as long as a test likes: its server lags behind the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

from lbcore.etcd.following import PrefixFollower, Step

__all__ = ["Lagging"]


class Lagging(PrefixFollower):
    """Goes on while `reads` is set. `made` has all of them, in order."""

    made: ClassVar[list[Lagging]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reads = asyncio.Event()
        self.reads.set()
        self.made.append(self)

    async def steps(self) -> AsyncIterator[Step]:
        async with aclosing(super().steps()) as steps:  # type: ignore[type-var]
            async for step in steps:
                await self.reads.wait()
                yield step
