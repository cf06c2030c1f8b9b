"""The hash functions against the values in Envoy's test/common/common/hash_test.cc."""

from __future__ import annotations

import pytest

from tests.reference.hashing import murmur_hash_2, xxh64


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"foo", 3728699739546630719),
        (b"bar", 5234164152756840025),
        (b"foo\nbar", 8917841378505826757),
        (b"lyft", 4400747396090729504),
        (b"", 17241709254077376921),
    ],
)
def test_xxh64_gives_the_published_value(data: bytes, expected: int) -> None:
    assert xxh64(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"foo", 9631199822919835226),
        (b"bar", 11474628671133349555),
        (b"foo\nbar", 16306510975912980159),
        (b"lyft", 12847078931730529320),
        (b"", 6142509188972423790),
    ],
)
def test_murmur_hash_2_gives_the_published_value(data: bytes, expected: int) -> None:
    assert murmur_hash_2(data) == expected
