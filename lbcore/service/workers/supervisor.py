"""Keeps the worker processes: starts them, feeds them, starts again who dies, and asks them what their clients have.

Each worker is sent what changed since the catalog that it was sent last, and not before it has taken that: one that is
slow skips what lies between. What it needs of a change is made and packed once for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from async_timeout import timeout as time_limit
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lbcore.access import ServerTls
from lbcore.config import Configuration
from lbcore.directory import Directory
from lbcore.service.binding import Binding, CannotListen
from lbcore.service.metrics import XdsMetrics
from lbcore.service.server_options import GRACE
from lbcore.service.workers.messages import (
    AskClients,
    Clients,
    Counts,
    Drain,
    Feed,
    Refused,
    Settings,
    Start,
    Started,
    pack,
    receive,
)
from lbcore.xds.debounce import gather
from lbcore.xds.feed import change_between
from lbcore.xds.resources import Catalog
from lbcore.xds.status import ClientStatus

__all__ = ["Workers"]

logger = logging.getLogger(__name__)

_START_LIMIT = 60.0  # seconds that all workers together have to listen
_ANSWER_LIMIT = 5.0  # seconds that a worker has to say how its clients are
_LONGEST_PAUSE = 5.0  # seconds before a worker that dies again and again is started again
_SETTLED = 10.0  # seconds after which a worker's death is not on account of its start


class Workers(Collector):
    """`count` processes that listen on one port. It collects metrics of its own.

    `forward_to` is the address of the server, in this process, of all that they do not serve themselves.

    Arguments:
        metrics: what they count goes there.
    """

    def __init__(self, count: int, directory: Directory, metrics: XdsMetrics) -> None:
        self._directory = directory
        self._metrics = metrics
        self._catalog: Catalog | None = None
        self._settings = Settings(Configuration().xds, None, ())
        self._workers = [_Worker(self, number) for number in range(count)]
        self._packed: tuple[Catalog | None, Catalog, bytes] | None = None
        self._reserved: socket.socket | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="lbcore-")  # nobody else can enter it
        self.forward_to = f"unix:{self._folder.name}/service"
        self.access_refused = 0
        self.restarts = 0

    def take(self, configuration: Configuration) -> None:
        """The configuration is now this; limits are shared out among the workers."""
        count = len(self._workers)
        xds = configuration.xds
        shared = replace(xds, max_streams=-(-xds.max_streams // count), max_new_streams=xds.max_new_streams / count)
        tls, access = configuration.tls, configuration.access
        if self._reserved is not None and _kind(tls) != _kind(self._settings.tls):
            tls, access = self._settings.tls, self._settings.access  # with the next start, as `Security` says
        self._settings = Settings(shared, tls, access)
        for worker in self._workers:
            worker.send(self._settings)

    def reserve(self, binding: Binding) -> Binding:
        """Finds out whether the port can be had, and which it is; the workers share it. Raises `CannotListen`."""
        family = socket.AF_INET6 if ":" in binding.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as alone:  # or strangers would share it without a word
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((binding.host, binding.port))
                port = int(alone.getsockname()[1])
            reserved = socket.socket(family, socket.SOCK_STREAM)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind((binding.host, port))
        except OSError:
            raise binding.refused() from None
        self._reserved = reserved  # bound and not listening: it gets no connections
        return replace(binding, port=port)

    async def start(self, binding: Binding) -> None:
        """Starts all of them, and returns when they listen. Raises `CannotListen` where they do not in time."""
        for worker in self._workers:
            worker.begin(binding, self.forward_to)
        listening = asyncio.gather(*(worker.listening.wait() for worker in self._workers))
        try:
            async with time_limit(_START_LIMIT):
                await listening
        except asyncio.TimeoutError:
            raise CannotListen(f"the workers do not listen on {binding} within {_START_LIMIT:g} s") from None

    async def run(self) -> None:
        """Follows the Directory for ever, and feeds the workers."""
        async for snapshot in self._directory.watch():
            busy_since = time.thread_time()
            self._catalog = Catalog(snapshot, self._catalog)
            for worker in self._workers:
                worker.feed()
            await gather(self._settings.xds, busy_since, lambda: self._directory.current.revision)

    async def clients(self) -> Iterable[ClientStatus]:
        """How far the clients of all workers are; a worker that does not answer in time is left out."""
        found = await asyncio.gather(*(worker.clients() for worker in self._workers))
        return [client for clients in found for client in clients]

    async def stop(self) -> None:
        """Ends all of them: their clients keep what they have."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        if self._reserved is not None:
            self._reserved.close()
        self._folder.cleanup()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: asked at registration."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        listening = sum(worker.alive for worker in self._workers)
        yield GaugeMetricFamily("lbcore_workers", "Worker processes that carry xDS streams", listening)
        yield CounterMetricFamily("lbcore_worker_restarts", "Worker processes that have died", self.restarts)
        yield CounterMetricFamily(
            "lbcore_worker_access_refused", "Calls refused or ended for who the caller is", self.access_refused
        )

    def change_since(self, before: Catalog | None) -> tuple[Catalog, bytes] | None:
        """The newest catalog, and the message that leads to it; None if it is there."""
        now = self._catalog
        if now is None or now is before:
            return None
        if self._packed is None or self._packed[0] is not before or self._packed[1] is not now:
            self._packed = before, now, pack(Feed(change_between(before, now)))
        return now, self._packed[2]

    @property
    def settings(self) -> Settings:
        """What they need of the configuration."""
        return self._settings

    def count(self, message: Counts | Refused) -> None:
        """A worker has counted this."""
        if isinstance(message, Refused):
            self._metrics.nacked(message.node, message.type_url, message.version, message.message, message.nonce)
        else:
            self._metrics.add(message)
            self.access_refused += message.access_refused


