"""Request hashes: the value over several header values is from Envoy's hash_test.cc, the rest follows its rules."""

from __future__ import annotations

from tests.reference.hashing import MASK_64, xxh64
from tests.reference.request_hash import Cookie, HashMethod, Header, QueryParameter, Request, SourceIp, request_hash


def test_values_of_one_header_are_sorted_and_chained() -> None:
    chained = xxh64(b"foo", xxh64(b"bar"))
    assert request_hash([Header("X-A")], Request({"x-a": ["foo", "bar"]})) == chained


def test_chaining_seeds_each_value_with_the_hash_before_as_envoy_does() -> None:
    assert xxh64(b"bar", xxh64(b"foo")) == 17745830980996999794


def test_later_hashes_are_combined_with_the_rotated_earlier_one() -> None:
    first, second = xxh64(b"a"), xxh64(b"b")
    rotated = (first << 1 | first >> 63) & MASK_64
    request = Request({"x-a": ["a"]}, "/?q=b&q=c")
    assert request_hash([Header("x-a"), QueryParameter("q")], request) == rotated ^ second


def test_a_terminal_method_ends_the_list_once_there_is_a_hash() -> None:
    methods: list[HashMethod] = [Header("x-missing", terminal=True), Cookie("c", terminal=True), SourceIp()]
    request = Request({"cookie": ['a=1; c="v"']}, remote_address="[::1]:9")
    assert request_hash(methods, request) == xxh64(b"v")


def test_only_spaces_before_a_cookies_name_are_left_out() -> None:
    request = Request({"cookie": ["a; c; c =1; \tc=2;  c=3 ; c=4"]})
    assert request_hash([Cookie("c")], request) == xxh64(b"3 ")


def test_a_missing_cookie_with_a_ttl_is_made_from_the_addresses() -> None:
    request = Request(remote_address="1.2.3.4:5", local_address="6.7.8.9:80")
    made = f"{xxh64(b'1.2.3.4:56.7.8.9:80'):016x}".encode()
    assert request_hash([Cookie("c", ttl=60)], request) == xxh64(made)


def test_the_source_address_is_hashed_without_its_port() -> None:
    assert request_hash([SourceIp()], Request(remote_address="[::1]:9")) == xxh64(b"::1")


def test_a_rewrite_applies_before_hashing() -> None:
    method = Header("x-a", regex_rewrite=(r"^/user/(\d+).*$", r"\1"))
    assert request_hash([method], Request({"x-a": ["/user/17/cart"]})) == xxh64(b"17")


def test_a_request_without_any_attribute_has_no_hash() -> None:
    assert request_hash([Header("x-a"), Cookie("c"), QueryParameter("q"), SourceIp()], Request()) is None
