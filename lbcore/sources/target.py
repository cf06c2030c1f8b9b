"""Targets as gRPC's naming writes them, `SCHEME://AUTHORITY/NAME?FIELD=VALUE`, to what they mean.

    dns:///web.internal:80                  addresses of a name; without a port its SRV records
    dns://10.0.0.53/web.internal:80         asked of that server, at port 53 where none is named
    http://sd.internal/targets              Prometheus's HTTP service discovery, https:// as well
    consul://127.0.0.1:8500/web             a service in Consul; without an authority the agent on this machine
    kubernetes:///web.prod:http             a Service, its namespace and port; the authority is the API server
    xds://127.0.0.1:18000/web               a cluster of a control plane; without an authority gRPC's bootstrap says it
    etcd://10.0.0.1:2379/services/web       keys of gRPC naming below a path; etcds:// over TLS
    file:///etc/lbcore.yaml?service=web     a service of a configuration file
    ipv4:10.0.0.1:80,10.0.0.2:80            these addresses, ipv6: and unix: as well

The fields that a query may set are those of the source (`lbcore.source`), written as in the configuration file.
Reference: gRPC doc/naming.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from lbcore.config import document
from lbcore.config.decoding import MISSING, Decoder, meant
from lbcore.errors import InvalidSetting
from lbcore.etcd.address import EtcdAddress
from lbcore.model import Endpoint
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Consul, Dns, Etcd, HttpSd, Kubernetes, Source, Xds, without_login
from lbcore.sources.xds_bootstrap import bootstrap_fields

__all__ = ["FileTarget", "name_of", "parse_target"]

_SCHEMES = (
    "dns",
    "http",
    "https",
    "http_sd",
    "consul",
    "kubernetes",
    "xds",
    "etcd",
    "etcds",
    "file",
    "ipv4",
    "ipv6",
    "unix",
)


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A service of a configuration file; the only one in it where `service` is empty."""

    path: str
    service: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    authority: str
    name: str
    fields: list[tuple[str, str]]


def name_of(source: Source) -> str:
    """What a service is called that has no other name than its source's."""
    if isinstance(source, Dns):
        return source.name
    if isinstance(source, HttpSd | Etcd):
        url = urlsplit(source.url)
        return f"{url.hostname}{url.path}".rstrip("/")
    return source.cluster or source.server if isinstance(source, Xds) else source.service


def parse_target(target: str) -> Source | FileTarget | tuple[Endpoint, ...]:
    """What a target means: a source, or the endpoints themselves. Raises `InvalidSetting`.

    >>> parse_target("dns:///web.internal:80?max_ttl=30s").max_ttl
    30.0
    >>> parse_target("dnss:///web.internal:80")
    Traceback (most recent call last):
    lbcore.errors.InvalidSetting: target 'dnss:///web.internal:80': unknown scheme 'dnss'; did you mean dns?
    """
    try:
        return _parsed(target)
    except ValueError as wrong:  # InvalidSetting is one; others come from urllib
        raise InvalidSetting(f"target {without_login(target)!r:.300}: {wrong}") from None


def _parsed(target: str) -> Source | FileTarget | tuple[Endpoint, ...]:
    scheme, colon, rest = target.partition(":")
    if not colon or scheme not in _SCHEMES:
        known = meant(scheme, _SCHEMES) if colon else f"; expected one of {', '.join(_SCHEMES)} before a colon"
        raise InvalidSetting(f"unknown scheme {scheme!r:.60}{known}")
    if scheme in ("ipv4", "ipv6", "unix"):
        return _addresses(scheme, rest)
    if scheme in ("http", "https"):
        return HttpSd(target)
    if scheme in ("etcd", "etcds"):
        source = Etcd(target)
        EtcdAddress.parse(target, "url")
        return source
    if scheme == "http_sd":
        return HttpSd(f"http:{rest}")
    parts = _split(f"dns:///{rest}" if scheme == "dns" and not rest.startswith("//") else target)
    if scheme == "file":
        return _file(parts)
    return _READERS[scheme](parts)


