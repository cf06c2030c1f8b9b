"""`hash_many` hashes a batch of keys: each as `hash64` hashes it alone."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import hash64, hash_many

SEEDS = st.integers(0, 2**64 - 1)


@given(st.lists(st.one_of(st.text(max_size=40), st.binary(max_size=40)), max_size=40), SEEDS)
def test_each_hash_of_a_list_is_its_own(keys: list[str | bytes], seed: int) -> None:
    assert hash_many(keys, seed).tolist() == [hash64(key, seed) for key in keys]


def test_the_result_is_a_uint64_array() -> None:
    hashes = hash_many(["a", "b"])
    assert (str(hashes.dtype), hashes.shape) == ("uint64", (2,))


@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_any_number_of_keys_may_be_hashed(count: int) -> None:
    keys = [f"user-{number}" for number in range(count)]
    assert hash_many(keys).tolist() == [hash64(key) for key in keys]


def test_any_iterable_of_keys_will_do() -> None:
    keys: list[str | bytes | bytearray | memoryview] = ["a", b"b", bytearray(b"c"), memoryview(b"d")]
    expected = [hash64(key) for key in keys]
    assert hash_many(tuple(keys)).tolist() == hash_many(iter(keys)).tolist() == expected


@pytest.mark.parametrize("width", [1, 7, 8, 15, 32, 33, 100])
def test_fixed_width_bytes_hash_without_their_padding(width: int) -> None:
    words = [b"k" * length for length in range(1, width + 1)]
    assert hash_many(numpy.array(words, dtype=f"S{width}")).tolist() == [hash64(word) for word in words]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9), min_size=1))
def test_fixed_width_text_hashes_as_its_utf8(words: list[str]) -> None:
    assert hash_many(numpy.array(words)).tolist() == [hash64(word) for word in words]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64", "float64", "datetime64[s]"])
@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_arrays_of_numbers_are_no_keys(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        hash_many(numpy.zeros(shape, dtype=dtype))


def test_a_strided_array_is_read_by_its_strides() -> None:
    words = numpy.array([b"aa", b"bbb", b"c", b"dd"], dtype="S3")
    assert hash_many(words[::-2]).tolist() == [hash64(b"dd"), hash64(b"bbb")]


@pytest.mark.parametrize("keys", [None, 5, [5], [None], [1.5], ["\ud800"], numpy.array(["a"], dtype=object)[:, None]])
def test_what_are_no_keys_is_refused(keys: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        hash_many(keys)  # type: ignore[arg-type]
