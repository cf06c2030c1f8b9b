"""Hash policies and requests to compare: a spread generated from a fixed seed, so that each run sees the same.

Varied together: methods, their number and order, `terminal`, rewrites, cookies that are made; repeated, empty and odd
headers, cookies and parameters. The Envoy side is written from Envoy's API and not from lbcore's xDS code.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lbcore import Cookie, FilterState, HashPolicy, Header, QueryParameter, RegexRewrite, SourceIp

__all__ = ["TENANT_FILTER", "Sent", "envoy_json", "generated_policies", "generated_requests", "generated_rewrites"]

Json = Any
SOURCES = ("127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.254")
_HEADERS = ("x-user", "X-Tenant", "accept", "user-agent", "cookie", ":authority", ":path")
_REWRITES = (
    RegexRewrite(r"^/user/([^/]+).*$", r"\1"),
    RegexRewrite(r"(\w+)-(\w+)", r"\2\\\0"),
    RegexRewrite("[0-9]*", "#"),
    RegexRewrite("(?i)A|b+", ""),
)
_VALUES = ("", "a", "b", "ann", "/user/17/cart", "left-right", "1a22", "a, b", "é", "😀", "\t", "x" * 40)
_COOKIES = ("c=1", "c=2", "C=1", "c", "c=", "c =1", " c=3", "\tc=4", 'c="q"', 'c="q" ', "c=a=b", "d=1", "d=", "=", "")
_PARAMETERS = ("q=1", "q", "q=", "Q=1", "q=a%20b", "q=a+b", "%71=1", "?q=2", "q=1;r=2", "r=a=b", "r", "")

TENANT_FILTER: Json = {  # keeps the request header x-state as filter state
    "name": "state",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [
            {
                "object_key": "tenant",
                "factory_key": "envoy.hashable_string",
                "format_string": {"text_format_source": {"inline_string": "%REQ(x-state)%"}, "omit_empty_values": True},
                "skip_if_empty": True,
            }
        ],
    },
}


@dataclass(frozen=True)
class Sent:
    """One request: header lines in order, what follows the route's prefix in the path, where it comes from."""

    headers: tuple[tuple[str, bytes], ...]
    path: str
    source_ip: str

    @property
    def filter_state(self) -> dict[str, bytes]:
        values = [value for name, value in self.headers if name == "x-state" and value]
        return {"tenant": values[0]} if values else {}


def generated_policies(count: int) -> Iterator[HashPolicy]:
    """Each method alone with its variations, then mixtures of up to four."""
    choose = random.Random(5)
    for name in _HEADERS:
        yield HashPolicy([Header(name)])
    for rewrite in _REWRITES:
        yield HashPolicy([Header("x-user", regex_rewrite=rewrite)])
    yield HashPolicy([Cookie("c")])
    for ttl in (0, 1, 3600):
        yield HashPolicy([Cookie("c", ttl=ttl)])
    yield HashPolicy([Cookie("c", ttl=60, path="/x", attributes={"SameSite": "Lax", "Secure": ""})])
    yield HashPolicy([QueryParameter("q")])
    yield HashPolicy([SourceIp()])
    yield HashPolicy([FilterState("tenant")])
    yield HashPolicy([])
    for _ in range(count):
        yield HashPolicy([_method(choose) for _ in range(choose.randint(2, 4))])


def _method(choose: random.Random) -> Any:
    terminal = choose.random() < 0.3
    match choose.randrange(6):
        case 0 | 1:
            rewrite = choose.choice((None, None, *_REWRITES))
            return Header(choose.choice(_HEADERS), regex_rewrite=rewrite, terminal=terminal)
        case 2:
            return Cookie(choose.choice("cd"), ttl=choose.choice((None, None, 60)), terminal=terminal)
        case 3:
            return QueryParameter(choose.choice("qr"), terminal=terminal)
        case 4:
            return FilterState("tenant", terminal=terminal)
    return SourceIp(terminal=terminal)


def generated_requests(choose: random.Random, count: int) -> Iterator[Sent]:
    """Requests that bear each attribute now and then."""
    for _ in range(count):
        lines: list[tuple[str, str]] = []
        for name in ("x-user", "X-User", "x-tenant", "Accept", "User-Agent", "x-state"):
            lines += [(name, choose.choice(_VALUES))] * (choose.random() < 0.35)
        for _ in range(choose.choice((0, 0, 1, 1, 2))):
            lines.append(("cookie", ";".join(choose.choices(_COOKIES, k=choose.randint(1, 4)))))
        choose.shuffle(lines)
        query = "&".join(choose.choices(_PARAMETERS, k=choose.randint(0, 4)))
        path = f"/{choose.choice(('', 'user/17', 'a%20b'))}" + (f"?{query}" if choose.random() < 0.7 else "")
        headers = tuple((name, value.strip(" \t").encode()) for name, value in lines)
        yield Sent(headers, path, choose.choice(SOURCES))


def generated_rewrites(count: int) -> Iterator[RegexRewrite]:
    """Rewrites by random patterns of the syntax that lbcore accepts, many of which match empty text."""
    choose = random.Random(6)
    for _ in range(count):
        pattern = _pattern(choose, 3)
        groups = pattern.replace("(?", "").count("(")
        substitution = choose.choice((r"", r"-", r"<\0>", r"\\", r"[\1]" if groups else "=", r"\0\0"))
        yield RegexRewrite(pattern, substitution)


def _pattern(choose: random.Random, depth: int) -> str:
    if depth == 0:
        return choose.choice((*"ab1-.^$", "ab", r"\d", r"\w", r"\b", "[ab]", "[^a]", r"[\d-]"))
    match choose.randrange(6):
        case 0:
            return f"{_pattern(choose, depth - 1)}|{choose.choice(('', _pattern(choose, depth - 1)))}"
        case 1:
            atom = choose.choice(("a", "b", ".", r"\w", "[ab1]", f"(?:{_pattern(choose, depth - 1)}x)"))
            return atom + choose.choice(("*", "+", "?", "{2}", "{1,2}", "*?", "+?", "??"))
        case 2:
            return f"({_pattern(choose, depth - 1)})"
        case 3:
            return f"(?i:{_pattern(choose, depth - 1)})"
    return _pattern(choose, depth - 1) + _pattern(choose, depth - 1)


def envoy_json(policy: HashPolicy) -> list[Json]:
    """RouteAction.hash_policy."""
    return [{**_specifier(method), "terminal": method.terminal} for method in policy.methods]


def _specifier(method: Any) -> dict[str, Json]:
    match method:
        case Header():
            header: dict[str, Json] = {"header_name": method.name}
            if method.regex_rewrite is not None:
                pattern = {"regex": method.regex_rewrite.pattern}
                header["regex_rewrite"] = {"pattern": pattern, "substitution": method.regex_rewrite.substitution}
            return {"header": header}
        case Cookie():
            attributes = [{"name": name, "value": value} for name, value in method.attributes.items()]
            cookie: dict[str, Json] = {"name": method.name, "path": method.path, "attributes": attributes}
            if method.ttl is not None:
                cookie["ttl"] = f"{method.ttl:.0f}s"
            return {"cookie": cookie}
        case QueryParameter():
            return {"query_parameter": {"name": method.name}}
        case FilterState():
            return {"filter_state": {"key": method.key}}
        case SourceIp():
            return {"connection_properties": {"source_ip": True}}
    raise TypeError(f"no hash policy for {method!r}")
