"""The few protobuf values that every resource is made of."""

from __future__ import annotations

from envoy.config.core.v3 import config_source_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message

__all__ = ["FROM_ADS", "duration", "packed"]

FROM_ADS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
)
"""Where a client finds what a resource refers to: on the stream that the resource came by."""


def packed(message: Message) -> any_pb2.Any:
    """The message in an `Any`, the same bytes for the same content."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def duration(seconds: float) -> duration_pb2.Duration:
    """A span of time, to the nanosecond."""
    nanoseconds = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)
