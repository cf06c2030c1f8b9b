"""The policies' fields: Envoy's names and defaults, and refusals that name the field and what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.errors import InvalidSetting
from lbcore.policy import LeastRequest, Maglev, Random, RingHash, RoundRobin, is_prime


@pytest.mark.parametrize(
    ("policy", "defaults"),
    [
        (RoundRobin(), {"slow_start": None}),
        (Random(), {}),
        (
            LeastRequest(),
            {"choice_count": 2, "selection_method": "n_choices", "active_request_bias": 1.0, "slow_start": None},
        ),
        (
            RingHash(),
            {
                "minimum_ring_size": 1024,
                "maximum_ring_size": 8388608,
                "hash_function": "xx_hash",
                "use_hostname_for_hashing": False,
                "hash_balance_factor": None,
            },
        ),
        (Maglev(), {"table_size": 65537, "use_hostname_for_hashing": False, "hash_balance_factor": None}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_fields_and_defaults_are_envoys(policy: Any, defaults: dict[str, object]) -> None:
    fields = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    assert defaults.items() <= fields.items()


@pytest.mark.parametrize(
    ("policy", "field", "value"),
    [
        (LeastRequest, "choice_count", 1),
        (LeastRequest, "choice_count", 101),
        (LeastRequest, "choice_count", 2.0),
        (LeastRequest, "selection_method", "full"),
        (LeastRequest, "selection_method", None),
        (LeastRequest, "active_request_bias", -0.5),
        (LeastRequest, "active_request_bias", float("nan")),
        (LeastRequest, "active_request_bias", float("inf")),
        (LeastRequest, "active_request_bias", "1"),
        (RingHash, "minimum_ring_size", 0),
        (RingHash, "minimum_ring_size", 8388609),
        (RingHash, "maximum_ring_size", 0),
        (RingHash, "maximum_ring_size", 8388609),
        (RingHash, "hash_function", "md5"),
        (RingHash, "hash_balance_factor", 99),
        (RingHash, "hash_balance_factor", 2**32),
        (Maglev, "table_size", 1),
        (Maglev, "table_size", 65536),
        (Maglev, "table_size", 5000017),
        (Maglev, "table_size", 65537.0),
        (Maglev, "hash_balance_factor", 99),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_a_value_out_of_range_is_refused_naming_field_and_value(policy: Any, field: str, value: object) -> None:
    with pytest.raises(InvalidSetting, match=rf"{field} {value!r}: expected"):
        policy(**{field: value})


@pytest.mark.parametrize("policy", [RingHash, Maglev])
def test_use_hostname_for_hashing_is_true_or_false(policy: Any) -> None:
    with pytest.raises(InvalidSetting, match="use_hostname_for_hashing 'no'"):
        policy(use_hostname_for_hashing="no")


@pytest.mark.parametrize("policy", [RoundRobin, LeastRequest])
def test_slow_start_is_none_or_a_slow_start(policy: Any) -> None:
    with pytest.raises(InvalidSetting, match=r"slow_start 30\.0"):
        policy(slow_start=30.0)


def test_a_minimum_above_the_maximum_is_refused_naming_both() -> None:
    with pytest.raises(InvalidSetting, match=r"minimum_ring_size 20: .*maximum_ring_size 10"):
        RingHash(minimum_ring_size=20, maximum_ring_size=10)


@pytest.mark.parametrize(
    "policy",
    [
        LeastRequest(choice_count=100, active_request_bias=0.0),
        RingHash(minimum_ring_size=1, maximum_ring_size=1, hash_balance_factor=100),
        RingHash(minimum_ring_size=8388608),
        Maglev(table_size=2),
        Maglev(table_size=5000011, hash_balance_factor=2**32 - 1),
    ],
    ids=repr,
)
def test_the_bounds_themselves_are_allowed(policy: Any) -> None:
    assert policy == dataclasses.replace(policy)


@given(st.integers(-5, 3000))
def test_primes_are_the_numbers_without_a_divisor(number: int) -> None:
    assert is_prime(number) == (number > 1 and not any(number % each == 0 for each in range(2, number)))


@pytest.mark.parametrize("policy", [RoundRobin, Random, LeastRequest, RingHash, Maglev])
def test_a_policy_is_a_value(policy: Any) -> None:
    assert (policy(), hash(policy())) == (policy(), hash(policy()))
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
        policy().colour = "blue"
