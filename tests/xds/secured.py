"""An xDS server behind mutual TLS in the test's own event loop, with an authority that issues certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from lbcore.access import Grant, ServerTls
from lbcore.config import Configuration
from lbcore.directory import Directory
from lbcore.service.security import Security
from lbcore.xds.server import XdsServer
from tests.harness.certificates import Authority, Issued
from tests.xds.clients import Plane

FRONT = "spiffe://example.org/ns/shop/sa/front"
OTHER = "spiffe://example.org/ns/shop/sa/other"


class SecuredPlane(Plane):
    """A `Plane` whose clients need certificates. `connect` opens a channel with one; `channel` is of `FRONT`."""

    def __init__(self, directory: Directory, xds: XdsServer, port: int, folder: Path, security: Security) -> None:
        self.authority = Authority()
        self.folder = folder
        self.security = security
        self.channels: list[grpc.aio.Channel] = []
        super().__init__(directory, xds, port, None)  # type: ignore[arg-type]  # once there is a port

    def connect(self, client: Issued | None, roots: bytes | None = None) -> grpc.aio.Channel:
        """A channel of its own with this certificate, or with none."""
        credentials = grpc.ssl_channel_credentials(
            self.authority.root if roots is None else roots, *((client.key, client.certificate) if client else ())
        )
        # A subchannel is shared by channels with the same arguments, and so would its certificate be.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options)
        self.channels.append(channel)
        return channel

    def connect_as(self, uri: str) -> grpc.aio.Channel:
        """A channel of whom has this SPIFFE id."""
        return self.connect(self.authority.issue(uris=[uri]))

    def grant(self, *grants: Grant) -> None:
        """From now on this is granted, and nothing else."""
        self.security.take(Configuration(tls=self.tls, access=grants))

    @property
    def tls(self) -> ServerTls:
        """As the server has it."""
        return ServerTls(
            certificate_file=str(self.folder / "server.pem"),
            private_key_file=str(self.folder / "server.key"),
            client_ca_file=str(self.folder / "ca.pem"),
            client_crl_file=str(self.folder / "crl.pem"),
            check_interval=0.1,
        )

    def trust(self, *authorities: Authority) -> None:
        """From now on clients' certificates may come from these."""
        self._replace("ca.pem", b"".join(each.root for each in authorities))

    def revoke(self, *certificates: Issued) -> None:
        """These are not to be trusted any more."""
        self._replace("crl.pem", self.authority.revocation_list(*(each.serial_number for each in certificates)))

    def _replace(self, name: str, content: bytes) -> None:
        (self.folder / "new").write_bytes(content)
        (self.folder / "new").rename(self.folder / name)


@asynccontextmanager
async def secured_plane(folder: Path, *grants: Grant) -> AsyncIterator[SecuredPlane]:
    """A server on a free port of the loopback."""
    directory, security = Directory(), Security()
    xds = XdsServer(directory, access=security.access)
    plane = SecuredPlane(directory, xds, 0, folder, security)
    plane.authority.issue_server().write(folder, "server")
    plane.trust(plane.authority)
    plane.revoke()
    security.open(Configuration(tls=plane.tls, access=grants))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], interceptors=security.interceptors())
    xds.add_to(server)
    plane.port = security.add_port(server, "127.0.0.1:0")
    await server.start()
    plane.channel = plane.connect_as(FRONT)
    running = [asyncio.ensure_future(each) for each in (xds.run(), security.run(xds.look_again))]
    try:
        yield plane
    finally:
        for channel in plane.channels:
            await channel.close()
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.stop(None)
