"""Request hashes: equal to the plain reference whatever the request, in every form that servers give attributes in."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

import lbcore
from lbcore import (
    Cluster,
    Cookie,
    Endpoint,
    FilterState,
    HashPolicy,
    Header,
    InvalidSetting,
    Maglev,
    QueryParameter,
    RegexRewrite,
    SourceIp,
    hash64,
)
from tests.reference import request_hash as reference

HEADER_NAMES = ("x-user", "x-tenant", "cookie")
COOKIE_NAMES = ("session", "c", "C")
PARAMETER_NAMES = ("q", "user", "%71")
# The pattern matches no empty text, and each substitution has only groups that it has.
REWRITES = ((r"^/user/(\d+).*$", r"\1"), (r"[aeiou]+", ""), (r"(\w)-(\w)", r"\2\\\0"))


@dataclass(frozen=True)
class Both:
    """One hash method, as lbcore's value and as the reference's."""

    ours: Any
    plain: reference.HashMethod


def header(name: str, terminal: bool, rewrite: tuple[str, str] | None) -> Both:
    ours = Header(name.title(), terminal=terminal, regex_rewrite=rewrite and RegexRewrite(*rewrite))
    plain = rewrite and (rewrite[0], rewrite[1].replace(r"\0", r"\g<0>"))
    return Both(ours, reference.Header(name, terminal=terminal, regex_rewrite=plain))


def cookie(name: str, terminal: bool, ttl: float | None) -> Both:
    return Both(Cookie(name, terminal=terminal, ttl=ttl), reference.Cookie(name, terminal=terminal, ttl=ttl))


def query_parameter(name: str, terminal: bool) -> Both:
    return Both(QueryParameter(name, terminal=terminal), reference.QueryParameter(name, terminal=terminal))


def source_ip(terminal: bool) -> Both:
    return Both(SourceIp(terminal=terminal), reference.SourceIp(terminal=terminal))


METHODS: st.SearchStrategy[Both] = st.one_of(
    st.builds(header, st.sampled_from(HEADER_NAMES), st.booleans(), st.sampled_from([None, *REWRITES])),
    st.builds(cookie, st.sampled_from(COOKIE_NAMES), st.booleans(), st.sampled_from([None, 0.0, 3600.0])),
    st.builds(query_parameter, st.sampled_from(PARAMETER_NAMES), st.booleans()),
    st.builds(source_ip, st.booleans()),
)
VALUES = st.one_of(st.text(alphabet="ab1/user-é😀", max_size=40), st.text(st.characters(codec="utf-8"), max_size=8))
COOKIES = st.lists(st.sampled_from(["c=1", " c=2", "C=3", 'session="x"', "session", "c=", "=", " ", "c =4", "c==5 "]))
ADDRESSES = st.sampled_from(["", "192.0.2.1:80", "192.0.2.1:81", "[2001:db8::1]:80"])


@st.composite
def requests(draw: st.DrawFn) -> reference.Request:
    headers = {
        "x-user": draw(st.lists(VALUES, max_size=3)),
        "x-tenant": draw(st.lists(VALUES, max_size=2)),
        "cookie": [";".join(each) for each in draw(st.lists(COOKIES, max_size=2))],
    }
    parameters = draw(st.lists(st.sampled_from(["q=1", "q", "q=", "user=a=b", "%71=2", "?q=3", "", "Q=4"])))
    query = "?" + "&".join(parameters) if draw(st.booleans()) else ""
    present = {name: values for name, values in headers.items() if values}
    return reference.Request(present, "/search" + query, draw(ADDRESSES), draw(ADDRESSES))


def as_dict(headers: Mapping[str, Sequence[str]]) -> object:
    return {name.title(): values[0] if len(values) == 1 else list(values) for name, values in headers.items()}


def as_lower_dict(headers: Mapping[str, Sequence[str]]) -> object:
    return {name: values[0] if len(values) == 1 else list(values) for name, values in headers.items()}


def as_multidict(headers: Mapping[str, Sequence[str]]) -> object:
    return CIMultiDictProxy(CIMultiDict((name.title(), value) for name, values in headers.items() for value in values))


def as_pairs_of_bytes(headers: Mapping[str, Sequence[str]]) -> object:
    return [(name.encode(), value.encode()) for name, values in headers.items() for value in values]


def as_iterator_of_pairs(headers: Mapping[str, Sequence[str]]) -> object:
    return ((name.upper(), value) for name, values in headers.items() for value in values)


FORMS = (as_dict, as_lower_dict, as_multidict, as_pairs_of_bytes, as_iterator_of_pairs)


@given(methods=st.lists(METHODS, max_size=4), request=requests(), form=st.sampled_from(FORMS))
def test_every_request_has_the_hash_that_the_reference_computes(
    methods: list[Both], request: reference.Request, form: Callable[[Mapping[str, Sequence[str]]], Any]
) -> None:
    policy = HashPolicy([method.ours for method in methods])
    expected = reference.request_hash([method.plain for method in methods], request)
    headers = form(request.headers)
    assert policy.hash(headers, request.path, request.remote_address, request.local_address) == expected


@given(methods=st.lists(METHODS, max_size=4), request=requests())
def test_evaluate_gives_the_key_that_hash_gives(methods: list[Both], request: reference.Request) -> None:
    policy = HashPolicy([method.ours for method in methods])
    attributes = (as_dict(request.headers), request.path, request.remote_address, request.local_address)
    assert policy.evaluate(*attributes).key == policy.hash(*attributes)  # type: ignore[arg-type]


def test_the_hash_is_a_key_that_clusters_take() -> None:
    cluster = Cluster("web", [Endpoint(f"10.0.0.{n}:80") for n in range(9)], policy=Maglev(table_size=251))
    key = HashPolicy([Header("x-user")]).hash({"x-user": "ann"})
    assert cluster.pick(key) is cluster.pick("ann")


def test_one_method_need_not_be_in_a_list() -> None:
    assert HashPolicy(Header("x-user")) == HashPolicy([Header("x-user")])  # type: ignore[arg-type]


def test_a_mapping_of_attributes_can_be_unpacked() -> None:
    attributes: dict[str, Any] = {"path": "/?q=1", "remote_address": "192.0.2.1:80", "headers": {}}
    assert HashPolicy([QueryParameter("q")]).hash(**attributes) == hash64("1")


def test_a_header_that_is_empty_counts() -> None:
    assert HashPolicy([Header("x-user")]).hash({"x-user": ""}) == hash64("")


def test_a_header_with_an_empty_list_of_values_is_absent() -> None:
    assert HashPolicy([Header("x-user")]).hash({"x-user": []}) is None


def test_bytes_that_are_not_utf8_are_hashed_as_the_bytes_they_were() -> None:
    policy = HashPolicy([Header("x-user")])
    escaped = b"\xff".decode("utf-8", "surrogateescape")
    assert policy.hash({"x-user": escaped}) == policy.hash({"x-user": b"\xff"}) == hash64(b"\xff")


def test_several_values_are_sorted_by_their_bytes() -> None:
    lone_byte = b"\x80".decode("utf-8", "surrogateescape")  # as text it would come after U+0800
    assert HashPolicy([Header("x-user")]).hash({"x-user": ["\u0800", lone_byte]}) == hash64("\u0800", hash64(b"\x80"))


@pytest.mark.parametrize("name", ["accept", "user-agent", "x-forwarded-for"])
def test_lines_of_a_header_that_envoy_keeps_in_one_are_joined(name: str) -> None:
    assert HashPolicy([Header(name)]).hash([(name, "b"), (name, "a")]) == hash64("b,a")


def test_empty_lines_add_nothing_to_a_joined_header() -> None:
    assert HashPolicy([Header("accept")]).hash([("accept", ""), ("accept", "a"), ("accept", "")]) == hash64("a")


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["c=1; d=2"], "1"),
        (["d=2;c=1"], "1"),
        (["c=1; c=2"], "1"),
        (["d=1", "c=2"], "2"),
        (["  c=1"], "1"),
        (["c= 1"], " 1"),
        (["c=1 ; d=2"], "1 "),
        (["c=1\t; d=2"], "1\t"),
        (["d=2;\tc=1"], None),
        (["c =1"], None),
        (["C=1"], None),
        (["d=2, c=1"], None),
        (["c; c=1"], "1"),
        (["c=; c=1"], None),
        (["c=a=b"], "a=b"),
        (['c="1"'], "1"),
        (['c="1" ; d=2'], '"1" '),
        (['c="1;2"'], '"1'),
        (['c="'], '"'),
        (['c=""'], None),
        (["", ";;", " ", "=", "c"], None),
    ],
)
def test_cookies_are_read_as_envoy_reads_them(lines: list[str], value: str | None) -> None:
    expected = None if value is None else hash64(value)
    assert HashPolicy([Cookie("c")]).hash({"cookie": lines}) == expected


def test_a_terminal_method_without_a_hash_ends_the_list_if_an_earlier_one_gave_one() -> None:
    policy = HashPolicy([Header("x-user"), Header("x-tenant", terminal=True), SourceIp()])
    assert policy.hash({"x-user": "ann"}, remote_address="192.0.2.7:5000") == hash64("ann")


def test_the_authority_is_the_host_header() -> None:
    policies = [HashPolicy([Header(name)]) for name in (":authority", "Host")]
    forms: list[dict[str, str]] = [{"Host": "example.com"}, {":authority": "example.com"}]
    assert {policy.hash(form) for policy in policies for form in forms} == {hash64("example.com")}


def test_the_path_is_a_pseudo_header() -> None:
    assert HashPolicy([Header(":path")]).hash({}, "/a?b") == hash64("/a?b")
    assert HashPolicy([Header(":path")]).hash({":path": "/other"}, "/a?b") == hash64("/a?b")
    assert HashPolicy([Header(":path")]).hash({}) is None


def test_the_authority_goes_before_the_host_header() -> None:
    assert HashPolicy([Header("host")]).hash({"host": "a", ":authority": "b"}) == hash64("b")


def test_a_path_of_bytes_is_read_as_text_is() -> None:
    assert HashPolicy([QueryParameter("q")]).hash([], b"?q=%C3%A9") == hash64("%C3%A9")


@pytest.mark.parametrize(
    ("address", "ip"),
    [
        ("192.0.2.7:5000", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        (("192.0.2.7", 5000), "192.0.2.7"),
        (["192.0.2.7", 5000], "192.0.2.7"),
        ("[2001:DB8:0::1]:5000", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        (("2001:db8::1", 5000, 0, 0), "2001:db8::1"),
        pytest.param(("::ffff:192.0.2.7", 5000, 0, 0), "192.0.2.7", id="IPv4 on a socket for both"),
        pytest.param(("fe80::1%eth7", 5000, 0, 7), "fe80::1%7", id="link-local"),
        pytest.param("fe80::1%7", "fe80::1%7", id="link-local in text"),
    ],
)
def test_the_source_ip_is_hashed_in_canonical_form_without_its_port(address: Any, ip: str) -> None:
    assert HashPolicy([SourceIp()]).hash({}, remote_address=address) == hash64(ip)


@pytest.mark.parametrize(
    "address", [None, "", (), "unix:/run/app.sock", b"\0app", ("testclient", 50000), "é:80", "\0:80"]
)
def test_a_peer_without_an_ip_has_no_source_ip(address: Any) -> None:
    assert HashPolicy([SourceIp()]).hash({}, remote_address=address) is None


@pytest.mark.parametrize(
    ("value", "expected"), [("acme", hash64("acme")), (b"acme", hash64("acme")), (7, 7), (None, None)]
)
def test_what_the_program_knows_is_hashed_or_is_the_hash(value: Any, expected: int | None) -> None:
    assert HashPolicy([FilterState("tenant")]).hash({}, filter_state={"tenant": value}) == expected


def test_without_filter_state_no_key_is_in_it() -> None:
    assert HashPolicy([FilterState("tenant")]).hash({}) is None


@pytest.mark.parametrize(
    ("remote", "local", "joined"),
    [
        ("192.0.2.7:5000", "192.0.2.1:80", "192.0.2.7:5000192.0.2.1:80"),
        (("192.0.2.7", 5000), ("192.0.2.1", 80), "192.0.2.7:5000192.0.2.1:80"),
        (("2001:db8::7", 5000, 0, 0), ("2001:db8::1", 80, 0, 0), "[2001:db8::7]:5000[2001:db8::1]:80"),
        ("192.0.2.7", None, "192.0.2.7"),
        ("unix:/peer", "unix:/run/app.sock", "/peer/run/app.sock"),
        (b"\0peer", "/run/app.sock", "@peer/run/app.sock"),
        (("testclient", 50000), None, "testclient"),
    ],
)
def test_a_cookie_that_is_made_stands_for_the_connection(remote: Any, local: Any, joined: str) -> None:
    key, set_cookies = HashPolicy([Cookie("c", ttl=60)]).evaluate({}, "/", remote, local)
    token = f"{hash64(joined):016x}"
    assert (key, set_cookies) == (hash64(token), (f'c="{token}"; Max-Age=60; HttpOnly',))


def test_the_next_request_with_the_cookie_made_has_the_same_key() -> None:
    policy = HashPolicy([Cookie("c", ttl=60)])
    key, (set_cookie,) = policy.evaluate({}, "/", "192.0.2.7:5000", "192.0.2.1:80")
    assert policy.evaluate({"cookie": set_cookie.partition(";")[0]}, "/", "192.0.2.7:5001") == (key, ())


def test_no_cookie_is_made_for_a_connection_that_is_not_known() -> None:
    assert HashPolicy([Cookie("c", ttl=60)]).evaluate({}, "/", None, "192.0.2.1:80") == (None, ())


def test_no_cookie_is_made_after_a_terminal_method_that_gave_a_hash() -> None:
    policy = HashPolicy([Header("x-user", terminal=True), Cookie("c", ttl=60)])
    assert policy.evaluate({"x-user": "ann"}, "/", "192.0.2.7:5000").set_cookies == ()


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (Cookie("c", ttl=0), 'c="v"; HttpOnly'),
        (Cookie("c", ttl=86400 * 365), 'c="v"; Max-Age=31536000; HttpOnly'),
        (
            Cookie("c", ttl=1, path="/a", attributes={"SameSite": "Lax", "Secure": ""}),
            'c="v"; Max-Age=1; Path=/a; SameSite=Lax; Secure; HttpOnly',
        ),
    ],
)
def test_set_cookie_says_what_was_configured(cookie: Cookie, expected: str) -> None:
    assert cookie.set_cookie("v") == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HashPolicy(["x-user"]), r"methods\[0\] 'x-user': expected Header, Cookie"),  # type: ignore[list-item]
        (lambda: HashPolicy("x"), r"methods\[0\] 'x': expected Header, Cookie"),  # type: ignore[arg-type]
        (lambda: HashPolicy(None), r"methods\[0\] None: expected Header, Cookie"),  # type: ignore[arg-type]
        (lambda: Header(""), "name '': expected a header name"),
        (lambda: Header("x user"), "name 'x user': expected a header name"),
        (lambda: Header("x", terminal=1), "terminal 1: expected true or false"),  # type: ignore[arg-type]
        (lambda: Header("x", regex_rewrite="a"), "regex_rewrite 'a': expected a RegexRewrite"),  # type: ignore[arg-type]
        (lambda: Cookie("a=b"), "name 'a=b': expected a cookie's name"),
        (lambda: Cookie("c", ttl=1.5), "ttl 1.5: expected whole seconds"),
        (lambda: Cookie("c", ttl=-1), "ttl -1: expected a number, 0 or more"),
        (lambda: Cookie("c", path="a"), "path 'a': expected a path"),
        (lambda: Cookie("c", path="/;x"), "path '/;x': expected a path"),
        (lambda: Cookie("c", attributes={"a b": ""}), "attributes 'a b': expected letters"),
        (lambda: Cookie("c", attributes={"A": "b;c"}), "attributes.A: A 'b;c': expected printable"),
        (lambda: Cookie("c", attributes=["A"]), r"attributes \['A'\]: expected a mapping"),  # type: ignore[arg-type]
        (lambda: QueryParameter("a&b"), "name 'a&b': expected a parameter's name"),
        (lambda: QueryParameter("é"), "name 'é': expected a parameter's name"),
        (lambda: FilterState(""), "key '': expected printable"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        make()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"headers": "x-user: ann"}, "headers 'x-user: ann': expected a mapping, or pairs"),
        ({"headers": 3}, "headers 3: expected a mapping, or pairs"),
        ({"headers": {"x-user": 3}}, "header x-user: expected str, bytes or a list of them, found int"),
        ({"headers": {"x-user": ["a", None]}}, "x-user: expected str or bytes, found NoneType"),
        ({"headers": {}, "path": None}, "path: expected str or bytes, found NoneType"),
    ],
)
def test_attributes_of_another_form_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        HashPolicy([Header("x-user")]).hash(**attributes)


@pytest.mark.parametrize("address", [("192.0.2.1",), (1, 2), ("192.0.2.1", 80, 0)])
def test_an_address_of_another_form_is_refused(address: Any) -> None:
    with pytest.raises(TypeError, match=r"address .*: expected \"IP:PORT\""):
        HashPolicy([SourceIp()]).hash({}, remote_address=address)


def test_a_hash_from_the_program_that_has_more_than_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"filter_state\['tenant'\] 18446744073709551616: an int is the hash itself"):
        HashPolicy([FilterState("tenant")]).hash({}, filter_state={"tenant": 2**64})


def test_a_policy_survives_pickling() -> None:
    policy = HashPolicy([Header("x", regex_rewrite=RegexRewrite("a", "b")), Cookie("c", ttl=1)])
    copy = pickle.loads(pickle.dumps(policy))
    assert (copy, copy.hash({"x": "a"})) == (policy, hash64("b"))


def test_policies_are_hashable() -> None:
    assert len({HashPolicy([Cookie("c", attributes={"Secure": ""})]), HashPolicy([Cookie("c")])}) == 2


def test_the_package_exports_what_policies_are_made_of() -> None:
    names = {"HashPolicy", "Header", "Cookie", "QueryParameter", "SourceIp", "FilterState", "RegexRewrite"}
    assert names <= set(lbcore.__all__)
