"""`pick_many` is many picks at once: the same endpoints, key for key, as indices into `cluster.endpoints`."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Health, hash64
from tests.core.fleets import HASHING, NOT_HASHING, POLICIES, fleet
from tests.core.layouts import spread_over_health

BATCHES = [0, 1, 7, 4095, 4096, 4097, 20_000]
HASHES = numpy.random.default_rng(5).integers(0, 2**64, 20_000, dtype=numpy.uint64)


def cluster_of(policy: str, count: int = 12) -> Cluster:
    return Cluster("many", fleet(count, (1, 2, 5)), policy=POLICIES[policy], seed=8)


@pytest.mark.parametrize("policy", NOT_HASHING)
@pytest.mark.parametrize("size", BATCHES)
def test_a_count_gives_what_as_many_single_picks_give(policy: str, size: int) -> None:
    batch, single = cluster_of(policy), cluster_of(policy)
    picked = batch.pick_many(size)
    assert [batch.endpoints[i].address for i in picked] == [single.pick().address for _ in range(size)]


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_single_picks_go_on_where_a_batch_ended(policy: str) -> None:
    mixed, single = cluster_of(policy), cluster_of(policy)
    first = [mixed.endpoints[i].address for i in mixed.pick_many(5_000)]
    order = first + [mixed.pick().address for _ in range(50)]
    assert order == [single.pick().address for _ in range(5_050)]


@pytest.mark.parametrize("policy", HASHING)
@pytest.mark.parametrize("size", BATCHES)
def test_an_array_of_hashes_gives_what_single_picks_of_them_give(policy: str, size: int) -> None:
    cluster = cluster_of(policy)
    picked = cluster.pick_many(HASHES[:size])
    assert [cluster.endpoints[i] for i in picked] == [cluster.pick(int(key)) for key in HASHES[:size]]


@pytest.mark.parametrize("policy", HASHING)
@pytest.mark.parametrize("keys", [["a", "ü", ""], [b"a", b"", b"\xff"], ["a", b"b", 3]], ids=["str", "bytes", "mixed"])
def test_a_list_of_keys_gives_what_single_picks_of_them_give(policy: str, keys: list[str | bytes | int]) -> None:
    cluster = cluster_of(policy)
    assert [cluster.endpoints[i] for i in cluster.pick_many(keys)] == [cluster.pick(key) for key in keys]


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_keys_only_count_where_the_policy_does_not_hash(policy: str) -> None:
    keyed, counted = cluster_of(policy), cluster_of(policy)
    assert keyed.pick_many(["a"] * 100).tolist() == counted.pick_many(100).tolist()


@pytest.mark.parametrize("policy", HASHING)
def test_a_count_draws_random_keys(policy: str) -> None:
    assert len(set(cluster_of(policy).pick_many(1_000).tolist())) == 12


@pytest.mark.parametrize("policy", POLICIES)
def test_the_result_is_an_int32_array(policy: str) -> None:
    picked = cluster_of(policy).pick_many(10)
    assert isinstance(picked, numpy.ndarray)
    assert (str(picked.dtype), picked.shape) == ("int32", (10,))


@pytest.mark.parametrize("policy", POLICIES)
def test_without_endpoints_every_index_is_minus_one(policy: str) -> None:
    assert Cluster("empty", policy=POLICIES[policy]).pick_many(5).tolist() == [-1] * 5


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_usable_endpoint_every_index_is_minus_one(policy: str) -> None:
    endpoints = spread_over_health([Health.UNHEALTHY] * 4)
    cluster = Cluster("down", endpoints, policy=POLICIES[policy], panic_threshold=0.0)
    assert cluster.pick_many(HASHES[:5]).tolist() == [-1] * 5


@pytest.mark.parametrize("policy", HASHING)
def test_a_strided_array_is_read_by_its_strides(policy: str) -> None:
    cluster = cluster_of(policy)
    assert cluster.pick_many(HASHES[::-3]).tolist() == cluster.pick_many(HASHES[::-3].copy()).tolist()


@pytest.mark.parametrize("policy", HASHING)
def test_numpy_text_and_bytes_are_keys(policy: str) -> None:
    cluster = cluster_of(policy)
    words = ["alpha", "beta", "gamma"]
    expected = [cluster.pick(word) for word in words]
    assert [cluster.endpoints[i] for i in cluster.pick_many(numpy.array(words, dtype="S5"))] == expected


@pytest.mark.parametrize("policy", HASHING)
@given(keys=st.lists(st.one_of(st.text(max_size=20), st.binary(max_size=20), st.integers(0, 2**64 - 1)), max_size=30))
def test_any_keys_are_picked_as_single_ones(policy: str, keys: list[str | bytes | int]) -> None:
    cluster = cluster_of(policy)
    assert [cluster.endpoints[i] for i in cluster.pick_many(keys)] == [cluster.pick(key) for key in keys]


@pytest.mark.parametrize(
    "keys",
    [-1, 1.5, None, "text", b"bytes", [None], [1.5], ["\ud800"], [-1], [2**64]],
    ids=ascii,
)
def test_what_is_neither_a_count_nor_keys_is_refused(keys: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        cluster_of("maglev").pick_many(keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64", "complex128", "datetime64[s]"])
def test_an_array_of_no_keys_is_refused(dtype: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        cluster_of("maglev").pick_many(numpy.zeros(3, dtype=dtype))


def test_an_array_of_two_dimensions_is_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        cluster_of("maglev").pick_many(numpy.zeros((2, 2), dtype=numpy.uint64))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint32", "uint8"])
def test_arrays_of_other_integers_are_hashes_as_well(dtype: str) -> None:
    cluster = cluster_of("maglev")
    keys = numpy.arange(100, dtype=dtype)
    assert [cluster.endpoints[i] for i in cluster.pick_many(keys)] == [cluster.pick(int(key)) for key in keys]


def test_an_array_in_the_other_byte_order_holds_the_same_hashes() -> None:
    cluster = cluster_of("maglev")
    assert cluster.pick_many(HASHES[:500].astype(">u8")).tolist() == cluster.pick_many(HASHES[:500]).tolist()


def test_an_array_that_is_not_aligned_holds_the_same_hashes() -> None:
    cluster = cluster_of("maglev")
    shifted = numpy.frombuffer(b"x" + HASHES[:500].tobytes(), dtype=numpy.uint64, offset=1)
    assert cluster.pick_many(shifted).tolist() == cluster.pick_many(HASHES[:500]).tolist()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_picks_can_be_written_into_an_array_of_the_callers(policy: str) -> None:
    writing, returning = cluster_of(policy), cluster_of(policy)
    out = numpy.empty(500, dtype=numpy.int32)
    assert writing.pick_many(HASHES[:500], out) is out
    assert out.tolist() == returning.pick_many(HASHES[:500]).tolist()


READ_ONLY = numpy.empty(5, dtype=numpy.int32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "out",
    [
        numpy.empty(4, dtype=numpy.int32),
        numpy.empty(5, dtype=numpy.int64),
        numpy.empty((5, 1), dtype=numpy.int32),
        numpy.empty(10, dtype=numpy.int32)[::2],
        numpy.empty(5, dtype=">i4"),
        READ_ONLY,
        [0] * 5,
    ],
    ids=["too short", "wider", "matrix", "strided", "other byte order", "read only", "list"],
)
def test_an_array_that_cannot_take_the_picks_is_refused(out: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="out"):
        cluster_of("maglev").pick_many(HASHES[:5], out)


def test_the_hash_of_a_key_is_the_same_key() -> None:
    cluster = cluster_of("ring_hash")
    words = [f"user-{number}" for number in range(5_000)]
    hashes = numpy.array([hash64(word) for word in words], dtype=numpy.uint64)
    assert cluster.pick_many(words).tolist() == cluster.pick_many(hashes).tolist()
