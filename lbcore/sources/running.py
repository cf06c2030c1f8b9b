"""The sources that services name, each running for as long as it is named, publishing into the `Directory`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from lbcore.directory import Directory
from lbcore.membership import Membership
from lbcore.source import Source
from lbcore.sources.feed import Feed, Timing
from lbcore.sources.follower import Follower
from lbcore.sources.opening import kind_of, open_feed
from lbcore.sources.remembered import RememberedMembers

__all__ = ["RunningSources", "source_name"]

LOG = logging.getLogger(__name__)

_KEEPING = 1.0  # seconds between writes to disk


def source_name(service: str, source: Source) -> str:
    """What a service's source is called in the directory and in metrics.

    >>> from lbcore.source import Dns
    >>> source_name("web", Dns("web.internal", port=80))
    'dns:web'
    """
    return f"{kind_of(source)}:{service}"


class _Running(NamedTuple):
    follower: Follower
    following: asyncio.Task[None]
    giving_up: asyncio.Task[None]


class RunningSources:
    """Holds a follower for each service that has a source.

    `want` says which there are to be, at once for readers of the directory; `run` carries it out until cancelled.
    Iterating gives the followers. One whose settings stay the same goes on undisturbed. `patient`: each is waited for
    as long as it takes, whatever its `initial_fetch_timeout`.
    """

    def __init__(
        self,
        directory: Directory,
        timing: Timing | None = None,
        remembered: RememberedMembers | None = None,
        open_feed: Callable[[Source, str, Timing], Feed] = open_feed,
        *,
        patient: bool = False,
    ) -> None:
        self._directory = directory
        self._timing = timing or Timing()
        self.remembered = remembered or RememberedMembers(None)
        self._to_keep: dict[str, tuple[Source, Membership]] = {}  # by source: what is not on disk yet
        self._open_feed = open_feed
        self._patient = patient
        self._wanted: dict[str, Source] = {}
        self._running: dict[str, _Running] = {}
        self._ending: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._first = True

    def __iter__(self) -> Iterator[Follower]:
        return iter([running.follower for running in self._running.values()])

    def want(self, sources: Mapping[str, Source]) -> None:
        """From now on there are these sources, by service.

        Those of the first call hold back the directory's first answers; later ones only the services that wait for
        them. What a source that is not wanted any more has published goes.
        """
        names = {source_name(service, source) for service, source in sources.items()}
        for service, source in self._wanted.items():
            if sources.get(service) != source:
                self._end(service)
                if (name := source_name(service, source)) not in names:
                    self._directory.forget(name)
        if self._first:
            for name in names:
                self._directory.await_source(name)
        self._first = False
        self._wanted = dict(sources)
        self._changed.set()

    async def run(self) -> None:
        """Runs what is wanted until cancelled. Raises what a follower raises, which would be a defect."""
        changed: asyncio.Task[object] | None = None
        keeping = asyncio.create_task(self._keep())
        try:
            while True:
                self._changed.clear()
                for service in self._wanted.keys() - self._running.keys():
                    self._running[service] = self._start(service)
                changed = asyncio.create_task(self._changed.wait())
                tasks: list[asyncio.Task[Any]] = [
                    changed,
                    keeping,
                    *(each.following for each in self._running.values()),
                ]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    if not ended.cancelled():
                        ended.result()
                await self._settle()
        finally:
            if changed is not None:
                changed.cancel()
            for service in list(self._running):
                self._end(service)
            keeping.cancel()
            self._ending.append(keeping)
            await self._settle()
            self.remembered.keep(self._to_keep)

    async def _keep(self) -> None:
        """Writes what sources have said to disk, in a thread, for ever."""
        while True:
            await self._timing.sleep(_KEEPING)
            if self._to_keep:
                said, self._to_keep = self._to_keep, {}
                await asyncio.to_thread(self.remembered.keep, said)

    def _start(self, service: str) -> _Running:
        source = self._wanted[service]
        name = source_name(service, source)

        def heard(membership: Membership) -> bool:
            changed = self._directory.publish_members(name, {service: membership})
            if changed:
                self._to_keep[name] = (source, membership)
            return changed

        def failed(reason: str) -> None:
            self._directory.mark_stale(name, reason)

        feed = self._open_feed(source, service, self._timing)
        follower = Follower(name, feed, heard, failed, self._timing)
        giving_up = self._give_up(service, source, follower)
        return _Running(follower, asyncio.create_task(follower.run()), asyncio.create_task(giving_up))

    async def _give_up(self, service: str, source: Source, follower: Follower) -> None:
        """Lets answers go on without a source that has not been heard from in time; 0 seconds is never."""
        after = source.initial_fetch_timeout
        if not after or self._patient:
            return
        await self._timing.sleep(after)
        if follower.last_success is not None:
            return
        remembered = self.remembered.recall(follower.name, source)
        what = "what it said before the restart" if remembered else "nothing of it"
        LOG.error("source %s: not heard from within %g s; answers go on with %s", follower.name, after, what)
        if remembered is None:
            self._directory.stop_awaiting(follower.name)
        else:
            why = self._directory.current.stale.get(follower.name, "not heard from since the start")
            self._directory.publish_members(follower.name, {service: remembered}, stale=why)

    def _end(self, service: str) -> None:
        if (running := self._running.pop(service, None)) is not None:
            self._ending += (running.following, running.giving_up)
            for task in self._ending:
                task.cancel()

    async def _settle(self) -> None:
        ending, self._ending = self._ending, []
        await asyncio.gather(*ending, return_exceptions=True)
