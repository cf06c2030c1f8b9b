"""Listeners and routes, for Envoys that take them from lbcore. Values only.

Source: the part of Envoy's listener.proto and route_components.proto that a front proxy needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.address import canonical_address, is_hostname
from lbcore.errors import Mistake
from lbcore.request_hash import HashPolicy
from lbcore.schema import Checked
from lbcore.validation import refusal, resource_name, url_path

__all__ = ["Listener", "Route", "listener_clashes"]


def socket_address(value: object, field: str) -> str:
    """Where to listen, in canonical form: an IP address and port, or a unix socket."""
    address = canonical_address(value, field)
    if is_hostname(address):
        raise refusal(field, address, 'expected an IP address to listen on, "IP:PORT" or "[IPv6]:PORT"')
    return address


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Checked):
    """Requests whose path begins with `prefix` go to `service`.

    Fields:
        hash_on: what of a request is hashed to choose the endpoint; None: what the service itself says.
    """

    prefix: Annotated[str, url_path]
    service: Annotated[str, resource_name]
    hash_on: HashPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener(Checked):
    """An address that Envoy listens on, and where its requests go; the first route that matches wins."""

    name: Annotated[str, resource_name]
    address: Annotated[str, socket_address]
    routes: tuple[Route, ...]


def listener_clashes(listeners: Iterable[Listener]) -> Iterator[Mistake]:
    """Names and addresses that two listeners have; Envoy could not tell them apart, or not bind the second."""
    names: dict[str, int] = {}
    addresses: dict[str, int] = {}
    for index, listener in enumerate(listeners):
        if (first := names.setdefault(listener.name, index)) != index:
            yield Mistake((index, "name"), f"name {listener.name!r}: expected each name once", see=(first, "name"))
        if (first := addresses.setdefault(listener.address, index)) != index:
            what = f"address {listener.address!r}: expected each address once"
            yield Mistake((index, "address"), what, see=(first, "address"))
