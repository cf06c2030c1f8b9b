"""An endpoint's or listener's address as Envoy's `Address` (core/v3/address.proto)."""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2

__all__ = ["address_message", "is_hostname", "is_unix"]


def is_unix(address: str) -> bool:
    """Whether the address is a unix socket's."""
    return address.startswith("unix:")


def is_hostname(address: str) -> bool:
    """Whether the address holds a name to be resolved, which neither client takes in an assignment."""
    # As lbcore.model has it: a host that ends in a number is an IPv4 address, anything else without brackets is a name.
    return not is_unix(address) and address[0] != "[" and not _host(address).rpartition(".")[2].isdigit()


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
