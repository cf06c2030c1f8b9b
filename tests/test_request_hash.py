"""Request hashes equal the plain specification (tests/reference/request_hash.py), whatever policy and request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cookie, HashPolicy, Header, InvalidSetting, QueryParameter, RegexRewrite, SourceIp, hash64
from tests.reference import request_hash as reference

NAMES = ("x-user", "x-tenant", "session")
VALUES = st.text("abc019-_/", max_size=8)
ADDRESSES = st.sampled_from(["192.0.2.7:5000", "[2001:db8::1]:443", "10.0.0.1:1"])

methods = st.one_of(
    st.tuples(st.just("header"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("cookie"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("query"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("ip"), st.just(""), st.booleans()),
)
OURS = {
    "header": lambda name, terminal: Header(name, terminal=terminal),
    "cookie": lambda name, terminal: Cookie(name, terminal=terminal),
    "query": lambda name, terminal: QueryParameter(name, terminal=terminal),
    "ip": lambda _, terminal: SourceIp(terminal=terminal),
}
THEIRS = {
    "header": lambda name, terminal: reference.Header(name, terminal),
    "cookie": lambda name, terminal: reference.Cookie(name, None, terminal),
    "query": lambda name, terminal: reference.QueryParameter(name, terminal),
    "ip": lambda _, terminal: reference.SourceIp(terminal),
}


@given(
    chosen=st.lists(methods, min_size=1, max_size=5),
    headers=st.dictionaries(st.sampled_from(NAMES), st.lists(VALUES, min_size=1, max_size=3)),
    cookies=st.dictionaries(st.sampled_from(NAMES), VALUES),
    query=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4),
    remote=ADDRESSES,
)
def test_combinations_equal_the_specification(
    chosen: list[tuple[str, str, bool]],
    headers: dict[str, list[str]],
    cookies: dict[str, str],
    query: list[tuple[str, str]],
    remote: str,
) -> None:
    lines = {**headers, **({"cookie": ["; ".join(f"{k}={v}" for k, v in cookies.items())]} if cookies else {})}
    path = "/p?" + "&".join(f"{name}={value}" for name, value in query)
    expected = reference.request_hash(
        [THEIRS[kind](name, terminal) for kind, name, terminal in chosen],
        reference.Request(headers=lines, path=path, remote_address=remote),
    )
    policy = HashPolicy([OURS[kind](name, terminal) for kind, name, terminal in chosen])
    assert policy.hash(lines, path, remote) == expected
    as_pairs = [(name.title().encode(), value.encode()) for name, values in lines.items() for value in values]
    assert policy.hash(as_pairs, path.encode(), remote) == expected


@given(st.text("abc/0", max_size=6))
def test_a_rewrite_is_hashed_in_the_values_place(value: str) -> None:
    policy = HashPolicy([Header("x-user", regex_rewrite=RegexRewrite("^/([^/]+)/.*$", r"\1"))])
    theirs = reference.Header("x-user", regex_rewrite=("^/([^/]+)/.*$", r"\1"))
    request = reference.Request(headers={"x-user": [value]})
    assert policy.hash({"x-user": value}) == reference.request_hash([theirs], request)


def test_a_request_without_any_attribute_has_no_hash() -> None:
    assert HashPolicy([Header("x-user"), Cookie("session"), QueryParameter("q")]).hash({}, "/") is None


def test_a_cookie_is_made_from_the_connection_and_found_again() -> None:
    policy = HashPolicy([Cookie("session", ttl=60)])
    key, (set_cookie,) = policy.evaluate({}, "/", "192.0.2.7:5000", "192.0.2.1:80")
    value = set_cookie.partition("=")[2].partition(";")[0].strip('"')
    assert key == hash64(value) == policy.hash({"cookie": f"session={value}"})
    assert policy.evaluate({"cookie": f"session={value}"}).set_cookies == ()


@pytest.mark.parametrize("make", [lambda: Header(""), lambda: Header("a b"), lambda: Cookie("a;b"), lambda: Cookie("")])
def test_names_that_no_request_can_bear_are_refused(make: object) -> None:
    with pytest.raises(InvalidSetting):
        make()  # type: ignore[operator]
