"""The attributes of a request, taken in the forms that Python servers give them in and read as Envoy reads them.

Text is UTF-8; bytes that are not are carried as surrogate escapes or as bytes. Nothing is percent-decoded, and nothing
is trimmed but what the rules of each attribute say. Reference: Envoy source/common/http/{utility,header_map_impl}.cc,
source/common/network/address_impl.cc.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from lbcore._core import hash64

__all__ = ["ONE_LINE_HEADERS", "Headers", "PeerAddress", "Request", "Text"]

Text: TypeAlias = str | bytes
Headers: TypeAlias = Mapping[str, Text] | Mapping[str, Sequence[Text]] | Iterable[tuple[Text, Text]]
PeerAddress: TypeAlias = str | bytes | Sequence[Any] | None

# Request headers of which Envoy 1.40 keeps one line: further lines, unless empty, are appended to it after a comma.
# From envoy/http/header_map.h, and what the extensions in Envoy's own build register (seen).
ONE_LINE_HEADERS = frozenset(
    """
    accept accept-encoding access-control-request-headers access-control-request-method
    access-control-request-private-network authorization cache-control content-encoding content-type
    grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since
    origin pragma proxy-status referer user-agent via x-client-trace-id x-envoy-attempt-count
    x-envoy-is-timeout-retry x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port
    x-forwarded-proto x-request-id
    """.split()  # noqa: SIM905 - a list of strings would take a line each
)
_TEXT = (str, bytes)
_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2


class Request:
    """What `HashPolicy.hash` was given.

    `set_cookies` collects the values of the Set-Cookie headers that the answer is to bear.
    """

    __slots__ = ("_headers", "_path", "filter_state", "local_address", "remote_address", "set_cookies")

    def __init__(
        self,
        headers: Headers,
        path: Text,
        remote_address: PeerAddress,
        local_address: PeerAddress,
        filter_state: Mapping[str, Text | int] | None,
    ) -> None:
        self._headers = headers if hasattr(headers, "items") else _pairs(headers)
        self._path = _utf8(path, "path")
        self.remote_address = remote_address
        self.local_address = local_address
        self.filter_state = filter_state
        self.set_cookies: list[str] = []

    def header(self, name: str) -> list[bytes]:
        """The values of a header; the name is in lower case, or a pseudo header's.

        `:authority` and `host` are one, `:path` is the request's path.
        """
        if name == ":path":
            return [self._path] if self._path else []
        if name in (":authority", "host"):
            return self._values(":authority") or self._values("host")
        values = self._values(name)
        return [b",".join(filter(None, values))] if len(values) > 1 and name in ONE_LINE_HEADERS else values

    def _values(self, name: str) -> list[bytes]:
        headers: Any = self._headers
        found: Any = None
        if type(headers) is dict:
            found = headers.get(name)
        elif hasattr(headers, "getall"):  # multidict's, as aiohttp has them
            found = headers.getall(name, None)
        if found is not None:
            return _listed(name, found)
        pairs = headers.items() if hasattr(headers, "items") else headers
        length = len(name)
        return [
            value
            for key, found in pairs
            if len(key) == length and _lower(key) == name
            for value in _listed(name, found)
        ]

    def cookie(self, name: bytes) -> bytes:
        """The value of the first cookie of this name, without the quotes around it; empty where there is none."""
        for line in self._values("cookie"):
            for cookie in line.split(b";"):
                key, equals, value = cookie.lstrip(b" ").partition(b"=")
                if equals and key == name:
                    quoted = len(value) >= 2 and value[:1] == value[-1:] == b'"'
                    return value[1:-1] if quoted else value
        return b""

    def query_parameter(self, name: bytes) -> bytes | None:
        """The first value of a parameter, as it stands in the path; empty where the parameter has no `=`."""
        for parameter in self._path.partition(b"?")[2].split(b"&"):
            key, _, value = parameter.partition(b"=")
            if key == name:
                return value
        return None

    def source_ip(self) -> str | None:
        """The peer's IP address without its port; None where it has none, as on a unix socket."""
        return _ip(*_parts(self.remote_address)[:2]) if self.remote_address else None

    def connection_token(self) -> str | None:
        """Sixteen hex digits that stand for the connection; None where the peer is not known."""
        peer = _address_text(self.remote_address)
        return f"{hash64(peer + _address_text(self.local_address)):016x}" if peer else None


def _pairs(headers: Any) -> Sequence[tuple[Text, Text]]:
    if isinstance(headers, (list, tuple)):
        return headers
    if isinstance(headers, _TEXT) or not isinstance(headers, Iterable):
        raise TypeError(f"headers {headers!r:.120}: expected a mapping, or pairs of name and value")
    return tuple(headers)  # several methods may read them, and an iterator would be empty for the second


def _listed(name: str, found: Any) -> list[bytes]:
    if isinstance(found, _TEXT):
        return [_utf8(found, name)]
    if isinstance(found, Sequence):
        return [_utf8(value, name) for value in found]
    raise TypeError(f"header {name}: expected str, bytes or a list of them, found {type(found).__name__}")


def _utf8(value: Any, what: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value
    raise TypeError(f"{what}: expected str or bytes, found {type(value).__name__}")


def _lower(name: Text) -> str:
    return name.lower() if isinstance(name, str) else name.decode("latin-1").lower()


def _address_text(address: PeerAddress) -> str:
    """An address as Envoy writes it: `IP:PORT`, `[IPv6]:PORT` or a unix socket's path; empty where there is none."""
    if not address:
        return ""
    host, scope, port = _parts(address)
    ip = _ip(host, scope)
    if ip is None:
        return address.removeprefix("unix:") if isinstance(address, str) else host
    if not port:
        return ip
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _parts(address: str | Sequence[Any]) -> tuple[str, int, str]:
    """Host, IPv6 scope and port of an address, in text or as a socket gives it (`ip(7)`, `ipv6(7)`, `unix(7)`)."""
    if isinstance(address, str):
        if address.startswith("["):
            host, _, rest = address[1:].partition("]")
            return host, 0, rest.removeprefix(":")
        if address.count(":") == 1:
            host, _, port = address.partition(":")
            return host, 0, port
        return address, 0, ""
    if isinstance(address, bytes):  # the name of an abstract socket
        return address.decode("utf-8", "surrogateescape").replace("\0", "@", 1), 0, ""
    if len(address) in (2, 4) and isinstance(address[0], str):
        return address[0], int(address[3]) if len(address) == 4 else 0, str(address[1])
    raise TypeError(f'address {address!r:.120}: expected "IP:PORT", "[IPv6]:PORT", an IP, or what a socket gives')


def _ip(host: str, scope: int) -> str | None:
    """A host as Envoy writes IP addresses; None where it is none."""
    ip, _, zone = host.partition("%")
    try:
        if ":" not in ip:
            socket.inet_pton(socket.AF_INET, host)
            return host  # inet_pton takes the canonical form alone
        packed = socket.inet_pton(socket.AF_INET6, ip)
    except (OSError, ValueError):  # ValueError: what is not ASCII, or has a NUL in it
        return None
    if packed.startswith(_IPV4_IN_IPV6):  # an IPv4 peer of a socket that takes both
        return socket.inet_ntop(socket.AF_INET, packed[len(_IPV4_IN_IPV6) :])
    canonical = socket.inet_ntop(socket.AF_INET6, packed)
    zone = str(scope) if scope else zone  # the interface by number, as Envoy has it
    return f"{canonical}%{zone}" if zone else canonical
