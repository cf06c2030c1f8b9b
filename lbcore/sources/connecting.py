"""`connect`: a `Cluster` in this process that a source keeps up to date in the background.

The sources, and what happens when they fail, are those of the service: a small `Directory` of its own holds what they
say, and the cluster follows it.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Coroutine, Generator
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from lbcore import config
from lbcore.cluster import Cluster
from lbcore.directory import Directory, DirectorySnapshot
from lbcore.errors import InvalidSetting, LbError, SourceTimedOut, UnknownService
from lbcore.settings import LocalityWeighted
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Source, without_login
from lbcore.sources.feed import Timing
from lbcore.sources.file import FileSource
from lbcore.sources.running import RunningSources
from lbcore.sources.target import FileTarget, name_of, parse_target
from lbcore.validation import MAX_SECONDS, number

__all__ = ["ConnectedCluster", "Connecting"]

LOG = logging.getLogger(__name__)


class ConnectedCluster(Cluster):
    """A `Cluster` whose members a source says, until it is closed or nobody refers to it any more.

    An asynchronous context manager that closes at the end. Closed, it keeps its members and still picks.
    """

    __slots__ = ("_following", "_stale")

    _following: asyncio.Task[None] | None
    _stale: str

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self._following = None
        self._stale = ""

    @property
    def stale(self) -> str:
        """Why the members may be out of date; empty while the source works."""
        return self._stale

    async def aclose(self) -> None:
        """Ends following the source. May be called again."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None

    async def __aenter__(self) -> ConnectedCluster:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Connecting:
    """What `lbcore.connect` returns: `await` it for the cluster, or `async with` it, which closes the cluster."""

    def __init__(
        self, target: str | Source, *, timeout: float, settings: dict[str, Any], timing: Timing | None = None
    ) -> None:
        self._target = target
        self._timeout = number(timeout, "timeout", 0.0, MAX_SECONDS, above=True)
        self._settings = settings
        self._timing = timing or Timing()
        self._cluster: ConnectedCluster | None = None

    def __await__(self) -> Generator[Any, None, ConnectedCluster]:
        return self._connect().__await__()

    async def __aenter__(self) -> ConnectedCluster:
        self._cluster = await self._connect()
        return self._cluster

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cluster is not None:
            await self._cluster.aclose()

    async def _connect(self) -> ConnectedCluster:
        origin = parse_target(self._target) if isinstance(self._target, str) else self._target
        if isinstance(origin, FileTarget):
            return await self._from_file(origin)
        if isinstance(origin, Source):
            return await self._from_source(origin)
        if isinstance(origin, tuple):
            return self._make(str(self._target), endpoints=origin)
        raise InvalidSetting(f"target {origin!r:.300}: expected text such as dns:///web.internal:80, or a source")

    async def _from_source(self, source: Source) -> ConnectedCluster:
        service = name_of(source)
        cluster = self._make(service)
        directory = Directory()
        sources = RunningSources(directory, self._timing, patient=True)  # the caller says for how long it waits
        sources.want({service: source})
        return await self._follow(cluster, directory, service, [sources.run()])

    async def _from_file(self, target: FileTarget) -> ConnectedCluster:
        path = Path(target.path)
        definition = _defined(await asyncio.to_thread(config.load, path), target)
        cluster = self._make(
            definition.name,
            policy=definition.policy,
            locality_policy=LocalityWeighted() if definition.locality_weights else None,
            overprovisioning_factor=definition.overprovisioning_factor,
            panic_threshold=definition.panic_threshold,
        )
        directory = Directory()
        sources = RunningSources(directory, self._timing, patient=True)
        file = FileSource(path, directory, sources, only=definition.name)
        file.load_first()
        return await self._follow(cluster, directory, definition.name, [file.run(), sources.run()])

    def _make(self, name: str, **defaults: Any) -> ConnectedCluster:
        return ConnectedCluster(**{"name": name, **defaults, **self._settings})

    async def _follow(
        self, cluster: ConnectedCluster, directory: Directory, service: str, parts: list[Coroutine[Any, Any, None]]
    ) -> ConnectedCluster:
        """Waits for the first members. Raises `SourceTimedOut`."""
        first = asyncio.Event()
        applying = _apply(weakref.ref(cluster), directory, service, first)
        following = asyncio.create_task(_together([applying, *parts]))
        waiting = asyncio.create_task(first.wait())
        try:
            await asyncio.wait({waiting, following}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            if not first.is_set():
                why = "; ".join(directory.current.stale.values()) or "no answer yet"
                raise SourceTimedOut(
                    f"{without_login(str(self._target))}: not heard from within {self._timeout:g} s: {why}"
                )
        except BaseException:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            raise
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        cluster._following = following
        _end_with(cluster, following)
        return cluster


def _defined(configuration: config.Configuration, target: FileTarget) -> ServiceSnapshot:
    services = {service.name: service for service in configuration.services}
    if target.service in services:
        return services[target.service]
    if not target.service and len(services) == 1:
        return next(iter(services.values()))
    if not target.service:
        raise InvalidSetting(f"{target.path} has {len(services)} services: expected ?service=NAME after the path")
    raise UnknownService(f"service {target.service!r}: unknown in {target.path}")


async def _apply(
    cluster: weakref.ref[ConnectedCluster], directory: Directory, service: str, first: asyncio.Event
) -> None:
    async with aclosing(directory.watch()) as snapshots:
        async for snapshot in snapshots:
            if not _update(cluster(), snapshot, service):
                return
            first.set()


def _update(cluster: ConnectedCluster | None, snapshot: DirectorySnapshot, service: str) -> bool:
    """Brings the cluster to a snapshot; returns whether it is still there."""
    if cluster is None:
        return False
    known = snapshot.services.get(service)
    cluster._stale = "; ".join(snapshot.stale.values())
    try:
        if known is None:
            cluster.update((), locality_weights={})
        else:
            cluster.update(known.endpoints, locality_weights=known.locality_weights)
    except LbError as wrong:
        LOG.error("cluster %s stays as it was: %s", cluster.name, wrong)
        cluster._stale = str(wrong)
    return True


async def _together(parts: list[Coroutine[Any, Any, None]]) -> None:
    """Runs parts until the first ends or fails, which ends the others."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_with(cluster: ConnectedCluster, following: asyncio.Task[None]) -> None:
    """Ends the task when nobody refers to the cluster any more, from whichever thread that happens in."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        with suppress(RuntimeError):  # the loop is closed, and the task with it
            loop.call_soon_threadsafe(following.cancel)

    weakref.finalize(cluster, end).atexit = False
    held = weakref.ref(cluster)

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        # A defect. The members stay, but nobody follows them any more, and that must not go unnoticed.
        LOG.critical("a cluster follows its source no more", exc_info=task.exception())
        if (left := held()) is not None:
            left._stale = f"followed no more: {task.exception()!r}"

    following.add_done_callback(ended)
