"""All keys with a prefix, followed for ever: a list, then each change, over lost connections and compactions.

The invariants: what a follower has been told is exactly what etcd had at the revision it was told, none skipped and
none twice; a broken connection takes nothing away. After it the watch resumes at the next revision; where etcd has
compacted that away, everything is listed anew and only the difference is told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aetcd import rpc

from lbcore.errors import StoreFailed
from lbcore.etcd.connection import EtcdConnection, prefix_end

__all__ = ["Pair", "PrefixFollower", "Step"]

_DELETE = rpc.Event.EventType.DELETE
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 3.0  # seconds before a broken watch is resumed, doubling, half of it random


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A key's value, and the revisions that made and last changed it."""

    value: bytes
    created: int
    modified: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What has changed up to a revision, None for keys that are gone. The first step has everything."""

    revision: int
    changes: Mapping[bytes, Pair | None]


class PrefixFollower:
    """Follows the keys that begin with `prefix`.

    `pairs` and `revision` are what it knows; `cluster` identifies the etcd cluster. `failed(reason)` hears of each
    failure, `recovered()` when it follows again. etcd is asked for a sign of life every `ping` seconds.
    """

    def __init__(
        self,
        connection: EtcdConnection,
        prefix: bytes,
        failed: Callable[[str], None] = lambda _: None,
        recovered: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ping: float = 2.0,
    ) -> None:
        self.pairs: dict[bytes, Pair] = {}
        self.revision = 0
        self.cluster = 0
        self._connection = connection
        self._prefix = prefix
        self._failed = failed
        self._recovered = recovered
        self._sleep = sleep
        self._ping = ping
        self._pause = _FIRST_WAIT
        self._ever = False  # whether anything has been told

    def resume(self, earlier: PrefixFollower) -> None:
        """Goes on where another one ended."""
        self.pairs, self.revision, self.cluster = earlier.pairs, earlier.revision, earlier.cluster

    async def attempt(self) -> AsyncGenerator[Step, None]:
        """Yields a step, empty where nothing has changed, whenever etcd is heard from. Raises `StoreFailed` when the
        connection breaks; called again, it goes on at the next revision."""
        if not self.revision:
            yield await self._list()
        async for step in self._watch():
            yield step

    async def steps(self) -> AsyncIterator[Step]:
        """Yields the first step when everything has been listed, then one for each change, for ever."""
        while True:
            try:
                async for step in self.attempt():
                    if step.changes or not self._ever:
                        self._ever = True
                        yield step
            except StoreFailed as wrong:  # noqa: PERF203 - a watch lasts for hours
                self._failed(str(wrong))
                await self._sleep(self._pause * random.uniform(0.5, 1.0))
                self._pause = min(2 * self._pause, _LONGEST_WAIT)

    async def _list(self) -> Step:
        """Everything there is, told as the difference to what is known."""
        request = rpc.RangeRequest(key=self._prefix, range_end=prefix_end(self._prefix))
        response = await self._connection.call("KV", "Range", request)
        found = {each.key: _pair(each) for each in response.kvs}
        changes: dict[bytes, Pair | None] = dict.fromkeys(self.pairs.keys() - found.keys())
        changes |= {key: pair for key, pair in found.items() if self.pairs.get(key) != pair}
        self.pairs, self.revision, self.cluster = found, response.header.revision, response.header.cluster_id
        self._works()
        return Step(self.revision, changes)

    async def _watch(self) -> AsyncIterator[Step]:
        async def requests() -> AsyncIterator[Any]:
            create = rpc.WatchCreateRequest(
                key=self._prefix,
                range_end=prefix_end(self._prefix),
                start_revision=self.revision + 1,
            )
            yield rpc.WatchRequest(create_request=create)
            while True:  # a member that was stopped, not ended, is noticed by its silence
                await asyncio.sleep(self._ping)
                yield rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())

        async for response in self._connection.stream("Watch", "Watch", requests(), 2.5 * self._ping):
            if response.compact_revision:
                yield await self._list()
                return
            if response.canceled:
                raise StoreFailed(f"etcd {self._connection.member}: ended the watch: {response.cancel_reason}")
            self._works()
            # What was written before etcd lost its data must not be waited for.
            if response.created and response.header.revision < self.revision:
                yield await self._list()
                return
            yield self._apply(response)

    def _apply(self, response: Any) -> Step:
        changes: dict[bytes, Pair | None] = {}
        revision = self.revision
        for event in response.events:
            kv = event.kv
            key = kv.key
            # Not the header's revision: a watch that catches up gets several answers that all bear the newest, and etcd
            # before 3.5.8 may tell of progress before the events up to there (etcd issue 15220).
            revision = max(revision, kv.mod_revision)
            if event.type == _DELETE:
                changes[key] = None
                self.pairs.pop(key, None)
            else:
                changes[key] = self.pairs[key] = _pair(kv)
        self.revision = revision
        return Step(revision, changes)

    def _works(self) -> None:
        self._pause = _FIRST_WAIT
        self._recovered()


def _pair(kv: Any) -> Pair:
    return Pair(kv.value, kv.create_revision, kv.mod_revision, kv.lease)
