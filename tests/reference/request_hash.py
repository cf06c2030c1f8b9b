"""The hash of a request, out of its attributes: Envoy http/hash_policy.cc `HashPolicyImpl::generateHash`.

Each method gives a hash or nothing. Hashes combine as rotl(old, 1) ^ new, so that equal ones do not cancel out; after
a terminal method that leaves any hash at hand, the rest is skipped. No method giving one, the request has no hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.reference.hashing import MASK_64, xxh64


@dataclass(frozen=True)
class Request:
    """What Envoy's router sees: `path` with its query, addresses as Envoy writes them, "ip:port", header names in lower
    case. Of some headers it sees one line, whatever the client sent, joined by commas (header_map_impl.cc)."""

    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: str = "/"
    remote_address: str = ""
    local_address: str = ""

    def cookie(self, name: str) -> str:
        for header in self.headers.get("cookie", ()):
            for pair in header.split(";"):
                key, equals, value = pair.lstrip(" ").partition("=")
                if equals and key == name:
                    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value
        return ""


class HashMethod(Protocol):
    @property
    def terminal(self) -> bool: ...

    def evaluate(self, request: Request) -> int | None: ...


@dataclass(frozen=True)
class Header:
    """Several values are sorted and each is the seed of the next; a rewrite applies to each before.

    The rewrite is RE2's on bytes, which Python's is as well where the pattern does not match empty text.
    """

    name: str
    terminal: bool = False
    regex_rewrite: tuple[str, str] | None = None

    def evaluate(self, request: Request) -> int | None:
        values = [value.encode() for value in request.headers.get(self.name.lower(), ())]
        if self.regex_rewrite is not None:
            pattern, substitution = self.regex_rewrite
            values = [re.sub(pattern.encode(), substitution.encode(), value) for value in values]
        value_hash = 0
        for value in sorted(values):
            value_hash = xxh64(value, value_hash)
        return value_hash if values else None


@dataclass(frozen=True)
class Cookie:
    """With a ttl, a request without the cookie is given one: sixteen hex digits of XXH64(remote + local address)."""

    name: str
    ttl: float | None = None
    terminal: bool = False

    def evaluate(self, request: Request) -> int | None:
        value = request.cookie(self.name)
        if not value and self.ttl is not None:
            if not request.remote_address:
                return None
            value = f"{xxh64((request.remote_address + request.local_address).encode()):016x}"
        return xxh64(value.encode()) if value else None


@dataclass(frozen=True)
class QueryParameter:
    """The first value, as it stands (percent escapes are not decoded); the name is compared exactly."""

    name: str
    terminal: bool = False

    def evaluate(self, request: Request) -> int | None:
        for pair in request.path.partition("?")[2].split("&"):
            key, _, value = pair.partition("=")
            if key == self.name:
                return xxh64(value.encode())
        return None


@dataclass(frozen=True)
class SourceIp:
    """The peer's address without its port (IPv6 without brackets)."""

    terminal: bool = False

    def evaluate(self, request: Request) -> int | None:
        host = request.remote_address.rpartition(":")[0].strip("[]")
        return xxh64(host.encode()) if host else None


def request_hash(methods: Iterable[HashMethod], request: Request) -> int | None:
    combined: int | None = None
    for method in methods:
        value = method.evaluate(request)
        if value is not None:
            combined = value if combined is None else _rotate_left(combined) ^ value
        if method.terminal and combined is not None:
            break
    return combined


def _rotate_left(value: int) -> int:
    return (value << 1 | value >> 63) & MASK_64
