"""`lbcore.hash64` is XXH64, bit for bit what the xxhash package computes."""

from __future__ import annotations

from array import array

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import lbcore

SEEDS = st.integers(0, 2**64 - 1)


@given(st.binary(max_size=300), SEEDS)
def test_bytes_hash_as_xxhash_does(data: bytes, seed: int) -> None:
    assert lbcore.hash64(data, seed) == xxhash.xxh64_intdigest(data, seed)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_every_length_up_to_four_stripes_hashes_as_xxhash_does(seed: int) -> None:
    data = bytes(range(129))
    hashes = [lbcore.hash64(data[:length], seed) for length in range(130)]
    assert hashes == [xxhash.xxh64_intdigest(data[:length], seed) for length in range(130)]


@given(st.text(max_size=80), SEEDS)
def test_text_hashes_as_its_utf8(text: str, seed: int) -> None:
    assert lbcore.hash64(text, seed) == xxhash.xxh64_intdigest(text.encode(), seed)


@pytest.mark.parametrize("kind", [bytearray, memoryview], ids=["bytearray", "memoryview"])
def test_buffers_hash_as_their_bytes(kind: type[bytearray] | type[memoryview]) -> None:
    data = b"0123456789" * 9
    assert lbcore.hash64(kind(data), 7) == xxhash.xxh64_intdigest(data, 7)


def test_a_slice_of_a_buffer_hashes_as_the_bytes_it_shows() -> None:
    data = bytes(range(100))
    assert lbcore.hash64(memoryview(data)[3:77]) == xxhash.xxh64_intdigest(data[3:77])


def test_a_view_with_a_step_hashes_as_the_bytes_it_shows() -> None:
    data = bytes(range(100))
    assert lbcore.hash64(memoryview(data)[::-3]) == xxhash.xxh64_intdigest(data[::-3])


def test_a_buffer_of_wider_items_hashes_as_its_bytes() -> None:
    numbers = array("I", [1, 2, 3])
    assert lbcore.hash64(memoryview(numbers)) == xxhash.xxh64_intdigest(numbers.tobytes())


def test_the_seed_is_zero_unless_given() -> None:
    assert lbcore.hash64(b"key") == lbcore.hash64(b"key", 0)


def test_the_seed_can_be_named() -> None:
    assert lbcore.hash64(b"key", seed=5) == lbcore.hash64(b"key", 5)


def test_a_megabyte_hashes_as_xxhash_does() -> None:
    data = bytes(1 << 20)
    assert lbcore.hash64(data) == xxhash.xxh64_intdigest(data)


@pytest.mark.parametrize("data", [None, 1, 1.5, ["a"], object()], ids=repr)
def test_what_is_neither_text_nor_bytes_is_a_type_error(data: object) -> None:
    with pytest.raises(TypeError):
        lbcore.hash64(data)  # type: ignore[arg-type]


def test_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"surrogate|UTF-8|utf-8"):
        lbcore.hash64("\ud800")


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_64_bits_is_refused(seed: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        lbcore.hash64(b"key", seed)


@pytest.mark.parametrize("seed", ["0", 1.0, None], ids=repr)
def test_a_seed_that_is_no_integer_is_a_type_error(seed: object) -> None:
    with pytest.raises(TypeError):
        lbcore.hash64(b"key", seed)  # type: ignore[arg-type]
