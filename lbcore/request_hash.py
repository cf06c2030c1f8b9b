"""The hash of a request, for people who embed lbcore: which attributes stand for the client, as Envoy's routes say it.

A `HashPolicy` is a list of methods. Each gives a 64-bit hash of one attribute, or nothing where the request lacks it;
they combine in order as rotl(combined, 1) ^ new, so that equal ones do not cancel out. The invariant: for the request
that Envoy's router sees, the hash is the one that Envoy computes, so `cluster.pick(policy.hash(...))` gives the host
that Envoy would choose. Reference: Envoy source/common/http/hash_policy.cc, RouteAction.HashPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, TypeAlias

from lbcore._core import hash64
from lbcore.errors import InvalidSetting, Mistake
from lbcore.regex_rewrite import RegexRewrite
from lbcore.request import Headers, PeerAddress, Request, Text
from lbcore.schema import Checked, keep_fields
from lbcore.validation import HTTP_TOKEN, WholeSeconds, header_name, refusal, text, visible_text

__all__ = [
    "Cookie",
    "FilterState",
    "HashMethod",
    "HashPolicy",
    "Header",
    "QueryParameter",
    "RegexRewrite",
    "RequestHash",
    "SourceIp",
    "hash_methods",
]

_MASK = 2**64 - 1
_COOKIE_NAME = re.compile(r"[!-:<>-~]+\Z")  # visible ASCII without ; and =
_COOKIE_VALUE = re.compile(r"[ -:<-~]*\Z")  # printable ASCII without ;
_PARAMETER_NAME = re.compile(r"[!-~]+\Z")


def cookie_name(value: object, field: str) -> str:
    name = text(value, field)
    if not _COOKIE_NAME.match(name):
        raise refusal(field, name, "expected a cookie's name: visible ASCII without = and ;")
    return name


def cookie_path(value: object, field: str) -> str:
    path = text(value, field)
    if path and not (path.startswith("/") and _COOKIE_VALUE.match(path)):
        raise refusal(field, path, "expected a path: / and printable ASCII without ;")
    return path


def cookie_attributes(value: object, field: str) -> Mapping[str, str]:
    """Attributes of a cookie by name, empty text for those without a value."""
    if not isinstance(value, Mapping):
        raise refusal(field, value, 'expected a mapping, such as {"SameSite": "Lax", "Secure": ""}')
    for name, content in value.items():
        if not isinstance(name, str) or not re.fullmatch(HTTP_TOKEN, name):
            raise refusal(field, name, "expected letters, digits and hyphens as an attribute's name")
        if not isinstance(content, str) or not _COOKIE_VALUE.match(content):
            raise InvalidSetting(
                Mistake((field, name), str(refusal(name, content, "expected printable ASCII without ;")))
            )
    return dict(value)


def parameter_name(value: object, field: str) -> str:
    name = text(value, field)
    if not _PARAMETER_NAME.match(name) or not {"&", "=", "#"}.isdisjoint(name):
        raise refusal(field, name, "expected a parameter's name as it stands in a URL, percent-encoded")
    return name


@dataclass(frozen=True, slots=True)
class Header(Checked):
    """The values of a header. Several are sorted, and the hash of each is the seed of the next, so order is no matter.

    Fields:
        name: in any case. `:authority` (or `host`) and `:path` are the pseudo headers that Envoy has.
        regex_rewrite: applied to each value before it is hashed.
        terminal: if the request has a hash after this method, later methods are not asked.

    A header that is there but empty counts. Headers of which Envoy keeps one line (`accept`, `user-agent`,
    `x-forwarded-for`, …) are joined by commas, as there.
    """

    name: Annotated[str, header_name]
    regex_rewrite: RegexRewrite | None = field(default=None, kw_only=True)
    terminal: bool = field(default=False, kw_only=True)

    def evaluate(self, request: Request) -> int | None:
        """The hash of the attribute, or None where the request lacks it."""
        values = request.header(self.name)
        if not values:
            return None
        if self.regex_rewrite is not None:
            values = [self.regex_rewrite.apply(value) for value in values]
        chained = 0
        for value in sorted(values) if len(values) > 1 else values:
            chained = hash64(value, chained)
        return chained


@dataclass(frozen=True, slots=True)
class Cookie(Checked):
    """The value of a cookie, without the quotes around it. An empty one counts as absent.

    Fields:
        name: exactly as the client sends it.
        ttl: seconds that a cookie made here lives, whole; 0 until the browser closes; None: none is made.
        path: of a cookie made here; empty: the browser's default.
        attributes: more of a cookie made here, such as `{"SameSite": "Lax", "Secure": ""}`.
        terminal: if the request has a hash after this method, later methods are not asked.

    A cookie is made where the request has none and its connection is known by address: its value is the hash of the
    connection's two addresses, so requests that race on one connection are given the same (`HashPolicy.evaluate`).
    """

    name: Annotated[str, cookie_name]
    ttl: Annotated[float, WholeSeconds()] | None = field(default=None, kw_only=True)
    path: Annotated[str, cookie_path] = field(default="", kw_only=True)
    attributes: Annotated[Mapping[str, str], cookie_attributes] = field(default_factory=dict, kw_only=True, hash=False)
    terminal: bool = field(default=False, kw_only=True)

    def evaluate(self, request: Request) -> int | None:
        """The hash of the attribute, or None where the request lacks it."""
        if value := request.cookie(self.name.encode()):
            return hash64(value)
        if self.ttl is None:
            return None
        token = request.connection_token()
        if token is None:
            return None
        request.set_cookies.append(self.set_cookie(token))
        return hash64(token)

    def set_cookie(self, value: str) -> str:
        """What the header Set-Cookie is to say.

        >>> Cookie("session", ttl=3600, path="/", attributes={"Secure": ""}).set_cookie("f00")
        'session="f00"; Max-Age=3600; Path=/; Secure; HttpOnly'
        """
        parts = [f'{self.name}="{value}"']
        if self.ttl:
            parts.append(f"Max-Age={self.ttl:.0f}")
        if self.path:
            parts.append(f"Path={self.path}")
        parts += (f"{name}={content}" if content else name for name, content in self.attributes.items())
        return "; ".join([*parts, "HttpOnly"])


@dataclass(frozen=True, slots=True)
class QueryParameter(Checked):
    """The first value of a parameter in the path, as it stands there: percent escapes are not decoded.

    Fields:
        name: as it stands in the path. A parameter without `=` has an empty value, and counts.
        terminal: if the request has a hash after this method, later methods are not asked.
    """

    name: Annotated[str, parameter_name]
    terminal: bool = field(default=False, kw_only=True)

    def evaluate(self, request: Request) -> int | None:
        """The hash of the attribute, or None where the request lacks it."""
        value = request.query_parameter(self.name.encode())
        return None if value is None else hash64(value)


@dataclass(frozen=True, slots=True)
class SourceIp(Checked):
    """The peer's IP address without its port, in canonical form; a peer without one, as on a unix socket, has no hash.

    Fields:
        terminal: if the request has a hash after this method, later methods are not asked.
    """

    terminal: bool = field(default=False, kw_only=True)

    def evaluate(self, request: Request) -> int | None:
        """The hash of the attribute, or None where the request lacks it."""
        ip = request.source_ip()
        return None if ip is None else hash64(ip)


@dataclass(frozen=True, slots=True)
class FilterState(Checked):
    """What the program itself knows of a request, such as the tenant it has authenticated: Envoy's filter state.

    Fields:
        key: in the mapping given as `filter_state`; there, text or bytes are hashed, and an int is the hash itself.
        terminal: if the request has a hash after this method, later methods are not asked.
    """

    key: Annotated[str, visible_text]
    terminal: bool = field(default=False, kw_only=True)

    def evaluate(self, request: Request) -> int | None:
        """The hash of the attribute, or None where the request lacks it."""
        value = request.filter_state.get(self.key) if request.filter_state else None
        if value is None:
            return None
        if isinstance(value, int):
            if not 0 <= value <= _MASK:
                raise ValueError(f"filter_state[{self.key!r}] {value}: an int is the hash itself, 0 to 2**64 - 1")
            return value
        return hash64(value)


HashMethod: TypeAlias = Header | Cookie | QueryParameter | SourceIp | FilterState


def hash_methods(value: object, field: str) -> tuple[HashMethod, ...]:
    """One hash method, or several in order."""
    items = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)
    methods: list[HashMethod] = []
    mistakes: list[Mistake] = []
    for index, item in enumerate(items):
        if isinstance(item, HashMethod):
            methods.append(item)
        else:
            expected = "expected Header, Cookie, QueryParameter, SourceIp or FilterState"
            mistakes.append(Mistake((field, index), str(refusal(f"{field}[{index}]", item, expected))))
    if mistakes:
        raise InvalidSetting(*mistakes)
    return tuple(methods)


def _plain_header(methods: tuple[HashMethod, ...]) -> str | None:
    """The name, where the value of one header in a mapping is all that matters: by far the most policies are so."""
    match methods:
        case (Header(name=name, regex_rewrite=None),) if name not in (":path", "host"):
            return name
    return None


class RequestHash(NamedTuple):
    """What a policy makes of a request.

    Fields:
        key: for `Cluster.pick` and `acquire`; None where the request has none of the attributes.
        set_cookies: values of the Set-Cookie headers for the answer, one for each cookie made.
    """

    key: int | None
    set_cookies: tuple[str, ...]


@dataclass(frozen=True, slots=True, init=False)
class HashPolicy(Checked):
    """Which attributes of a request decide its endpoint: a list of hash methods, tried and combined in order.

    Fields:
        methods: `Header`, `Cookie`, `QueryParameter`, `SourceIp`, `FilterState`, one or several.

    Raises `InvalidSetting`. Threads may share a policy. A hash costs about 0.1 µs for one header in a dict, else 0.5 to
    1 µs a method. Source: Envoy RouteAction.HashPolicy (route_components.proto).

    >>> from lbcore import Cluster, Endpoint, Maglev
    >>> cluster = Cluster("web", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")], policy=Maglev())
    >>> policy = HashPolicy([Header("x-user", terminal=True), SourceIp()])
    >>> cluster.pick(policy.hash({"X-User": "ann"}, remote_address="192.0.2.7:5000")).address
    '10.0.0.1:80'
    """

    methods: Annotated[tuple[HashMethod, ...], hash_methods]
    _plain_header: str | None = field(repr=False, compare=False)

    def __init__(self, methods: HashMethod | Iterable[HashMethod]) -> None:
        keep_fields(self, methods)
        object.__setattr__(self, "_plain_header", _plain_header(self.methods))

    # The attributes may be given by position because Python calls that a third faster than keyword-only parameters.
    def hash(
        self,
        headers: Headers = (),
        path: Text = "",
        remote_address: PeerAddress = None,
        local_address: PeerAddress = None,
        filter_state: Mapping[str, Text | int] | None = None,
    ) -> int | None:
        """The key of a request for `Cluster.pick`, which chooses at random by None: a request without any attribute.

        Args:
            headers: a mapping of names to a value or to a list of values (any mapping of a web framework), or pairs of
                name and value (ASGI's). Names are looked up in lower case first, then in any case.
            path: with its query, not decoded: `/search?q=1`.
            remote_address: the peer's, `IP:PORT`, `[IPv6]:PORT`, an IP alone, or as a socket gives it.
            local_address: the own address of the connection, in the same forms; only cookies that are made look at it.
            filter_state: what the program knows of the request, by the keys of `FilterState`.

        Raises TypeError at attributes of another form.

        >>> policy = HashPolicy([Header("x-user")])
        >>> policy.hash([(b"x-user", b"ann")]) == hash64("ann")
        True
        >>> policy.hash({"accept": "*/*"}) is None
        True
        """
        name = self._plain_header
        if name is not None and type(headers) is dict:
            try:
                return hash64(headers[name])
            except (KeyError, TypeError, UnicodeEncodeError):  # the name in another case, several values, no UTF-8
                pass
        return self._combined(Request(headers, path, remote_address, local_address, filter_state))

    def evaluate(
        self,
        headers: Headers = (),
        path: Text = "",
        remote_address: PeerAddress = None,
        local_address: PeerAddress = None,
        filter_state: Mapping[str, Text | int] | None = None,
    ) -> RequestHash:
        """As `hash`, with the cookies that the answer should set so that the client's next request has the same key.

        >>> policy = HashPolicy([Cookie("session", ttl=60)])
        >>> key, set_cookies = policy.evaluate({}, "/", ("192.0.2.7", 5000), ("192.0.2.1", 80))
        >>> set_cookies
        ('session="798ef8491d946032"; Max-Age=60; HttpOnly',)
        >>> key == policy.hash({"cookie": "session=798ef8491d946032"})
        True
        """
        request = Request(headers, path, remote_address, local_address, filter_state)
        key = self._combined(request)
        return RequestHash(key, tuple(request.set_cookies))

    def _combined(self, request: Request) -> int | None:
        combined: int | None = None
        for method in self.methods:
            value = method.evaluate(request)
            if value is not None:
                combined = value if combined is None else (combined << 1 & _MASK | combined >> 63) ^ value
            if combined is not None and method.terminal:
                break
        return combined