def _kind(tls: ServerTls | None) -> tuple[bool, bool]:
    """Whether a port has TLS, and asks for certificates: what it cannot change while it listens."""
    return tls is not None, tls is not None and bool(tls.client_ca_file)


class _Worker:
    """One process, and the next one in its place."""

    def __init__(self, owner: Workers, number: int) -> None:
        self.listening = asyncio.Event()
        self._owner = owner
        self._number = number
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._fed: Catalog | None = None
        self._feeding = False
        self._stopping = False
        self._open: dict[str, int] = {}  # streams, by method
        self._questions: dict[int, asyncio.Future[list[ClientStatus]]] = {}
        self._asked = 0

    @property
    def alive(self) -> bool:
        """Whether it has a process now."""
        return self._writer is not None

    def begin(self, binding: Binding, forward_to: str) -> None:
        self._task = asyncio.ensure_future(self._keep(binding, forward_to))

    def send(self, message: object) -> None:
        if self._writer is not None:
            self._writer.write(pack(message))

    def feed(self) -> None:
        """Sends what has changed, unless it is about to."""
        if self._writer is not None and not self._feeding:
            self._feeding = True
            asyncio.ensure_future(self._feed(self._writer)).add_done_callback(_log_failure)

    async def clients(self) -> list[ClientStatus]:
        if self._writer is None:
            return []
        self._asked += 1
        answer: asyncio.Future[list[ClientStatus]] = asyncio.get_running_loop().create_future()
        self._questions[self._asked] = answer
        try:
            self.send(AskClients(self._asked))
            async with time_limit(_ANSWER_LIMIT):
                return await answer
        except (asyncio.TimeoutError, ConnectionError):
            logger.warning("worker %d does not say how its clients are", self._number)
            return []
        finally:
            self._questions = {number: each for number, each in self._questions.items() if each is not answer}

    async def stop(self) -> None:
        self._stopping = True
        self.send(Drain())
        if self._process is not None:
            try:
                async with time_limit(2 * GRACE):
                    await self._process.wait()
            except asyncio.TimeoutError:
                logger.warning("worker %d does not end by itself", self._number)
                self._process.kill()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=GRACE)
            self._task.cancel()

    async def _keep(self, binding: Binding, forward_to: str) -> None:
        pause = 0.0
        while not self._stopping:
            began = time.monotonic()
            try:
                await self._serve(binding, forward_to)
            except (OSError, asyncio.IncompleteReadError) as gone:
                logger.debug("worker %d: %s", self._number, gone)
            except Exception:
                logger.exception("worker %d says what cannot be understood", self._number)
            finally:
                self._forget()
            if self._stopping:
                return
            pause = 0.0 if time.monotonic() - began > _SETTLED else min(max(0.1, 2 * pause), _LONGEST_PAUSE)
            logger.error("worker %d has died: another is started in %g s", self._number, pause)
            self._owner.restarts += 1
            await asyncio.sleep(pause)

    async def _serve(self, binding: Binding, forward_to: str) -> None:
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "lbcore.service.workers.process", str(theirs.fileno())]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
            )
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 24)
        writer.write(pack(Start(binding, forward_to, self._owner.settings)))
        self._writer, self._fed = writer, None
        self.feed()
        try:
            while True:
                self._take(await receive(reader))
        finally:
            writer.close()
            if not self._stopping and self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    def _take(self, message: object) -> None:
        if isinstance(message, Started):
            self.listening.set()
        elif isinstance(message, Clients):
            question = self._questions.get(message.number)
            if question is not None and not question.done():
                question.set_result(message.clients)
        elif isinstance(message, Counts):
            for method, number in message.opened.items():
                self._open[method] = self._open.get(method, 0) + number
            for method, number in message.closed.items():
                self._open[method] = self._open.get(method, 0) - number
            self._owner.count(message)
        elif isinstance(message, Refused):
            self._owner.count(message)

    def _forget(self) -> None:
        """The process is gone, and its streams with it."""
        self._writer, self._fed = None, None
        self._owner.count(Counts(closed={method: number for method, number in self._open.items() if number}))
        self._open = {}
        for question in self._questions.values():
            if not question.done():
                question.set_result([])

    async def _feed(self, writer: asyncio.StreamWriter) -> None:
        try:
            while self._writer is writer and (due := self._owner.change_since(self._fed)) is not None:
                self._fed, message = due
                writer.write(message)
                await writer.drain()
        except ConnectionError:
            pass  # it has died, and the next one begins anew
        finally:
            self._feeding = False
            if self._writer is not writer:
                self.feed()


def _log_failure(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("a worker cannot be fed", exc_info=failure)
