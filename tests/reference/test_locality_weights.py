"""Locality weights against Envoy's test/extensions/load_balancing_policies/common/locality_wrr_test.cc."""

from __future__ import annotations

import pytest

from lbcore.model import Endpoint, Locality
from tests.reference.locality_weights import locality_distribution

A, B, C = Locality(zone="A"), Locality(zone="B"), Locality(zone="C")


@pytest.mark.parametrize(("healthy_in_a", "percent_of_a"), [(5, 33), (4, 33), (3, 29), (2, 22), (1, 12), (0, 0)])
def test_a_locality_loses_load_gently_as_its_health_falls(healthy_in_a: int, percent_of_a: int) -> None:
    in_a = [Endpoint(f"127.0.0.1:{port}", locality=A) for port in range(80, 85)]
    in_b = Endpoint("127.0.0.1:85", locality=B)
    shares = locality_distribution([*in_a, in_b], [*in_a[:healthy_in_a], in_b], {A: 1, B: 2})
    assert shares is not None
    assert 100 * shares.get(A, 0.0) == pytest.approx(percent_of_a, abs=1)  # Envoy's test counts 100 whole picks


def test_a_locality_without_a_weight_gets_nothing() -> None:
    members = [Endpoint(f"127.0.0.1:{port}", locality=here) for port, here in ((80, A), (81, B), (82, C))]
    assert locality_distribution(members, members, {A: 1, C: 1}) == {A: 0.5, C: 0.5}


def test_weights_are_ignored_where_all_are_zero() -> None:
    members = [Endpoint("127.0.0.1:80", locality=A)]
    assert locality_distribution(members, members, {A: 0}) is None
