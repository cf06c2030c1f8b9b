"""TLS and access of the gRPC port, as the configuration has them: opened at the start, looked at again for ever.

What changes in the files of `tls` and in `access` is in use within `check_interval`. Whether there is TLS, and whether
clients need certificates, is settled at the start: a port cannot change its kind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lbcore.access import Permit
from lbcore.config import Configuration
from lbcore.service.certificates import ServerCertificates
from lbcore.service.guard import Guard
from lbcore.waiting import set_within

__all__ = ["Security"]

logger = logging.getLogger(__name__)


class Security(Collector):
    """Guards nothing before `open`, nor where the configuration has no `tls`. It collects metrics of its own."""

    def __init__(self) -> None:
        self._certificates: ServerCertificates | None = None
        self._guard: Guard | None = None
        self._changed = asyncio.Event()
        self._opened = False
        self._taken = 0

    def open(self, settings: Configuration) -> None:
        """Reads the certificates. Raises `ConfigError`."""
        self._opened = True
        if settings.tls is None:
            return
        self._certificates = ServerCertificates(settings.tls)
        if settings.tls.client_ca_file:
            self._guard = Guard(self._certificates, settings.access)

    def take(self, settings: Configuration) -> None:
        """The configuration is now this."""
        if not self._opened:
            return
        if self._certificates is None or settings.tls is None:
            if (self._certificates is None) != (settings.tls is None):
                logger.warning("tls: there is %s before the next start", "none" if settings.tls else "no end of it")
            return
        if bool(settings.tls.client_ca_file) != (self._guard is not None):
            logger.warning("tls.client_ca_file: takes effect with the next start")
            return
        self._certificates.settings = settings.tls
        if self._guard is not None:
            self._guard.grants = settings.access
        self._changed.set()

    @property
    def encrypted(self) -> bool:
        """Whether the port has TLS."""
        return self._certificates is not None

    def access(self, context: Any) -> Permit | None:
        """What the client of an xDS call may see. Raises `NotPermitted`."""
        return None if self._guard is None else self._guard.permit(context)

    def interceptors(self, *, load_reports: bool = False) -> Sequence[grpc.aio.ServerInterceptor[Any, Any]]:
        """For the gRPC server; `load_reports` where these are not judged by an xDS server."""
        return () if self._guard is None else (self._guard.interceptor(load_reports=load_reports),)

    def identity(self, context: Any) -> str:
        """Who the caller is; empty where nobody needs to say."""
        return "" if self._guard is None else self._guard.identity(context)

    def take_refusals(self) -> int:
        """How many calls were refused or ended since this was last asked."""
        refusals = 0 if self._guard is None else self._guard.refusals
        self._taken, before = refusals, self._taken
        return refusals - before

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Has the server listen, and returns the port. Raises `RuntimeError` where it cannot."""
        if self._certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificates.credentials())

    async def run(self, look_again: Callable[[], None]) -> None:
        """Looks at the files and at who is connected, for ever; `look_again` is called each time as well."""
        while True:
            interval = None if self._certificates is None else self._certificates.settings.check_interval
            await set_within(self._changed, interval)
            self._changed.clear()
            if self._certificates is not None:
                self._certificates.refresh()
            if self._guard is not None:
                self._guard.look_again()
                look_again()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: asked at registration, before anything is opened."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        if self._certificates is not None:
            yield GaugeMetricFamily(
                "lbcore_tls_certificate_not_after_seconds",
                "When the certificate of the gRPC port ends, in seconds since 1970",
                self._certificates.not_after.timestamp(),
            )
            yield CounterMetricFamily(
                "lbcore_tls_failures",
                "Times that certificates could not be used, and the last good ones stayed",
                self._certificates.failures,
            )
        if self._guard is not None:
            yield CounterMetricFamily(
                "lbcore_access_refused", "Calls refused or ended for who the caller is", self._guard.refusals
            )
