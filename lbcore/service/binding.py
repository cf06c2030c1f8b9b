"""Where the service listens: `HOST:PORT` read, written, and the reason why one cannot be had."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from lbcore.errors import InvalidSetting, LbError
from lbcore.validation import text

__all__ = ["Binding", "CannotListen"]


class CannotListen(LbError, OSError):
    """An address that cannot be listened on; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A host and a port to listen on; port 0 has the system choose.

    >>> Binding.parse("[::1]:0", "--grpc")
    Binding(host='::1', port=0)
    >>> str(Binding("::1", 18000))
    '[::1]:18000'
    """

    host: str
    port: int

    @classmethod
    def parse(cls, address: str, field: str) -> Binding:
        """Reads `HOST:PORT`, an IPv6 host in brackets. Raises `InvalidSetting` naming `field`."""
        host, colon, port = text(address, field).rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
            raise InvalidSetting(f"{field} {address!r}: expected HOST:PORT or [IPv6]:PORT, the port 0 to 65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise InvalidSetting(f"{field} {address!r}: expected an IPv6 host in brackets, [{host}]:{port}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def refused(self) -> CannotListen:
        """The error to raise when listening has failed, with the system's own reason."""
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                with socket.socket(family, kind, protocol) as probe:
                    probe.bind(address)
        except OSError as error:
            return CannotListen(f"cannot listen on {self}: {error.strerror}")
        return CannotListen(f"cannot listen on {self}")
