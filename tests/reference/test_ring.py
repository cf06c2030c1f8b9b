"""The ring against the positions in Envoy's test/extensions/load_balancing_policies/ring_hash/ring_hash_lb_test.cc."""

from __future__ import annotations

from lbcore.model import Endpoint
from tests.reference.hashing import MASK_64, murmur_hash_2
from tests.reference.ring import Ring, build_ring
from tests.reference.shares import flat_shares


def ring_of(ports: range, size: int) -> Ring:
    return build_ring(flat_shares([Endpoint(f"127.0.0.1:{port}") for port in ports]), size)


def layout(ring: Ring) -> list[tuple[str, int]]:
    ports = [owner.address.rpartition(":")[2] for owner in ring.owners]
    return list(zip(ports, ring.positions, strict=True))


def test_six_equal_endpoints_lie_where_envoy_puts_them() -> None:
    assert layout(ring_of(range(90, 96), 12)) == [
        ("94", 833437586790550860),
        ("92", 928266305478181108),
        ("90", 1033482794131418490),
        ("95", 3551244743356806947),
        ("93", 3851675632748031481),
        ("91", 5583722120771150861),
        ("91", 6311230543546372928),
        ("93", 7700377290971790572),
        ("95", 13144177310400110813),
        ("92", 13444792449719432967),
        ("94", 15516499411664133160),
        ("90", 16117243373044804889),
    ]


def test_hostnames_lie_where_envoy_puts_them() -> None:
    endpoints = [Endpoint(f"127.0.0.1:{port}", hostname=str(port)) for port in range(90, 96)]
    owners = build_ring(flat_shares(endpoints), 12, use_hostname=True).owners
    assert " ".join(owner.hostname for owner in owners) == "95 95 93 94 93 92 90 92 91 90 91 94"


def test_murmur_points_lie_where_envoy_puts_them() -> None:
    shares = flat_shares([Endpoint(f"127.0.0.1:{port}") for port in range(80, 86)])
    assert layout(build_ring(shares, 12, hash_function=murmur_hash_2)) == [
        ("85", 1358027074129602068),
        ("83", 4361834613929391114),
        ("84", 7224494972555149682),
        ("81", 7701421856454313576),
        ("82", 8649315368077433379),
        ("84", 8739448859063030639),
        ("81", 9887544217113020895),
        ("82", 10150910876324007731),
        ("83", 15168472011420622455),
        ("80", 15427156902705414897),
        ("85", 16375050414328759093),
        ("80", 17613279263364193813),
    ]


def test_weights_scale_the_number_of_points() -> None:
    endpoints = [Endpoint(f"127.0.0.1:{port}", weight=weight) for port, weight in ((90, 1), (91, 2), (92, 3))]
    assert layout(build_ring(flat_shares(endpoints), 6, 6)) == [
        ("92", 928266305478181108),
        ("92", 4443673547860492590),
        ("91", 5583722120771150861),
        ("91", 6311230543546372928),
        ("92", 13444792449719432967),
        ("90", 16117243373044804889),
    ]


def test_the_ring_grows_until_the_least_endpoint_has_whole_points() -> None:
    assert layout(ring_of(range(80, 82), 3)) == [
        ("80", 5454692015285649509),
        ("81", 7859399908942313493),
        ("80", 13838424394637650569),
        ("81", 16064866803292627174),
    ]


def test_lookup_takes_the_first_point_at_or_after_the_hash_and_wraps() -> None:
    ring = ring_of(range(90, 96), 12)
    owners = [ring.choose(key_hash).address[-2:] for key_hash in (0, MASK_64, 3551244743356806947, 3551244743356806948)]
    assert owners == ["94", "94", "95", "93"]


def test_a_retry_goes_to_a_following_point_and_wraps() -> None:
    ring = ring_of(range(90, 96), 12)
    assert [ring.choose(0, attempt).address[-2:] for attempt in (0, 1, 2, 13)] == ["94", "92", "90", "92"]
