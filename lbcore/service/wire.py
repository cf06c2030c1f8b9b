"""Values to `lbcore.v1` messages and back. Pure functions, used by the picker service and by its clients alike.

A message is input from outside: whatever it holds, reading it raises nothing but `InvalidSetting` naming the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct

from lbcore.errors import InvalidSetting
from lbcore.explanation import Candidate, Explanation
from lbcore.model import Endpoint, Health, LoadReport, Locality, json_metadata
from lbcore.policy import Policy
from lbcore.schema import snake_case
from lbcore.service.proto import picker_pb2 as pb
from lbcore.stats import PriorityStats

__all__ = [
    "NOT_READY",
    "NO_ENDPOINT",
    "REASON",
    "STORE_FAILED",
    "UNKNOWN_LEASE",
    "duration",
    "endpoint_message",
    "endpoint_value",
    "explanation_message",
    "explanation_value",
    "load_message",
    "load_value",
    "metadata_value",
    "parse",
    "policy_name",
    "seconds",
    "struct_message",
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
        metadata=metadata_value(message.metadata) if message.HasField("metadata") else {},
    )


def struct_message(values: Mapping[str, Any], field: str) -> Struct:
    """Plain values as a Struct. Raises `InvalidSetting`."""
    message = Struct()
    message.update(dict(json_metadata(values, field)))
    return message


def metadata_value(message: Struct) -> dict[str, Any]:
    """A Struct as plain values. Raises `InvalidSetting` where it holds what JSON cannot."""
    try:
        values: dict[str, Any] = MessageToDict(message)
    except (SerializeToJsonError, ValueError) as error:  # infinities, NaN
        raise InvalidSetting(f"metadata: {error}") from None
    return values


def explanation_message(explanation: Explanation) -> pb.ExplainResponse:
    """An `Explanation` as a message."""
    shares = explanation.locality_shares or {}
    return pb.ExplainResponse(
        cluster=explanation.cluster,
        policy=snake_case(explanation.policy),
        hash=explanation.hash,
        priorities=[pb.PriorityState(**_level(each)) for each in explanation.priorities],
        percent=explanation.percent,
        priority=explanation.priority,
        degraded=explanation.degraded,
        locality_shares=[pb.LocalityShare(locality=str(place), share=share) for place, share in shares.items()],
        candidates=[
            pb.Candidate(endpoint=endpoint_message(each.endpoint), weight=each.weight, active=each.active)
            for each in explanation.candidates
        ],
        probes=map(endpoint_message, explanation.probes),
        winner=None if explanation.winner is None else endpoint_message(explanation.winner),
        reason=explanation.reason,
    )


def explanation_value(message: pb.ExplainResponse) -> Explanation:
    """A message as an `Explanation`. Raises `InvalidSetting`."""
    shares = {Locality.parse(each.locality): each.share for each in message.locality_shares}
    return Explanation(
        cluster=message.cluster,
        policy=message.policy,
        hash=message.hash if message.HasField("hash") else None,
        priorities=tuple(PriorityStats(**_level(each)) for each in message.priorities),
        percent=message.percent if message.HasField("percent") else None,
        priority=message.priority if message.HasField("priority") else None,
        degraded=message.degraded,
        locality_shares=shares or None,
        candidates=tuple(
            Candidate(endpoint_value(each.endpoint), each.weight, each.active) for each in message.candidates
        ),
        probes=tuple(map(endpoint_value, message.probes)),
        winner=endpoint_value(message.winner) if message.HasField("winner") else None,
        reason=message.reason,
    )


def _level(priority: PriorityStats | pb.PriorityState) -> dict[str, Any]:
    """Its fields, which both forms name alike."""
    return {field.name: getattr(priority, field.name) for field in fields(PriorityStats)}


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
    return snake_case(type(policy).__name__)
