"""What may be a key: text and bytes, hashed with XXH64, and an integer, which is the 64-bit hash itself."""

from __future__ import annotations

import pytest

from lbcore import Cluster, hash64
from tests.core.fleets import HASHING, POLICIES, fleet


@pytest.fixture(params=HASHING)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return Cluster("keys", fleet(50), policy=POLICIES[request.param], seed=1)


@pytest.mark.parametrize("key", ["", "user-17", "naïve", "鍵", "🔑" * 40], ids=ascii)
def test_text_picks_as_its_utf8_bytes_and_as_its_hash(cluster: Cluster, key: str) -> None:
    picks = {cluster.pick(key), cluster.pick(key.encode()), cluster.pick(hash64(key))}
    assert len(picks) == 1


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_any_64_bit_hash_is_a_key(cluster: Cluster, key: int) -> None:
    assert cluster.pick(key) is cluster.pick(key)


@pytest.mark.parametrize("key", [-1, 2**64, 10**30])
def test_an_integer_out_of_64_bits_is_refused_with_the_range(cluster: Cluster, key: int) -> None:
    with pytest.raises((ValueError, OverflowError), match=r"64|18446744073709551615"):
        cluster.pick(key)


@pytest.mark.parametrize("key", [1.0, ("a",), ["a"], {}, object], ids=repr)
def test_other_types_are_refused_saying_what_a_key_is(cluster: Cluster, key: object) -> None:
    with pytest.raises(TypeError, match="key"):
        cluster.pick(key)  # type: ignore[arg-type]


def test_a_lone_surrogate_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match=r"surrogate|UTF-8|utf-8"):
        cluster.pick("\ud800")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_takes_a_key(policy: str) -> None:
    cluster = Cluster("keys", fleet(3), policy=POLICIES[policy])
    assert cluster.pick("key") in cluster.endpoints


def test_the_key_can_be_named(cluster: Cluster) -> None:
    assert cluster.pick(key="a") is cluster.pick("a")


def test_no_key_is_a_random_one(cluster: Cluster) -> None:
    assert len({cluster.pick() for _ in range(500)}) > 25
