"""Values to `lbcore.v1` messages and back. Pure functions, used by the picker service and by its clients alike.

A message is input from outside: whatever it holds, reading it raises nothing but `InvalidSetting` naming the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint, Health, LoadReport, Locality
from lbcore.policy import Policy
from lbcore.service.proto import picker_pb2 as pb

__all__ = [
    "NOT_READY",
    "NO_ENDPOINT",
    "REASON",
    "STORE_FAILED",
    "UNKNOWN_LEASE",
    "duration",
    "endpoint_message",
    "endpoint_value",
    "load_message",
    "load_value",
    "parse",
    "policy_name",
    "seconds",
    "table_message",
]

# Trailing metadata that says more than the status; UNAVAILABLE without it: nothing answers at the address.
REASON = "lbcore-reason"
NO_ENDPOINT = "no-endpoint-available"
NOT_READY = "not-ready"
STORE_FAILED = "store-failed"
UNKNOWN_LEASE = "unknown-lease"

M = TypeVar("M", bound=Message)

_NANOS = 1_000_000_000


def parse(message: type[M], data: bytes) -> M:
    """The message in `data`. Raises `InvalidSetting` where the bytes are none."""
    try:
        return message.FromString(data)
    except DecodeError:
        name = message.DESCRIPTOR.full_name
        raise InvalidSetting(f"request: expected a {name} message, the {len(data)} bytes given are not one") from None


def endpoint_message(endpoint: Endpoint) -> pb.Endpoint:
    """An `Endpoint` as a message."""
    message = pb.Endpoint(
        address=endpoint.address,
        weight=endpoint.weight,
        locality=str(endpoint.locality),
        priority=endpoint.priority,
        health=pb.Health.ValueType(endpoint.health),
        hostname=endpoint.hostname,
    )
    if endpoint.metadata:
        message.metadata.update(dict(endpoint.metadata))
    return message


def endpoint_value(message: pb.Endpoint) -> Endpoint:
    """A message as an `Endpoint`. Raises `InvalidSetting`."""
    try:
        health = Health(message.health)
    except ValueError:
        raise InvalidSetting(f"health {message.health}: expected 0 to {max(Health)}") from None
    return Endpoint(
        message.address,
        weight=message.weight,
        locality=Locality.parse(message.locality),
        priority=message.priority,
        health=health,
        hostname=message.hostname,
        metadata=MessageToDict(message.metadata) if message.HasField("metadata") else {},
    )


def load_message(load: LoadReport) -> pb.LoadReport:
    """A `LoadReport` as a message."""
    return pb.LoadReport(
        rif=load.rif,
        cpu_utilization=load.cpu_utilization,
        application_utilization=load.application_utilization,
        mem_utilization=load.mem_utilization,
        rps_fractional=load.rps_fractional,
        eps=load.eps,
        named_metrics=load.named_metrics,
    )


def load_value(message: pb.LoadReport) -> LoadReport:
    """A message as a `LoadReport`. Raises `InvalidSetting`."""
    return LoadReport(
        rif=message.rif if message.HasField("rif") else None,
        cpu_utilization=message.cpu_utilization,
        application_utilization=message.application_utilization,
        mem_utilization=message.mem_utilization,
        rps_fractional=message.rps_fractional,
        eps=message.eps,
        named_metrics=dict(message.named_metrics),
    )


def table_message(version: str, endpoints: Iterable[Endpoint]) -> pb.EndpointTable:
    """The endpoint table that the indices of a pick stream refer to."""
    return pb.EndpointTable(version=version, endpoints=map(endpoint_message, endpoints))


def duration(seconds: float) -> Duration:
    """Seconds as a protobuf duration, to the nanosecond."""
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return Duration(seconds=whole, nanos=nanos)


def seconds(message: Duration) -> float:
    """A protobuf duration as seconds."""
    return message.seconds + message.nanos / _NANOS


def policy_name(policy: Policy) -> str:
    """The name that a policy has in the configuration.

    >>> from lbcore.policy import RingHash
    >>> policy_name(RingHash())
    'ring_hash'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(policy).__name__).lower()
