"""Bounded loads against Envoy's test/extensions/load_balancing_policies/common/bounded_load_hlb_test.cc."""

from __future__ import annotations

import pytest

from lbcore.model import Endpoint
from tests.reference.bounded_load import choose_bounded, probe_order, slots
from tests.reference.shares import flat_shares

ENDPOINTS = [Endpoint(f"127.0.0.1:{port}") for port in range(80, 85)]


@pytest.mark.parametrize(("seed", "order"), [(2, [2, 1, 0, 4, 3]), (6, [4, 0, 2, 3, 1]), (7, [0, 1, 4, 3, 2])])
def test_the_probe_visits_endpoints_in_envoys_order(seed: int, order: list[int]) -> None:
    assert probe_order(seed, 5) == order


def test_the_probe_is_seeded_with_the_low_half_of_the_hash() -> None:
    assert probe_order(7 << 32 | 2, 5) == probe_order(2, 5)


def test_slots_are_rounded_up_from_the_share_of_the_bounded_total() -> None:
    assert [slots(active, 0.25, 150) for active in (0, 1, 3, 7)] == [1, 1, 2, 3]


def test_an_endpoint_with_room_serves_its_own_keys() -> None:
    assert choose_bounded(ENDPOINTS[2], flat_shares(ENDPOINTS), 2, {"127.0.0.1:82": 1}, 100) == ENDPOINTS[2]


def test_the_next_of_the_probe_serves_for_an_overloaded_endpoint() -> None:
    assert choose_bounded(ENDPOINTS[2], flat_shares(ENDPOINTS), 2, {"127.0.0.1:82": 2}, 100) == ENDPOINTS[1]


def test_an_overloaded_endpoint_in_the_probe_is_passed_over() -> None:
    active = {"127.0.0.1:82": 4, "127.0.0.1:81": 4, "127.0.0.1:80": 4}
    assert choose_bounded(ENDPOINTS[2], flat_shares(ENDPOINTS), 2, active, 100) == ENDPOINTS[4]
