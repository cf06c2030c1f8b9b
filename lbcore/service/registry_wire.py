"""Registrations to messages of registry.proto and back. Pure functions, used by the service and by its clients alike.

A message is input from outside: whatever it holds, reading it raises nothing but `InvalidSetting` naming the field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from lbcore.address import canonical_address
from lbcore.errors import InvalidSetting, Mistake
from lbcore.model import NO_METADATA, Endpoint, Health, Locality
from lbcore.registration import Announcement, Key, Registration, Report, lease_ttl, of_each
from lbcore.service.proto import picker_pb2
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.wire import endpoint_message, endpoint_value, load_message, load_value, metadata_value, seconds
from lbcore.validation import whole

__all__ = [
    "announcement_message",
    "announcement_values",
    "key_message",
    "key_values",
    "registration_message",
    "registration_value",
    "report_message",
    "report_values",
    "sequence_value",
    "ttl_value",
]

_HEALTHS = {int(health): health for health in Health}

WithTtl: TypeAlias = pb.RegisterRequest | pb.HeartbeatRequest
WithSequence: TypeAlias = WithTtl | pb.DeregisterRequest


def announcement_message(announcement: Announcement) -> pb.Announcement:
    """An `Announcement` as a message."""
    service, endpoint = announcement
    message = pb.Announcement(
        service=service,
        address=endpoint.address,
        weight=endpoint.weight,
        locality=str(endpoint.locality),
        priority=endpoint.priority,
        health=picker_pb2.Health.ValueType(endpoint.health),
        hostname=endpoint.hostname,
    )
    if endpoint.metadata:
        message.metadata.update(dict(endpoint.metadata))
    return message


def announcement_values(messages: Iterable[pb.Announcement]) -> list[Announcement]:
    """Messages as `Announcement`s. Raises `InvalidSetting` naming `announcements[N].FIELD`."""
    return of_each("announcements", messages, _announcement)


def _announcement(message: pb.Announcement) -> Announcement:
    endpoint = Endpoint(
        message.address,
        weight=message.weight if message.HasField("weight") else 1,
        locality=Locality.parse(message.locality),
        priority=message.priority,
        health=_health(message.health),
        hostname=message.hostname,
        metadata=metadata_value(message.metadata) if message.HasField("metadata") else NO_METADATA,
    )
    return Announcement(message.service, endpoint)


def key_message(key: Key) -> pb.RegistrationKey:
    """A `Key` as a message."""
    return pb.RegistrationKey(service=key.service, address=key.address)


def key_values(messages: Iterable[pb.RegistrationKey], field: str = "keys") -> list[Key]:
    """Messages as `Key`s, their addresses in canonical form. Raises `InvalidSetting` naming `FIELD[N].address`."""
    return of_each(field, messages, _key)


def _key(message: pb.RegistrationKey) -> Key:
    return Key(message.service, canonical_address(message.address))


def report_message(report: Report) -> pb.EndpointReport:
    """A `Report` as a message."""
    message = pb.EndpointReport(key=key_message(report.key))
    if report.health is not None:
        message.health = picker_pb2.Health.ValueType(report.health)
    if report.load is not None:
        message.load.CopyFrom(load_message(report.load))
    return message


def report_values(messages: Iterable[pb.EndpointReport]) -> list[Report]:
    """Messages as `Report`s. Raises `InvalidSetting` naming `reports[N].FIELD`."""
    return of_each("reports", messages, _report)


def _report(message: pb.EndpointReport) -> Report:
    health = _health(message.health) if message.HasField("health") else None
    load = load_value(message.load) if message.HasField("load") else None
    return Report(_key(message.key), health, load)


def registration_message(registration: Registration) -> pb.Registration:
    """A `Registration` as a message."""
    message = pb.Registration(
        service=registration.service,
        endpoint=endpoint_message(registration.endpoint),
        lease_id=registration.lease,
        revision=registration.revision,
        stale=registration.stale,
        held=registration.held,
    )
    if registration.load is not None:
        message.load.CopyFrom(load_message(registration.load))
    return message


def registration_value(message: pb.Registration) -> Registration:
    """A message as a `Registration`. Raises `InvalidSetting`."""
    return Registration(
        service=message.service,
        endpoint=endpoint_value(message.endpoint),
        lease=message.lease_id,
        revision=message.revision,
        stale=message.stale,
        held=message.held,
        load=load_value(message.load) if message.HasField("load") else None,
    )


def ttl_value(message: WithTtl) -> float | None:
    """The `ttl` of a request in seconds; None where it has none. Raises `InvalidSetting`."""
    return lease_ttl(seconds(message.ttl)) if message.HasField("ttl") else None


def sequence_value(message: WithSequence) -> int:
    """The `sequence` of a request, in 63 bits: no store keeps more. Raises `InvalidSetting`."""
    return whole(message.sequence, "sequence", 0, 2**63 - 1)


def _health(number: int) -> Health:
    try:
        return _HEALTHS[number]
    except KeyError:
        raise InvalidSetting(Mistake(("health",), f"health {number}: expected 0 to {max(Health)}")) from None
