"""Addresses of endpoints and listeners, in the one canonical form that identifies an endpoint and that Envoy hashes."""

from __future__ import annotations

import re
import socket

from lbcore.validation import refusal, text

__all__ = ["canonical_address", "grpc_target", "hostname", "is_hostname", "split_address"]

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_CANONICAL_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5]))))"
_CANONICAL_IPV4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}:{_CANONICAL_PORT}\Z")  # what most addresses are
_PORT = re.compile(r"[0-9]{1,5}\Z")
_MAX_UNIX_PATH = 107  # sockaddr_un.sun_path less its terminating zero (unix(7))
_FORMS = 'expected "IP:PORT", "[IPv6]:PORT", "HOSTNAME:PORT" or "unix:/PATH"'


def canonical_address(value: object, field: str = "address") -> str:
    """Checks an address and returns its canonical form. Raises `InvalidSetting`.

    >>> canonical_address("[2001:DB8:0::1]:443")
    '[2001:db8::1]:443'
    """
    address = text(value, field)
    if _CANONICAL_IPV4.match(address):
        return address
    if address.startswith("unix:"):
        return _unix(address, field)
    host, _, port = address.rpartition(":")
    canonical_host = _host(host)
    if not canonical_host:
        raise refusal(field, address, _FORMS)
    if not _PORT.match(port) or not 1 <= int(port) <= 65535:
        raise refusal(field, address, f"expected a port from 1 to 65535 at the end, found {port!r:.20}")
    return f"{canonical_host}:{int(port)}"


def hostname(value: object, field: str = "name") -> str:
    """Checks a name that is to be resolved, without a port. Raises `InvalidSetting`."""
    name = text(value, field)
    if not _HOSTNAME.match(name) or _ends_in_number(name.removesuffix(".")):
        raise refusal(field, name, "expected a host name, such as web.internal")
    return name


def is_hostname(address: str) -> bool:
    """Whether a canonical address has a name that is still to be resolved.

    >>> is_hostname("db.internal:80"), is_hostname("10.0.0.1:80"), is_hostname("[::1]:80"), is_hostname("unix:/db.sock")
    (True, False, False, False)
    """
    host = address.rpartition(":")[0]
    return not address.startswith(("[", "unix:")) and not _ends_in_number(host)


def split_address(address: str) -> tuple[str, int | None]:
    """Host without brackets and port of a canonical address; path and None of a unix socket.

    >>> split_address("[::1]:80"), split_address("unix:/db.sock")
    (('::1', 80), ('/db.sock', None))
    """
    if address.startswith("unix:"):
        return address[len("unix:") :], None
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def grpc_target(address: str) -> str:
    """How gRPC names it.

    >>> grpc_target("[::1]:50051"), grpc_target("localhost:50051")
    ('ipv6:[::1]:50051', 'dns:///localhost:50051')
    """
    if address.startswith("unix:"):
        return address
    scheme = "dns:///" if is_hostname(address) else "ipv6:" if ":" in split_address(address)[0] else "ipv4:"
    return f"{scheme}{address}"


def _unix(address: str, field: str) -> str:
    path = address[len("unix:") :]
    if not path.startswith("/") or not path.isprintable():
        raise refusal(field, address, "expected an absolute path in printable characters after unix:")
    if len(path.encode()) > _MAX_UNIX_PATH:
        raise refusal(field, address, f"expected a path of at most {_MAX_UNIX_PATH} bytes")
    return address


def _host(host: str) -> str:
    """The canonical form of a host, empty where it is none."""
    try:
        if host.startswith("[") and host.endswith("]"):
            return f"[{socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host[1:-1]))}]"
        if _ends_in_number(host):
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
    except (OSError, ValueError):  # ValueError: a NUL in it
        return ""
    return host if _HOSTNAME.match(host) else ""


def _ends_in_number(host: str) -> bool:
    """An IPv4 address, right or wrong, by the rule of the URL standard; no top-level domain is a number."""
    return host.rpartition(".")[2].isdigit()
