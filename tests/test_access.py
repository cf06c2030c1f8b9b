"""Grants: whom they fit, what they allow, and what of them is wrong."""

from __future__ import annotations

import pytest

from lbcore.access import Grant, Permit, ServerTls, permit_of
from lbcore.errors import InvalidSetting, NotPermitted
from lbcore.model import Endpoint
from lbcore.registration import Announcement, Key
from lbcore.service.permission import check_announcements, check_keys, permitted, sees

AGENT = "spiffe://example.org/ns/shop/sa/agent"


@pytest.mark.parametrize(
    ("pattern", "identity", "fits"),
    [
        (AGENT, AGENT, True),
        ("spiffe://example.org/ns/*/sa/agent", AGENT, True),
        ("spiffe://example.org/ns/*", AGENT, False),
        ("spiffe://example.org/**", AGENT, True),
        ("spiffe://example.org/ns/shop/sa/agen.", AGENT, False),
        ("dns:*.example.org", "dns:a.example.org", True),
        ("dns:a.example.org", AGENT, False),
    ],
)
def test_a_pattern_fits_whole_identities(pattern: str, identity: str, fits: bool) -> None:
    assert (permit_of(identity, (Grant(identity=pattern),)) is not None) is fits


def test_grants_add_up_action_by_action() -> None:
    grants = (
        Grant(identity=AGENT, allow=("register",), services=("web",), networks=("10.1.0.0/16", "fd00::/8")),
        Grant(identity=AGENT, allow=("xds",), services=("pay",), nodes=("a-*",)),
    )
    permit = permit_of(AGENT, grants)
    assert permit is not None
    assert (permit.may("xds"), permit.may("pick")) == (True, False)
    assert (permit.sees("pay"), permit.sees("web"), permit.sees("web", "register")) == (True, False, True)
    assert not permit.unlimited
    assert [permit.announces("web", each) for each in ("10.1.2.3:80", "[fd00::1]:80")] == [True, True]
    assert not any(permit.announces("web", each) for each in ("10.2.0.1:80", "unix:/x", "a.example.org:80"))
    assert not permit.announces("pay", "10.1.2.3:80")


def test_what_is_not_granted_cannot_be_announced_or_withdrawn() -> None:
    here = Announcement("web", Endpoint("10.1.0.1:80"))
    elsewhere = Announcement("web", Endpoint("10.2.0.1:80"))
    permit = Permit((Grant(identity=AGENT, allow=("register",), services=("web",), networks=("10.1.0.0/16",)),))
    check_announcements([elsewhere])  # nobody guards
    with permitted(permit):
        check_announcements([here])
        check_keys([Key("web", "10.1.0.1:80")])
        with pytest.raises(NotPermitted, match=r"announcements\[1\].*10\.2\.0\.1"):
            check_announcements([here, elsewhere])
        with pytest.raises(NotPermitted, match="pay"):
            check_keys([Key("pay", "10.1.0.1:80")])
        assert not sees("web", "pick")
    assert sees("web", "pick")


@pytest.mark.parametrize(
    "fields",
    [
        {"identity": "spiffe://*/x"},
        {"identity": "example.org"},
        {"identity": "dns:"},
        {"identity": AGENT, "allow": ()},
        {"identity": AGENT, "allow": ("everything",)},
        {"identity": AGENT, "services": "web"},
        {"identity": AGENT, "networks": ("10.0.0.1/8",)},
    ],
)
def test_a_wrong_grant_is_refused_by_field(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match=list(fields)[-1]):
        Grant(**fields)  # type: ignore[arg-type]


def test_a_revocation_list_needs_authorities() -> None:
    with pytest.raises(InvalidSetting, match="client_crl_file"):
        ServerTls(certificate_file="a", private_key_file="b", client_crl_file="c")


def test_what_another_action_is_granted_names_no_nodes() -> None:
    grants = (
        Grant(identity="spiffe://x/web", allow=("pick",)),
        Grant(identity="spiffe://x/web", allow=("xds",), nodes=("front-*",)),
    )
    permit = permit_of("spiffe://x/web", grants)
    assert permit is not None
    assert (permit.takes_node("front-1"), permit.takes_node("other")) == (True, False)
