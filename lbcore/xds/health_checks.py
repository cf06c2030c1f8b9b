"""A `HealthCheck` as the message by which Envoy is told to check; gRPC clients check nothing of the kind.

Settings at Envoy's own defaults are left out. Source: Envoy core/v3/health_check.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.v3 import http_pb2, range_pb2
from google.protobuf import wrappers_pb2

from lbcore.settings import (
    GrpcHealthCheck,
    HeaderValue,
    HealthCheck,
    HttpHealthCheck,
    Payload,
    StatusRange,
    StringMatcher,
    TcpHealthCheck,
)
from lbcore.xds.messages import duration

__all__ = ["health_check_message"]

_DURATIONS = (
    *("initial_jitter", "interval_jitter", "unhealthy_interval", "unhealthy_edge_interval", "healthy_edge_interval"),
    *("no_traffic_interval", "no_traffic_healthy_interval"),
)
_ENVOY_NO_TRAFFIC_INTERVAL = 60.0  # seconds


def health_check_message(setting: HealthCheck) -> health_check_pb2.HealthCheck:
    """The settings as Envoy has them; those of lbcore alone (`watch`, `tls`, the event log) stay here."""
    message = health_check_pb2.HealthCheck(
        interval=duration(setting.interval),
        timeout=duration(setting.timeout),
        healthy_threshold=wrappers_pb2.UInt32Value(value=setting.healthy_threshold),
        unhealthy_threshold=wrappers_pb2.UInt32Value(value=setting.unhealthy_threshold),
        interval_jitter_percent=setting.interval_jitter_percent,
        reuse_connection=None if setting.reuse_connection else wrappers_pb2.BoolValue(value=False),
        **_checker(setting),
    )
    for name in _DURATIONS:
        value = getattr(setting, name)
        if value and not (name == "no_traffic_interval" and value == _ENVOY_NO_TRAFFIC_INTERVAL):
            getattr(message, name).CopyFrom(duration(value))
    return message


def _checker(setting: HealthCheck) -> dict[str, Any]:
    if setting.http is not None:
        return {"http_health_check": _http(setting.http)}
    if setting.grpc is not None:
        return {"grpc_health_check": _grpc(setting.grpc)}
    assert setting.tcp is not None
    return {"tcp_health_check": _tcp(setting.tcp)}


def _http(http: HttpHealthCheck) -> health_check_pb2.HealthCheck.HttpHealthCheck:
    return health_check_pb2.HealthCheck.HttpHealthCheck(
        path=http.path,
        host=http.host,
        # Envoy takes none for GET, as do Envoys that know no other method.
        method=None if http.method == "GET" else base_pb2.RequestMethod.Value(http.method),
        send=_payload(http.send),
        receive=map(_payload, http.receive),
        response_buffer_size=(
            None if http.response_buffer_size == 1024 else wrappers_pb2.UInt64Value(value=http.response_buffer_size)
        ),
        expected_statuses=_ranges(http.expected_statuses),
        retriable_statuses=_ranges(http.retriable_statuses),
        request_headers_to_add=map(_header, http.request_headers_to_add),
        request_headers_to_remove=http.request_headers_to_remove,
        service_name_matcher=_string_matcher(http.service_name_matcher),
        codec_client_type=None if http.codec_client_type == "http1" else http_pb2.HTTP2,
    )


def _tcp(tcp: TcpHealthCheck) -> health_check_pb2.HealthCheck.TcpHealthCheck:
    return health_check_pb2.HealthCheck.TcpHealthCheck(send=_payload(tcp.send), receive=map(_payload, tcp.receive))


def _grpc(grpc: GrpcHealthCheck) -> health_check_pb2.HealthCheck.GrpcHealthCheck:
    return health_check_pb2.HealthCheck.GrpcHealthCheck(
        service_name=grpc.service_name,
        authority=grpc.authority,
        initial_metadata=map(_header, grpc.initial_metadata),
    )


def _header(header: HeaderValue) -> base_pb2.HeaderValueOption:
    """Of the value Envoy would read what stands between two `%` as a command."""
    action = base_pb2.HeaderValueOption.HeaderAppendAction.Value(header.append_action.upper())
    value = base_pb2.HeaderValue(key=header.key, value=header.value.replace("%", "%%"))
    return base_pb2.HeaderValueOption(header=value, append_action=action, keep_empty_value=not header.value)


def _string_matcher(matcher: StringMatcher | None) -> string_pb2.StringMatcher | None:
    if matcher is None:
        return None
    if matcher.safe_regex is not None:
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=matcher.safe_regex))
    return string_pb2.StringMatcher(
        exact=matcher.exact,
        prefix=matcher.prefix,
        suffix=matcher.suffix,
        contains=matcher.contains,
        ignore_case=matcher.ignore_case,
    )


def _payload(payload: Payload | None) -> health_check_pb2.HealthCheck.Payload | None:
    return None if payload is None else health_check_pb2.HealthCheck.Payload(text=payload.text)


def _ranges(statuses: Iterable[StatusRange]) -> list[range_pb2.Int64Range]:
    return [range_pb2.Int64Range(start=each.start, end=each.end) for each in statuses]
