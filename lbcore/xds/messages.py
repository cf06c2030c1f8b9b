"""The few protobuf values that every resource is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, duration_pb2, struct_pb2
from google.protobuf.message import Message

__all__ = [
    "FAULT_FILTER",
    "FROM_ADS",
    "LOAD_TO_HERE",
    "duration",
    "fractional_percent",
    "lb_metadata",
    "packed",
    "struct",
]

FAULT_FILTER = "envoy.filters.http.fault"
"""The name under which listeners have the fault filter and routes give it its settings."""

FROM_ADS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
)
"""Where a client finds what a resource refers to: on the stream that the resource came by."""

LOAD_TO_HERE = config_source_pb2.ConfigSource(
    self=config_source_pb2.SelfConfigSource(), resource_api_version=config_source_pb2.V3
)
"""Where a client reports its load: to the server that the cluster came from."""


def packed(message: Message) -> any_pb2.Any:
    """The message in an `Any`, the same bytes for the same content."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def duration(seconds: float) -> duration_pb2.Duration:
    """A span of time, to the nanosecond."""
    nanoseconds = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)


def fractional_percent(percent: float) -> percent_pb2.FractionalPercent:
    """A percentage to the ten-thousandth of a percent."""
    return percent_pb2.FractionalPercent(
        numerator=round(percent * 10_000), denominator=percent_pb2.FractionalPercent.MILLION
    )


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """A mapping of what JSON can hold."""
    message = struct_pb2.Struct()
    message.update(msgspec.to_builtins(values))
    return message


def lb_metadata(values: Mapping[str, Any]) -> base_pb2.Metadata:
    """Metadata that picking looks at."""
    return base_pb2.Metadata(filter_metadata={"envoy.lb": struct(values)})
