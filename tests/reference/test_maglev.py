"""The table against the assignments in Envoy's test/extensions/load_balancing_policies/maglev/maglev_lb_test.cc."""

from __future__ import annotations

from lbcore.model import Endpoint
from tests.reference.maglev import MaglevTable
from tests.reference.shares import flat_shares, locality_shares


def owners(table: MaglevTable) -> str:
    """The last digit of each slot's port."""
    return "".join(owner.address[-1] for owner in table.slots)


def six(order: int = 1) -> list[Endpoint]:
    return [Endpoint(f"127.0.0.1:{port}", hostname=str(port)) for port in range(90, 96)][::order]


def test_six_equal_endpoints_fill_the_slots_envoy_gives_them() -> None:
    assert owners(MaglevTable(flat_shares(six()), 7)) == "2401503"


def test_hostnames_fill_the_slots_envoy_gives_them() -> None:
    assert owners(MaglevTable(flat_shares(six()), 7, use_hostname=True)) == "2503410"


def test_the_order_of_endpoints_does_not_matter() -> None:
    assert owners(MaglevTable(flat_shares(six(-1)), 7)) == "2401503"


def test_weights_scale_the_number_of_slots() -> None:
    endpoints = [Endpoint("127.0.0.1:90", weight=1), Endpoint("127.0.0.1:91", weight=2)]
    assert owners(MaglevTable(flat_shares(endpoints), 17)) == "10010110111110101"


def test_locality_weights_outrank_endpoint_weights() -> None:
    localities = [[Endpoint("127.0.0.1:90", weight=1)], [Endpoint("127.0.0.1:91", weight=2)]]
    assert owners(MaglevTable(locality_shares(localities, [1, 1]), 17)) == "10010110010100101"


def test_a_locality_of_weight_zero_has_no_slot() -> None:
    localities = [[Endpoint(f"127.0.0.1:{port}")] for port in (90, 92, 91)]
    assert owners(MaglevTable(locality_shares(localities, [8, 0, 2]), 17)) == "10000010010100000"


def test_a_retry_flips_the_high_bits_of_the_hash() -> None:
    table = MaglevTable(flat_shares(six()), 7)
    assert [table.choose(10, attempt).address[-1] for attempt in (0, 1, 2)] == ["1", "0", "5"]
