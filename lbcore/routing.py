"""Listeners and routes, for Envoys that take them from lbcore. Values only.

Source: the part of Envoy's listener.proto and route_components.proto that a front proxy needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.address import canonical_address, is_hostname
from lbcore.errors import Mistake
from lbcore.schema import Checked
from lbcore.validation import printable, refusal, resource_name, text, url_path

__all__ = ["HashOn", "Listener", "Route", "listener_clashes"]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*\Z")  # RFC 9110, section 5.6.2


def token(value: object, field: str) -> str:
    """The name of a request header or cookie, or nothing."""
    name = text(value, field)
    if not _TOKEN.match(name):
        raise refusal(field, name, "expected letters, digits and !#$%&'*+-.^_`|~ only")
    return name


def socket_address(value: object, field: str) -> str:
    """Where to listen, in canonical form: an IP address and port, or a unix socket."""
    address = canonical_address(value, field)
    if is_hostname(address):
        raise refusal(field, address, 'expected an IP address to listen on, "IP:PORT" or "[IPv6]:PORT"')
    return address


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOn(Checked):
    """What of a request is hashed to choose the endpoint; exactly one field is set.

    Source: Envoy RouteAction.HashPolicy.
    """

    header: Annotated[str, token] = ""
    cookie: Annotated[str, token] = ""
    query_parameter: Annotated[str, printable] = ""
    source_ip: bool = False

    def contradictions(self) -> Iterator[Mistake]:
        if [bool(self.header), bool(self.cookie), bool(self.query_parameter), self.source_ip].count(True) != 1:
            yield Mistake((), "hash_on: expected exactly one of header, cookie, query_parameter, source_ip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Checked):
    """Requests whose path begins with `prefix` go to `service`."""

    prefix: Annotated[str, url_path]
    service: Annotated[str, resource_name]
    hash_on: HashOn | None = None


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
