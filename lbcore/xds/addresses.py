"""An endpoint's or listener's address as Envoy's `Address` (core/v3/address.proto)."""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2

__all__ = ["address_message", "is_unix"]


def is_unix(address: str) -> bool:
    """Whether the address is a unix socket's."""
    return address.startswith("unix:")


def address_message(address: str) -> address_pb2.Address:
    """The message for a canonical address: `IP:PORT`, `[IPv6]:PORT` or `unix:/PATH`."""
    if is_unix(address):
        return address_pb2.Address(pipe=address_pb2.Pipe(path=address[len("unix:") :]))
    port = int(address.rpartition(":")[2])
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=_host(address).strip("[]"), port_value=port)
    )


def _host(address: str) -> str:
    return address.rpartition(":")[0]