def _split(target: str) -> _Parts:
    url = urlsplit(target)
    if not target.removeprefix(url.scheme).startswith("://"):
        raise InvalidSetting(f"expected {url.scheme}://AUTHORITY/NAME, of which the authority may be empty")
    fields = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    if url.fragment:
        raise InvalidSetting("expected no #")
    name = unquote(url.path.removeprefix("/"))
    if not name:
        raise InvalidSetting(f"expected a name after the authority, as in {url.scheme}:///{url.netloc or 'NAME'}")
    return _Parts(url.scheme, url.netloc, name, fields)


def _addresses(scheme: str, rest: str) -> tuple[Endpoint, ...]:
    written = [f"unix:{rest.removeprefix('//')}"] if scheme == "unix" else rest.split(",")
    endpoints = tuple(Endpoint(address) for address in written)
    for endpoint in endpoints:
        if scheme != "unix" and endpoint.address.startswith("[") != (scheme == "ipv6"):
            raise InvalidSetting(f"{endpoint.address}: expected an address of {scheme}")
    return ServiceSnapshot(name="static", endpoints=endpoints).endpoints


def _file(parts: _Parts) -> FileTarget:
    if parts.authority or [name for name, _ in parts.fields] not in ([], ["service"]):
        raise InvalidSetting("expected file:///PATH?service=NAME")
    service = parts.fields[0][1] if parts.fields else ""
    return FileTarget(f"/{parts.name}", service)


def _dns(parts: _Parts) -> Source | tuple[Endpoint, ...]:
    host, colon, port = parts.name.rpartition(":")
    if colon and not port:
        raise InvalidSetting(f"{parts.name}: expected a port after the colon")
    if _is_ip(host):
        if parts.authority or parts.fields:
            raise InvalidSetting(f"{parts.name}: expected no server to ask and no fields beside an IP address")
        return (Endpoint(parts.name),)
    fields = [("name", host), ("port", port)] if colon else [("name", parts.name)]
    server = f"{parts.authority}:53" if _is_ip(parts.authority) else parts.authority
    return _source(Dns, [*fields, *parts.fields], resolvers=server)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return host.startswith("[") or ":" not in host


def _consul(parts: _Parts) -> Source:
    url = [("url", f"http://{parts.authority}")] if parts.authority else []
    return _source(Consul, [("service", parts.name), *url, *parts.fields])


def _kubernetes(parts: _Parts) -> Source:
    """As kuberesolver has it: SERVICE.NAMESPACE:PORT."""
    host, _, port = parts.name.partition(":")
    service, _, namespace = host.partition(".")
    url = [("url", f"https://{parts.authority}")] if parts.authority else []
    optional = [("namespace", namespace)] * bool(namespace) + [("port", port)] * bool(port)
    return _source(Kubernetes, [("service", service), *optional, *url, *parts.fields])


def _xds(parts: _Parts) -> Source:
    server = [("server", parts.authority)] if parts.authority else bootstrap_fields()
    return _source(Xds, [("cluster", parts.name), *server, *parts.fields])


_READERS: Mapping[str, Callable[[_Parts], Source | tuple[Endpoint, ...]]] = {
    "dns": _dns,
    "consul": _consul,
    "kubernetes": _kubernetes,
    "xds": _xds,
}


def _source(kind: type, fields: list[tuple[str, str]], **listed: str) -> Source:
    """A source from its fields as text, and from those that are lists, each of one item or empty."""
    pairs: list[tuple[document.Node, document.Node]] = [(_scalar(name), _scalar(value)) for name, value in fields]
    for name, item in listed.items():
        if item:
            pairs.append((_scalar(name), document.Sequence(1, [_scalar(item)])))
    decoder = Decoder()
    source = decoder.value(kind, document.Mapping(1, pairs), ())
    if source is MISSING:
        raise InvalidSetting(*(what for _, what in decoder.mistakes))
    return source  # type: ignore[no-any-return]


def _scalar(text: str) -> document.Scalar:
    return document.Scalar(1, text, False)
