"""The configuration file as a source: loads it, follows its changes, keeps the last good content when it goes bad.

A change is noticed by what `stat` says of the path, symbolic links followed, so a rename over the file, a swapped link
(Kubernetes mounts a ConfigMap behind `..data`), a write in place and deletion with re-creation are all the same.
watchfiles says when to look; a look twice a second finds what its events miss (a link that leads out of the folder,
network file systems, a folder that was itself replaced).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from lbcore import config
from lbcore.config import Configuration
from lbcore.directory import Directory
from lbcore.errors import ConfigError, LbError
from lbcore.registration import RegistrySettings
from lbcore.sources.running import RunningSources, source_name

__all__ = ["FileSource"]

LOG = logging.getLogger("lbcore.sources.file")

_LOOK_INTERVAL = 0.4  # seconds between looks without events; with the waits below, a change is in use within a second
_QUIET_TIME = 0.1  # seconds without a change after which a file that is written in place counts as complete
_MOST_WAITS = 4  # for such a quiet time, after which it is read even so

_Stamp = tuple[int, ...]  # what identifies the state of the file; empty where there is none


class FileSource:
    """Publishes the services and listeners of one file, and says which sources its services want.

    `load_first` once, after `read_first` where its settings are needed before, then `run` until cancelled. All of it on
    the event loop's thread, save for the decoding.
    `settings` is all that it says, `registry` what it has said of the registry at the start; `when_loaded` is called
    after each load.
    `loads` and `failures` count how often new content was taken, and refused.
    """

    name = "file"

    def __init__(
        self, path: Path, directory: Directory, sources: RunningSources | None = None, *, only: str = ""
    ) -> None:
        self._path = path
        self._only = only  # of its services this one; empty: all
        self._directory = directory
        self._sources = sources or RunningSources(directory)
        self._stamp: _Stamp | None = None  # of the last look
        self._digest = b""  # of the content that was decoded last
        self._decoded: Configuration | ConfigError = Configuration()
        self.settings = Configuration()
        self.registry = RegistrySettings()
        self.when_loaded: Callable[[], None] = lambda: None
        self.loads = 0
        self.failures = 0
        self._reported: tuple[bytes, str] | None = None  # the failure that was logged last: content and reason
        directory.await_source(self.name)

    def read_first(self) -> None:
        """Reads it, and says what it has to say of the registry. Raises `ConfigError` with every mistake."""
        self._stamp = _stamp(self._path)  # before the content: a change in between is noticed by the first look
        content = config.read(self._path)
        self._decoded = decoded = config.decode(content, config.shown(self._path))
        self._digest = _digest(content)
        self.registry = decoded.registry

    def load_first(self) -> None:
        """Publishes at once what it reads, or has read. Raises `ConfigError` with every mistake."""
        if self._stamp is None:
            self.read_first()
        self._publish()

    async def run(self) -> None:
        """Follows the file for ever. A file that cannot be used marks the source stale and is logged once."""
        while True:
            await self._look()
            try:
                await self._follow()
            except OSError as wrong:  # the folder is not there, or the system has no more watches to give
                LOG.debug("no events for %s: %s", self._path.parent, wrong)
                await asyncio.sleep(_LOOK_INTERVAL)

    async def _follow(self) -> None:
        events = awatch(
            self._path.parent,
            watch_filter=None,
            recursive=False,
            step=50,
            debounce=100,
            rust_timeout=int(_LOOK_INTERVAL * 1000),
            yield_on_timeout=True,
        )
        async with aclosing(events):
            async for _ in events:
                await self._look()

    async def _look(self) -> None:
        """Loads the file if it is not as it was at the last look."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = await self._settled(stamp)
        try:
            content = await asyncio.to_thread(config.read, self._path)
            await self._decode(content)
            self._publish()
        except LbError as wrong:
            self._report(str(wrong))

    async def _settled(self, stamp: _Stamp) -> _Stamp:
        """Waits until nobody writes any more: half a file can be good YAML."""
        for _ in range(_MOST_WAITS):
            await asyncio.sleep(_QUIET_TIME)
            before, stamp = stamp, _stamp(self._path)
            if stamp == before:
                break
        return stamp

    async def _decode(self, content: bytes) -> None:
        digest = _digest(content)
        if digest == self._digest:
            return
        try:
            # In a thread, because a hundred thousand endpoints take seconds.
            self._decoded = await asyncio.to_thread(config.decode, content, config.shown(self._path))
        except ConfigError as wrong:
            self._decoded = wrong
        self._digest = digest

    def _publish(self) -> None:
        if isinstance(self._decoded, ConfigError):
            raise self._decoded
        services = [service for service in self._decoded.services if self._only in ("", service.name)]
        sources = {name: source for name, source in self._decoded.sources.items() if self._only in ("", name)}
        sourced = {service: source_name(service, source) for service, source in sources.items()}
        changed = self._directory.publish(self.name, self._decoded.services, self._decoded.listeners, sourced=sourced)
        self._sources.want(sources)
        self.settings = self._decoded
        self._take_registry(self._decoded.registry)
        self.when_loaded()
        if changed or self._reported:
            self.loads += 1
            LOG.info("%s: loaded, %d services", config.shown(self._path), len(services))
        self._reported = None

    def _take_registry(self, settings: RegistrySettings) -> None:
        if settings != self.registry:
            self.registry = settings
            LOG.warning("%s: what it says of the registry now takes effect with a restart", config.shown(self._path))

    def _report(self, reason: str) -> None:
        """Marks the source stale, and logs what has not been logged of this content."""
        if self._reported != (self._digest, reason):
            self._reported = (self._digest, reason)
            self.failures += 1
            LOG.error("%s\nthe last good configuration stays in use", reason)
        self._directory.mark_stale(self.name, reason)


def _stamp(path: Path) -> _Stamp:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return ()
    return (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
