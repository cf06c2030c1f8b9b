"""The configuration file: services and listeners in YAML, decoded into lbcore's own values (docs/configuration.md).

A file is taken whole or not at all: one mistake refuses it, and the error lists every mistake there is, each as
`FILE:LINE: services.web.endpoints[2].weight: what is wrong and what is expected`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from lbcore.access import Grant, ServerTls
from lbcore.config import document
from lbcore.config.decoding import MISSING, Decoder, in_words, meant
from lbcore.config.document import Malformed, Node, compose
from lbcore.config.services import decode_service, unknown_service
from lbcore.delivery import XdsDelivery
from lbcore.errors import ConfigError, InvalidSetting, Mistake
from lbcore.etcd.address import EtcdAddress
from lbcore.registration import RegistrySettings
from lbcore.routing import Listener, listener_clashes
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Source

__all__ = ["Configuration", "load", "parse"]

T = TypeVar("T")

_FIELDS = ("services", "listeners", "xds", "registry", "tls", "access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a configuration file says, in its order; of services whose endpoints a source finds, that source by name."""

    services: tuple[ServiceSnapshot, ...] = ()
    listeners: tuple[Listener, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict)
    xds: XdsDelivery = field(default_factory=XdsDelivery)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    tls: ServerTls | None = None
    access: tuple[Grant, ...] = ()


def load(path: Path) -> Configuration:
    """Reads and decodes a file. Raises `ConfigError` with all its mistakes, also where it cannot be read."""
    return decode(read(path), shown(path))


def read(path: Path) -> bytes:
    """The content of a file. Raises `ConfigError`."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as wrong:  # ValueError: a NUL in the path
        raise ConfigError((f"{shown(path)}: {getattr(wrong, 'strerror', None) or wrong}",)) from None


def decode(content: bytes, file: str) -> Configuration:
    """As `parse`, of the bytes of a file."""
    try:
        text = content.decode()
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        raise ConfigError((f"{file}:{line}: byte 0x{content[wrong.start]:02x}: expected UTF-8",)) from None
    return parse(text, file)


def shown(path: Path) -> str:
    """A path for a message; bytes that are no UTF-8 stand as escapes."""
    return str(path).encode(errors="backslashreplace").decode()


def parse(text: str, file: str) -> Configuration:
    """Decodes the text of a configuration file; `file` is its name in messages.

    Raises `ConfigError` with all mistakes.

    >>> configuration = parse("services: {web: {endpoints: [127.0.0.1:8081]}}", "lb.yaml")
    >>> configuration.services[0].endpoints[0].address
    '127.0.0.1:8081'
    >>> parse("services: {web: {policy: ring_hsh}}", "lb.yaml")
    Traceback (most recent call last):
    lbcore.errors.ConfigError: lb.yaml:1: services.web.policy: unknown name 'ring_hsh'; did you mean ring_hash?
    """
    decoder = Decoder()
    try:
        configuration = _configuration(decoder, compose(text))
    except Malformed as wrong:
        raise ConfigError((f"{file}:{wrong.line}: {wrong}",)) from None
    if decoder.mistakes:
        by_line = sorted(decoder.mistakes, key=lambda mistake: mistake[0])
        raise ConfigError(tuple(f"{file}:{line}: {what}" for line, what in by_line))
    return configuration


def _configuration(decoder: Decoder, root: Node | None) -> Configuration:
    if root is None or root.is_null:
        raise Malformed(1, "empty: expected services; write `services: {}` for none")
    entries = decoder.entries(root, ())
    for name, node in entries.items():
        if name not in _FIELDS:
            decoder.wrong((name,), f"unknown field{meant(name, _FIELDS)}", node.line)
    if isinstance(root, document.Mapping) and "services" not in entries:
        decoder.wrong((), "services is missing; write `services: {}` for none", root.line)
    named = _named_services(decoder, entries["services"]) if "services" in entries else {}
    decoded = [decode_service(decoder, name, node, ("services", name), named) for name, node in named.items()]
    services = [service for service in decoded if service is not None]
    registry = _section(decoder, RegistrySettings, entries, "registry")
    if "registry" in entries:
        decoder.judge(_store_mistakes(registry), entries["registry"], ("registry",))
    tls = decoder.value(ServerTls, entries["tls"], ("tls",)) if "tls" in entries else None
    return Configuration(
        xds=_section(decoder, XdsDelivery, entries, "xds"),
        registry=registry,
        tls=None if tls is MISSING else tls,
        access=_access(decoder, entries["access"], tls) if "access" in entries else (),
        services=tuple(service.snapshot for service in services),
        listeners=_listeners(decoder, entries["listeners"], named) if "listeners" in entries else (),
        sources={service.snapshot.name: service.source for service in services if service.source is not None},
    )


def _section(decoder: Decoder, kind: type[T], entries: Mapping[str, Node], name: str) -> T:
    """Settings of a part as a whole; those by default where the file says nothing, or makes a mistake there."""
    value = decoder.value(kind, entries[name], (name,)) if name in entries else MISSING
    return kind() if value is MISSING else cast("T", value)


def _store_mistakes(registry: RegistrySettings) -> Iterator[Mistake]:
    """What is wrong with an etcd's address in more than its form."""
    if registry.store.startswith("etcd"):
        try:
            EtcdAddress.parse(registry.store, "store")
        except InvalidSetting as wrong:
            for each in wrong.mistakes:
                yield Mistake(("store",), each.what)


def _access(decoder: Decoder, node: Node, tls: ServerTls | object | None) -> tuple[Grant, ...]:
    grants = decoder.value(tuple[Grant, ...], node, ("access",))
    if tls is None or (isinstance(tls, ServerTls) and not tls.client_ca_file):
        decoder.wrong(("access",), "expected with tls.client_ca_file only: nobody else has an identity", node.line)
    return () if grants is MISSING else tuple(grants)


def _named_services(decoder: Decoder, node: Node) -> dict[str, Node]:
    if isinstance(node, document.Mapping):
        return decoder.entries(node, ("services",))
    what = f"expected a mapping of names to services, found {in_words(node)}"
    decoder.wrong(("services",), what, node.line)
    return {}


def _listeners(decoder: Decoder, node: Node, services: Collection[str]) -> tuple[Listener, ...]:
    listeners = decoder.value(tuple[Listener, ...], node, ("listeners",))
    if listeners is MISSING:
        return ()
    decoder.judge(listener_clashes(listeners), node, ("listeners",))
    decoder.judge(_lost_routes(listeners, services), node, ("listeners",))
    return tuple(listeners)


def _lost_routes(listeners: Iterable[Listener], services: Collection[str]) -> Iterator[Mistake]:
    for index, listener in enumerate(listeners):
        for position, route in enumerate(listener.routes):
            within = ("services",) if route.services else ()
            for name in route.destinations:
                if name not in services:
                    field = (*within, name) if within else ("service",)
                    yield Mistake((index, "routes", position, *field), unknown_service(name, services))
