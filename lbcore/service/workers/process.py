"""A worker process: carries xDS streams with resources that it is fed, and forwards every other call.

Started by the process that builds, with one end of a pair of sockets as file descriptor: `python -m
lbcore.service.workers.process FD`. It ends when that end closes: without its builder it would serve what grows old, and
its clients find another worker.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from typing import Any

import grpc
import grpc.aio
import uvloop

from lbcore.config import Configuration
from lbcore.directory import Directory
from lbcore.service.security import Security
from lbcore.service.server_options import GRACE, SERVER_OPTIONS, connection_age
from lbcore.service.workers.forwarding import Forwarding
from lbcore.service.workers.messages import (
    AskClients,
    Clients,
    Drain,
    Feed,
    Refused,
    Settings,
    Start,
    Started,
    pack,
    receive,
)
from lbcore.service.workers.tally import Tally
from lbcore.xds.feed import FedCatalog
from lbcore.xds.server import XdsServer
from lbcore.xds.status import ClientStatus, TypeStatus, listed

__all__ = ["main"]

_TALLY_INTERVAL = 0.25  # seconds between two messages of what has been counted


class Worker:
    """One worker, from its first message to its last."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._tally = Tally(self._refused)
        self._security = Security()
        self._fed = FedCatalog()
        self._xds = XdsServer(Directory(), self._tally, access=self._security.access)

    async def run(self) -> None:
        """Serves until it is told to end, or its builder is gone."""
        start = await receive(self._reader)
        assert isinstance(start, Start)
        self._security.open(_configuration(start.settings))
        self._take(start.settings)
        options = [("grpc.so_reuseport", 1), *SERVER_OPTIONS, *connection_age(start.settings.xds)]
        server = grpc.aio.server(interceptors=self._security.interceptors(load_reports=True), options=options)
        channel = grpc.aio.insecure_channel(start.forward_to, options=[("grpc.max_receive_message_length", -1)])
        self._xds.add_discovery_to(server)
        server.add_generic_rpc_handlers((Forwarding(channel, self._security.identity),))
        self._security.add_port(server, str(start.binding))
        await server.start()
        self._writer.write(pack(Started()))
        parts = [
            asyncio.ensure_future(part)
            for part in (self._follow(), self._report(), self._security.run(self._xds.look_again))
        ]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            if (failure := part.exception()) is not None:
                logging.getLogger(__name__).critical("a part of this worker has failed: it ends", exc_info=failure)
        self._xds.drain()
        await server.stop(GRACE)
        self._tell()
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await channel.close(None)
        self._writer.close()

    async def _follow(self) -> None:
        """Does what it is told, until that is to end."""
        try:
            while not isinstance(message := await receive(self._reader), Drain):
                self._handle(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            logging.getLogger(__name__).warning("the process that builds is gone: this worker ends")

    def _handle(self, message: object) -> None:
        if isinstance(message, Feed):
            self._xds.advance(self._fed.apply(message.change))
        elif isinstance(message, Settings):
            self._take(message)
        elif isinstance(message, AskClients):
            self._writer.write(pack(Clients(message.number, [_as_values(each) for each in self._xds.clients()])))

    def _take(self, settings: Settings) -> None:
        self._xds.settings = settings.xds
        self._security.take(_configuration(settings))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_TALLY_INTERVAL)
            self._tell()
            await self._writer.drain()

    def _tell(self) -> None:
        counts = self._tally.take()
        counts.access_refused = self._security.take_refusals()
        if counts:
            self._writer.write(pack(counts))

    def _refused(self, refused: Refused) -> None:
        self._writer.write(pack(refused))


def _configuration(settings: Settings) -> Configuration:
    return Configuration(xds=settings.xds, tls=settings.tls, access=settings.access)


def _as_values(client: ClientStatus) -> ClientStatus:
    """The same, without the subscriptions behind it."""
    types = {
        resource_type: TypeStatus(listed(status.resources), status.sent_at, status.refusal)
        for resource_type, status in client.types.items()
    }
    return ClientStatus(client.node, client.method, client.peer, types)


async def _run(descriptor: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # a terminal sends them to all: the builder says when
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor), limit=1 << 24)
    await Worker(reader, writer).run()


def main(arguments: Any = None) -> int:
    """Runs a worker on the file descriptor that is given."""
    (descriptor,) = arguments or sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker %(process)d %(name)s: %(message)s")
    uvloop.run(_run(int(descriptor)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
