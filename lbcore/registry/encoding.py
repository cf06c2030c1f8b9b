"""Endpoints as the registry keeps them, on disk and in etcd: their fields without the address, fit for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lbcore.model import NO_METADATA, Endpoint, Health, Locality

__all__ = ["EndpointFields", "endpoint_fields", "endpoint_of", "restored_endpoint"]

_set = object.__setattr__
_NOWHERE = Locality.parse("")


class EndpointFields(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What is read, and what is written unless it is as by default; others add fields of their own."""

    weight: int = 1
    locality: str = ""
    priority: int = 0
    health: Health = Health.UNKNOWN
    hostname: str = ""
    metadata: Mapping[str, Any] = {}


def endpoint_fields(endpoint: Endpoint) -> dict[str, Any]:
    """The fields that are not as by default.

    >>> endpoint_fields(Endpoint("10.0.0.1:80", weight=2))
    {'weight': 2}
    """
    fields: dict[str, Any] = {}
    if endpoint.weight != 1:
        fields["weight"] = endpoint.weight
    if endpoint.locality is not _NOWHERE and (place := str(endpoint.locality)):
        fields["locality"] = place
    if endpoint.priority:
        fields["priority"] = endpoint.priority
    if endpoint.health:
        fields["health"] = endpoint.health
    if endpoint.hostname:
        fields["hostname"] = endpoint.hostname
    if endpoint.metadata:
        fields["metadata"] = endpoint.metadata
    return fields


def endpoint_of(address: str, fields: EndpointFields) -> Endpoint:
    """The endpoint with these fields. Raises `InvalidSetting`."""
    return Endpoint(
        address,
        weight=fields.weight,
        locality=fields.locality,
        priority=fields.priority,
        health=fields.health,
        hostname=fields.hostname,
        metadata=fields.metadata,
    )


def restored_endpoint(address: str, fields: EndpointFields) -> Endpoint:
    """As `endpoint_of`, of what this program has checked and written itself: many times as fast without checks."""
    endpoint = object.__new__(Endpoint)
    _set(endpoint, "address", address)
    _set(endpoint, "weight", fields.weight)
    _set(endpoint, "locality", Locality.parse(fields.locality))
    _set(endpoint, "priority", fields.priority)
    _set(endpoint, "health", fields.health)
    _set(endpoint, "hostname", fields.hostname)
    _set(endpoint, "metadata", fields.metadata or NO_METADATA)
    _set(endpoint, "additional_addresses", ())
    return endpoint
