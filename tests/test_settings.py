"""The settings of a cluster: Envoy's names and defaults, and refusals that name the field and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore import settings
from lbcore.errors import InvalidSetting

ENVOY_DEFAULTS: dict[str, dict[str, object]] = {
    "OutlierDetection": {
        "consecutive_5xx": 5,
        "consecutive_gateway_failure": 5,
        "enforcing_consecutive_5xx": 100,
        "enforcing_consecutive_gateway_failure": 0,
        "interval": 10.0,
        "base_ejection_time": 30.0,
        "max_ejection_time": 300.0,
        "max_ejection_time_jitter": 0.0,
        "max_ejection_percent": 10,
        "always_eject_one_host": False,
        "split_external_local_origin_errors": False,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_success_rate": 100,
        "success_rate_minimum_hosts": 5,
        "success_rate_request_volume": 100,
        "success_rate_stdev_factor": 1900,
        "enforcing_local_origin_success_rate": 100,
        "failure_percentage_threshold": 85,
        "enforcing_failure_percentage": 0,
        "enforcing_failure_percentage_local_origin": 0,
        "failure_percentage_minimum_hosts": 5,
        "failure_percentage_request_volume": 50,
    },
    "CircuitBreakers": {
        "max_connections": 1024,
        "max_pending_requests": 1024,
        "max_requests": 1024,
        "max_retries": 3,
    },
}
MAKERS: dict[str, Any] = {
    "SlowStart": lambda **fields: settings.SlowStart(**{"slow_start_window": 10.0, **fields}),
    "OutlierDetection": settings.OutlierDetection,
    "CircuitBreakers": settings.CircuitBreakers,
    "HttpHealthCheck": settings.HttpHealthCheck,
    "HealthCheck": lambda **fields: settings.HealthCheck(**{"http": settings.HttpHealthCheck(), **fields}),
    "Payload": settings.Payload,
    "StatusRange": lambda **fields: settings.StatusRange(**{"start": 200, "end": 300, **fields}),
    "DropOverload": lambda **fields: settings.DropOverload(**{"category": "throttle", "percent": 5.0, **fields}),
}


@pytest.mark.parametrize("name", ENVOY_DEFAULTS)
def test_fields_and_defaults_are_envoys(name: str) -> None:
    made = MAKERS[name]()
    assert {field: getattr(made, field) for field in ENVOY_DEFAULTS[name]} == ENVOY_DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("SlowStart", "slow_start_window", 0.0),
        ("SlowStart", "slow_start_window", -1.0),
        ("SlowStart", "slow_start_window", "10s"),
        ("SlowStart", "aggression", 0.0),
        ("SlowStart", "aggression", float("nan")),
        ("SlowStart", "min_weight_percent", 100.5),
        ("SlowStart", "min_weight_percent", -1.0),
        ("OutlierDetection", "consecutive_5xx", -1),
        ("OutlierDetection", "consecutive_5xx", 2**32),
        ("OutlierDetection", "consecutive_5xx", 5.0),
        ("OutlierDetection", "interval", 0.0),
        ("OutlierDetection", "interval", "10s"),
        ("OutlierDetection", "base_ejection_time", -1.0),
        ("OutlierDetection", "max_ejection_time_jitter", -1.0),
        ("OutlierDetection", "max_ejection_percent", 101),
        ("OutlierDetection", "enforcing_success_rate", -1),
        ("OutlierDetection", "failure_percentage_threshold", 101),
        ("OutlierDetection", "always_eject_one_host", "yes"),
        ("OutlierDetection", "split_external_local_origin_errors", 1),
        ("CircuitBreakers", "max_requests", -1),
        ("CircuitBreakers", "max_retries", 2**32),
        ("CircuitBreakers", "max_connections", 1.0),
        ("HttpHealthCheck", "path", "healthz"),
        ("HttpHealthCheck", "path", 5),
        ("HealthCheck", "interval", 0.0),
        ("HealthCheck", "timeout", -1.0),
        ("HealthCheck", "healthy_threshold", 0),
        ("HealthCheck", "unhealthy_threshold", 0),
        ("HealthCheck", "http", "/healthz"),
        ("HealthCheck", "unhealthy_interval", 0.0),
        ("HealthCheck", "interval_jitter_percent", -1),
        ("HealthCheck", "checked_by", "envoy"),
        ("HttpHealthCheck", "method", "FETCH"),
        ("HttpHealthCheck", "response_buffer_size", -1),
        ("Payload", "text", "abc"),
        ("Payload", "text", ""),
        ("StatusRange", "start", 99),
        ("StatusRange", "end", 601),
        ("DropOverload", "category", ""),
        ("DropOverload", "percent", 100.5),
        ("DropOverload", "percent", -1.0),
    ],
    ids=lambda value: repr(value).strip("'"),
)
def test_a_value_out_of_range_is_refused_naming_field_and_value(name: str, field: str, value: object) -> None:
    with pytest.raises(InvalidSetting, match=rf"{field} {value!r}: expected"):
        MAKERS[name](**{field: value})


@pytest.mark.parametrize("field", ["aggression", "min_weight_percent", "slow_start_window"])
def test_whole_numbers_are_accepted_where_a_float_is_meant(field: str) -> None:
    assert getattr(MAKERS["SlowStart"](**{field: 5}), field) == 5.0


def test_a_longest_ejection_below_the_base_is_refused_naming_both() -> None:
    with pytest.raises(InvalidSetting, match=r"max_ejection_time 10: .*base_ejection_time 30"):
        settings.OutlierDetection(max_ejection_time=10.0)


def test_the_longest_ejection_is_at_least_the_base_unless_given() -> None:
    assert settings.OutlierDetection(base_ejection_time=600.0).max_ejection_time == 600.0


def test_a_check_is_of_exactly_one_kind() -> None:
    with pytest.raises(InvalidSetting, match="exactly one of http, tcp and grpc, found none"):
        settings.HealthCheck()
    with pytest.raises(InvalidSetting, match="exactly one of http, tcp and grpc, found http and tcp"):
        settings.HealthCheck(http=settings.HttpHealthCheck(), tcp=settings.TcpHealthCheck())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: settings.StatusRange(start=300, end=300), "end 300: expected more than start 300"),
        (lambda: settings.HttpHealthCheck(send=settings.Payload.of(b"x")), "method GET has no body"),
        (
            lambda: settings.HttpHealthCheck(receive=(settings.Payload.of(b"xyz"),), response_buffer_size=2),
            "response_buffer_size 2: expected at least the 3 bytes",
        ),
        (
            lambda: settings.HealthCheck(tcp=settings.TcpHealthCheck(), tls=settings.CheckTls()),
            "tls: expected checked_by service, not both",
        ),
    ],
)
def test_settings_of_a_check_that_contradict_each_other_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        make()
