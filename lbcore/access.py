"""Who may connect, and what they may do: TLS of the gRPC port, and grants to the identities that certificates prove.

An identity is a SPIFFE id, `spiffe://example.org/ns/shop/sa/front`, or `dns:NAME`. What a client says of itself (its
node) is a claim and never an authority. Source: the SPIFFE X.509-SVID standard; gRFC A65 for the client's side.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, Literal

from lbcore.address import is_hostname, split_address
from lbcore.errors import InvalidSetting, Mistake
from lbcore.schema import Checked
from lbcore.validation import Interval, one_of, printable, refusal, text, visible_text

__all__ = ["ACTIONS", "EVERYTHING", "Action", "Grant", "Permit", "ServerTls", "permit_of"]

Action = Literal["xds", "pick", "register", "status"]
ACTIONS: tuple[Action, ...] = ("xds", "pick", "register", "status")

_MOST_CHECK_INTERVAL = 30.0  # seconds: who is shut out has to be gone within a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls(Checked):
    """TLS of the gRPC port. The files are PEM, and a new content is in use without a restart.

    Fields:
        certificate_file: the server's certificate, followed by those of the authorities between it and the root.
        private_key_file: the key to it.
        client_ca_file: roots of the clients' certificates; with it, who has none is refused (mutual TLS).
        client_crl_file: revocation lists of these authorities.
        check_interval: between two looks at the files, and at the certificates of those who are connected.
    """

    certificate_file: Annotated[str, visible_text]
    private_key_file: Annotated[str, visible_text]
    client_ca_file: Annotated[str, printable] = ""
    client_crl_file: Annotated[str, printable] = ""
    check_interval: Interval = 5.0

    def contradictions(self) -> Iterator[Mistake]:
        if self.client_crl_file and not self.client_ca_file:
            yield Mistake(("client_crl_file",), "client_crl_file: expected with client_ca_file only")
        if self.check_interval > _MOST_CHECK_INTERVAL:
            what = f"check_interval {self.check_interval:g}: expected at most {_MOST_CHECK_INTERVAL:g} seconds"
            yield Mistake(("check_interval",), what)


def identity_pattern(value: object, field: str) -> str:
    """A pattern of identities in one trust domain."""
    pattern = visible_text(value, field)
    kind, _, rest = pattern.partition(":")
    domain = rest.removeprefix("//").partition("/")[0]
    if kind == "spiffe" and rest.startswith("//") and domain and "*" not in domain:
        return pattern
    if kind == "dns" and rest.strip("*."):
        return pattern
    expected = "expected spiffe://TRUST_DOMAIN/PATH or dns:NAME; * may stand in the path or the name"
    raise refusal(field, pattern, expected)


@dataclass(frozen=True, slots=True)
class Each:
    """A sequence, every item of which follows a rule."""

    rule: Callable[[Any, str], str]
    least: int = 1

    def __call__(self, value: object, field: str) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or len(value) < self.least:
            raise refusal(field, value, "expected a sequence" + (", at least one in it" if self.least else ""))
        mistakes: list[Mistake] = []
        items: list[str] = []
        for index, item in enumerate(value):
            try:
                items.append(self.rule(item, f"{field}[{index}]"))
            except InvalidSetting as wrong:  # noqa: PERF203  (all of them are to be told)
                mistakes += [Mistake((field, index), each.what) for each in wrong.mistakes]
        if mistakes:
            raise InvalidSetting(*mistakes)
        return tuple(items)


def network(value: object, field: str) -> str:
    """An IP network, in its canonical form."""
    try:
        return str(ipaddress.ip_network(text(value, field)))
    except ValueError:
        raise refusal(field, value, "expected a network such as 10.1.0.0/16") from None


_PATTERNS = Each(visible_text)
_ACTIONS = Each(partial(one_of, allowed=ACTIONS))


@dataclass(frozen=True, kw_only=True)
class Grant(Checked):
    """What some identities may do. In each pattern `*` stands for any characters but slashes, `**` for any at all.

    Fields:
        identity: pattern of the identities; the trust domain of a SPIFFE id is never a pattern.
        allow: `xds` (discovery and load reports), `pick`, `register`, `status` (what other clients have).
        services: patterns of the services that they may see, pick from and register at. Others do not exist for them.
        nodes: patterns of the node ids that they may take in xDS.
        networks: what they register must be in one of these; none: at any address.
    """

    identity: Annotated[str, identity_pattern]
    allow: Annotated[tuple[str, ...], _ACTIONS] = ("xds",)
    services: Annotated[tuple[str, ...], _PATTERNS] = ("**",)
    nodes: Annotated[tuple[str, ...], _PATTERNS] = ("**",)
    networks: Annotated[tuple[str, ...], Each(network, least=0)] = ()

    @cached_property
    def _identity(self) -> re.Pattern[str]:
        return _compiled((self.identity,))

    def fits(self, identity: str) -> bool:
        """Whether it is for this identity."""
        return self._identity.fullmatch(identity) is not None


@dataclass(frozen=True)
class Permit:
    """What one identity may do: all that any of its grants allows."""

    grants: tuple[Grant, ...]

    def may(self, action: Action) -> bool:
        """Whether it may do this at all, with some service."""
        return action in self._services

    def sees(self, service: str, action: Action = "xds") -> bool:
        """Whether it may do this with the service; where not, the service is to be as one that does not exist."""
        pattern = self._services.get(action)
        return pattern is not None and pattern.fullmatch(service) is not None

    def takes_node(self, node_id: str) -> bool:
        """Whether it may say that it is this node."""
        return self._nodes.fullmatch(node_id) is not None

    def announces(self, service: str, address: str) -> bool:
        """Whether it may register this address at the service."""
        return any(
            "register" in grant.allow
            and _compiled(grant.services).fullmatch(service)
            and (not grant.networks or _lies_in(address, grant.networks))
            for grant in self.grants
        )

    @cached_property
    def unlimited(self) -> bool:
        """Whether it sees every service."""
        return any("xds" in grant.allow and "**" in grant.services for grant in self.grants)

    @cached_property
    def _services(self) -> dict[str, re.Pattern[str]]:
        allowed = {action: [grant for grant in self.grants if action in grant.allow] for action in ACTIONS}
        return {
            action: _compiled(tuple(name for grant in grants for name in grant.services))
            for action, grants in allowed.items()
            if grants
        }

    @cached_property
    def _nodes(self) -> re.Pattern[str]:
        return _compiled(tuple(name for grant in self.grants if "xds" in grant.allow for name in grant.nodes))


EVERYTHING = Permit((Grant(identity="dns:any", allow=ACTIONS),))
"""For whoever is let in, where there are no grants."""


def permit_of(identity: str, grants: tuple[Grant, ...]) -> Permit | None:
    """What an identity may do; None: nothing.

    >>> grants = (Grant(identity="spiffe://example.org/ns/*/sa/front", services=("web", "shop/*")),)
    >>> permit = permit_of("spiffe://example.org/ns/blue/sa/front", grants)
    >>> permit.sees("shop/cart"), permit.sees("shop/cart/db"), permit.sees("pay")
    (True, False, False)
    >>> permit_of("spiffe://example.org/ns/blue/x/sa/front", grants) is None
    True
    """
    fitting = tuple(grant for grant in grants if grant.fits(identity))
    return Permit(fitting) if fitting else None


def _lies_in(address: str, networks: tuple[str, ...]) -> bool:
    host, port = split_address(address)
    if port is None or is_hostname(address):
        return False
    return any(ipaddress.ip_address(host) in ipaddress.ip_network(each) for each in networks)


def _compiled(wanted: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, wanted)), re.DOTALL)


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*?)", pattern)
    return "".join({"*": "[^/]*", "**": ".*"}.get(part, re.escape(part)) for part in parts)
