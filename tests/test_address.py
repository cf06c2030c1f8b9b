"""Addresses: the canonical form that identifies an endpoint, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.address import canonical_address
from lbcore.errors import InvalidSetting


@pytest.mark.parametrize(
    ("given_address", "canonical"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("10.0.0.1:00080", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("[2001:DB8:0:0::1]:65535", "[2001:db8::1]:65535"),
        ("db.internal.:443", "db.internal.:443"),
        ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
        ("under_score.svc:1", "under_score.svc:1"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix:/run/ünï.sock", "unix:/run/ünï.sock"),
    ],
)
def test_an_address_has_one_canonical_form(given_address: str, canonical: str) -> None:
    assert canonical_address(given_address) == canonical


@pytest.mark.parametrize(
    "wrong",
    [
        "", "10.0.0.1", ":80", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:99999", "10.0.0.1:+80",
        "10.0.0.1:٣", "10.0.0.1:" + "9" * 5000, "10.0.0:80", "10.0.0.256:80", "1:80", "::1:80", "[::1]", "[::1:80",
        "[::g]:80", "[10.0.0.1]:80", "-a.b:80", "a..b:80", "a b:80", "10.0.0.1\0:80", "unix:", "unix:run/app.sock",
        "unix:/a\nb", "unix:/" + "x" * 107, "http://10.0.0.1:80",
        "10.0.0.1: 80", "1.2.3.4.5:80", "name/path:80", "x" * 64 + ".example:80", "unix:@abstract", "[fe80::1%eth0]:80",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^address "):
        canonical_address(wrong)


@given(st.text())
def test_any_text_is_refused_or_canonical_for_good(anything: str) -> None:
    try:
        once = canonical_address(anything)
    except InvalidSetting:
        return
    assert canonical_address(once) == once


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_and_port_is_an_address(ip: object, port: int) -> None:
    host = f"[{ip}]" if ":" in str(ip) else str(ip)
    once = canonical_address(f"{host}:{port}")
    assert canonical_address(once) == once
